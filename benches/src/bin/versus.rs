//! Runs Riverlog and a peer side by side and prints a table. See `benches/README.md`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use riverlog_benches::error::{BenchError, BenchResult};
use riverlog_benches::measure::child::target_dir;
use riverlog_benches::versus::contender::Contender;
use riverlog_benches::versus::publish::PublishPlan;
use riverlog_benches::versus::report::{Results, table};
use riverlog_benches::versus::round;

/// Riverlog against a peer: the same load on the same disk, in turn.
#[derive(Debug, Parser)]
struct Options {
    /// Command line of the peer: a server with the flags of nats-server.
    #[arg(long)]
    peer: Option<String>,
    /// Text of a configuration file for the peer, such as 'jetstream { sync_interval: always }'.
    #[arg(long)]
    peer_config: Option<String>,
    /// Let the peer take part a second time, with `sync_interval: always`.
    #[arg(long)]
    peer_always: bool,
    /// Command line of Riverlog; by default the workspace's release build, which is brought up to date.
    #[arg(long)]
    riverlog: Option<String>,
    /// Run the peer alone.
    #[arg(long)]
    peer_only: bool,
    /// Rounds; in each one every contender runs once with every load.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages per run, over all connections.
    #[arg(long, default_value_t = 500_000)]
    messages: u64,
    /// Stop publishing after so many seconds.
    #[arg(long, default_value_t = 20)]
    seconds_max: u64,
    /// Messages in flight per connection.
    #[arg(long, default_value_t = 1000)]
    in_flight: u64,
    /// Payload sizes in bytes.
    #[arg(long, value_delimiter = ',', default_value = "128,1024")]
    sizes: Vec<usize>,
    /// Numbers of publishing connections.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    connections: Vec<u32>,
    /// Directory for the stores; by default in the target directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Count fsync calls with strace, in runs of their own.
    #[arg(long)]
    strace: bool,
}

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("versus: {err}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> BenchResult<()> {
    let contenders = contenders(options)?;
    let scratch = match &options.dir {
        Some(dir) => dir.clone(),
        None => target_dir()?.join("versus"),
    };
    std::fs::create_dir_all(&scratch)
        .map_err(|err| BenchError::Io("creating the directory", err))?;
    println!(
        "# versus: {} rounds, up to {} messages per run",
        options.rounds, options.messages
    );
    for connections in &options.connections {
        for payload_bytes in &options.sizes {
            let plan = PublishPlan {
                connections: (*connections).max(1),
                in_flight: options.in_flight.max(1),
                messages: options.messages,
                time_max: Duration::from_secs(options.seconds_max),
                payload_bytes: *payload_bytes,
            };
            let title = format!(
                "{payload_bytes} B, {connections} connection(s), {} in flight each",
                plan.in_flight
            );
            let results = measure(options, &contenders, &plan, &scratch)?;
            println!("{}", table(&title, &results));
        }
    }
    Ok(())
}

fn measure(
    options: &Options,
    contenders: &[Contender],
    plan: &PublishPlan,
    scratch: &Path,
) -> BenchResult<Vec<Results>> {
    let mut results: Vec<Results> = contenders
        .iter()
        .map(|contender| Results {
            name: contender.name.clone(),
            rounds: Vec::new(),
            traced_syncs: None,
        })
        .collect();
    for number in 0..options.rounds {
        // Everybody goes first as often as the others.
        for offset in 0..contenders.len() {
            let index = (number + offset) % contenders.len();
            let figures = round::run(&contenders[index], plan, scratch)?;
            eprintln!(
                "round {} {} {} B x{}: {:.0} msgs/s, consume {:.0} msgs/s",
                number + 1,
                contenders[index].name,
                plan.payload_bytes,
                plan.connections,
                figures.publish_per_second,
                figures.consume_per_second,
            );
            results[index].rounds.push(figures);
        }
    }
    if options.strace {
        for (contender, result) in contenders.iter().zip(&mut results) {
            result.traced_syncs = Some(round::count_syncs(contender, plan, scratch)?);
        }
    }
    Ok(results)
}

fn contenders(options: &Options) -> BenchResult<Vec<Contender>> {
    let mut contenders = Vec::new();
    if !options.peer_only {
        let command = match &options.riverlog {
            Some(command) => command.clone(),
            None => build_riverlog()?.display().to_string(),
        };
        contenders.push(Contender {
            name: "riverlog".into(),
            command,
            config: None,
        });
    }
    if let Some(command) = &options.peer {
        contenders.push(Contender {
            name: "peer".into(),
            command: command.clone(),
            config: options.peer_config.clone(),
        });
        if options.peer_always {
            contenders.push(Contender {
                name: "peer always".into(),
                command: command.clone(),
                config: Some("jetstream { sync_interval: always }\n".into()),
            });
        }
    }
    if contenders.is_empty() {
        return Err(BenchError::Failed("--peer-only needs --peer".into()));
    }
    Ok(contenders)
}

/// Brings the release build of the server up to date.
fn build_riverlog() -> BenchResult<PathBuf> {
    let target = target_dir()?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--package",
            "riverlog-server",
            "--bin",
            "riverlog",
        ])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()
        .map_err(|err| BenchError::Io("starting cargo", err))?;
    if !status.success() {
        return Err(BenchError::Failed(format!(
            "building riverlog failed: {status}"
        )));
    }
    Ok(target.join("release/riverlog"))
}
