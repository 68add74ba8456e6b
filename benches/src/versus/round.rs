//! One run of one contender, and what was measured.

use std::path::Path;

use super::consume::consume;
use super::contender::Contender;
use super::process::{cpu_seconds, disk_bytes, peak_rss_bytes};
use super::publish::{PublishPlan, STREAM, publish};
use super::wire::Wire;
use crate::error::{BenchError, BenchResult, Doing};

/// Figures of one run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Acknowledged messages per second.
    pub publish_per_second: f64,
    /// Median time from sending to the ack, in microseconds.
    pub ack_p50_us: f64,
    /// 99th percentile of the same.
    pub ack_p99_us: f64,
    /// CPU seconds of the server per million published messages.
    pub publish_cpu_seconds: f64,
    /// CPU seconds of the load per million published messages.
    pub load_cpu_seconds: f64,
    /// Messages read and acknowledged per second.
    pub consume_per_second: f64,
    /// CPU seconds of the server per million consumed messages.
    pub consume_cpu_seconds: f64,
    /// Largest resident size, in MiB.
    pub peak_rss_mib: f64,
    /// Bytes on disk per byte of payload.
    pub disk_per_payload: f64,
    /// Syncs per thousand published messages, if counted.
    pub syncs_per_thousand: Option<f64>,
}

/// Starts the contender on a fresh directory below `scratch`, publishes by plan, reads all back.
pub fn run(contender: &Contender, plan: &PublishPlan, scratch: &Path) -> BenchResult<Figures> {
    let dir = tempfile::Builder::new()
        .prefix("versus-")
        .tempdir_in(scratch);
    let dir = dir.doing("creating a directory")?;
    let server = contender.start(dir.path(), false)?;
    create_stream(server.addr)?;
    let own_pid = std::process::id();
    let syncs_before = server.own_sync_count();
    let (cpu, load_cpu) = (cpu_seconds(server.pid())?, cpu_seconds(own_pid)?);
    let published = publish(server.addr, plan)?;
    let publish_cpu = cpu_seconds(server.pid())? - cpu;
    let load_cpu = cpu_seconds(own_pid)? - load_cpu;
    let syncs = server
        .own_sync_count()
        .zip(syncs_before)
        .map(|(after, before)| after - before);
    let acked = published.acked as f64;
    if acked == 0.0 {
        return Err(BenchError::Failed("nothing was acknowledged".into()));
    }

    let cpu = cpu_seconds(server.pid())?;
    let consumed = consume(
        server.addr,
        published.acked,
        plan.payload_bytes,
        plan.connections,
    )?;
    let consume_cpu = cpu_seconds(server.pid())? - cpu;
    let payload_bytes = acked * plan.payload_bytes as f64;
    Ok(Figures {
        publish_per_second: acked / published.elapsed.as_secs_f64(),
        ack_p50_us: published.latency.percentile_us(50.0) as f64,
        ack_p99_us: published.latency.percentile_us(99.0) as f64,
        publish_cpu_seconds: publish_cpu * 1e6 / acked,
        load_cpu_seconds: load_cpu * 1e6 / acked,
        consume_per_second: consumed.messages as f64 / consumed.elapsed.as_secs_f64(),
        consume_cpu_seconds: consume_cpu * 1e6 / acked,
        peak_rss_mib: peak_rss_bytes(server.pid())? as f64 / (1024.0 * 1024.0),
        disk_per_payload: disk_bytes(&dir.path().join("store"))? as f64 / payload_bytes,
        syncs_per_thousand: syncs.map(|syncs| syncs as f64 * 1e3 / acked),
    })
}

/// Syncs per thousand messages, counted by strace in a run of its own.
pub fn count_syncs(contender: &Contender, plan: &PublishPlan, scratch: &Path) -> BenchResult<f64> {
    let dir = tempfile::Builder::new()
        .prefix("versus-")
        .tempdir_in(scratch);
    let dir = dir.doing("creating a directory")?;
    let server = contender.start(dir.path(), true)?;
    create_stream(server.addr)?;
    let published = publish(server.addr, plan)?;
    let syncs = server.stop_and_count_syncs()?.unwrap_or(0);
    Ok(syncs as f64 * 1e3 / published.acked as f64)
}

fn create_stream(addr: std::net::SocketAddr) -> BenchResult<()> {
    let mut wire = Wire::connect(addr)?;
    let config =
        format!("{{\"name\":\"{STREAM}\",\"subjects\":[\"{STREAM}\"],\"storage\":\"file\"}}");
    let reply = wire.request(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &config)?;
    if reply.windows(7).any(|part| part == b"\"error\"") {
        let text = String::from_utf8_lossy(&reply);
        return Err(BenchError::Failed(format!("no stream: {text}")));
    }
    Ok(())
}
