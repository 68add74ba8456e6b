//! Opening the store and telling the operator about it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use riverlog_engine::{OpenError, RecoveryReport, Stopped, Store, StoreOptions};

use crate::config::options::JetStreamConfig;
use crate::monitor::{Monitor, Phase, StoreStats};

/// Time between two looks at whether the store has stopped, and between two progress texts.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the store without holding up signals or `/healthz`.
pub(super) async fn open(
    config: &JetStreamConfig,
    monitor: &Arc<Monitor>,
) -> Result<(Store, RecoveryReport), OpenError> {
    let dir = config.store_dir.clone();
    let mut options = StoreOptions::default();
    options.salvage = config.salvage;
    announce(config);
    let start = Instant::now();
    let opening = tokio::task::spawn_blocking(move || Store::open(&dir, options));
    tokio::pin!(opening);
    let opened = loop {
        monitor.set_phase(Phase::Starting(format!(
            "recovering the store in {}, {}s so far",
            config.store_dir.display(),
            start.elapsed().as_secs()
        )));
        tokio::select! {
            opened = &mut opening => break opened,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    };
    let opened = opened.unwrap_or_else(|panic| {
        let (file, source) = (config.store_dir.clone(), std::io::Error::other(panic));
        Err(OpenError::Io { file, source })
    });
    let (store, report) = opened?;
    describe(&config.store_dir, &report, start.elapsed());
    let measured = store.clone();
    monitor.set_store(Box::new(move || stats(&measured)));
    Ok((store, report))
}

fn announce(config: &JetStreamConfig) {
    tracing::info!("Starting JetStream");
    let limit = |bytes: Option<u64>| bytes.map_or_else(|| "unlimited".to_owned(), size);
    tracing::info!("  Max Memory:      {}", limit(config.memory_bytes_max));
    tracing::info!("  Max Storage:     {}", limit(config.file_bytes_max));
    tracing::info!("  Store Directory: {:?}", config.store_dir);
    if let Some(domain) = &config.domain {
        tracing::info!("  Domain:          {domain}");
    }
    if config.salvage {
        tracing::warn!("Salvage: damaged operations of the log are given up and listed here");
    }
}

/// What recovery found. Losses are errors, with what exactly was lost.
fn describe(dir: &Path, report: &RecoveryReport, took: Duration) {
    if report.created {
        tracing::info!("Created a new store in {}", dir.display());
    } else {
        tracing::info!(
            "Recovered {} streams, replaying {} operations ({} of log) in {took:.1?}",
            report.streams,
            report.ops_replayed,
            size(report.log_bytes_read)
        );
    }
    if let Some(cut) = &report.cut {
        tracing::info!("The log ended in an incomplete write, which was cut off: {cut:?}");
    }
    for lost in &report.lost {
        tracing::error!("Lost to damage of the log: {lost:?}");
    }
}

/// Resolves when the store has stopped by itself.
pub(super) async fn stopped(store: &Store) -> Stopped {
    loop {
        if let Some(stopped) = store.stopped() {
            return stopped;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn stats(store: &Store) -> StoreStats {
    let counts = store.metrics();
    StoreStats {
        append_ops: counts.append_ops,
        append_bytes: counts.append_bytes,
        control_ops: counts.control_ops,
        control_bytes: counts.control_bytes,
        frames: counts.frames,
        frame_bytes: counts.frame_bytes,
        syncs: counts.syncs,
        sync_ns: counts.sync_ns,
        sync_ns_max: counts.sync_ns_max,
        log_used_bytes: counts.log_used_bytes,
        log_stalls: counts.log_stalls,
    }
}

/// Bytes with a unit, as the start of the log shows them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.2} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.50 KB"),
            (18_957_376_512, "17.66 GB"),
            (u64::MAX, "16384.00 PB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
