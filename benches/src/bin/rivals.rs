//! Puts the engine beside published crates and prints a table. See `benches/README.md`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use riverlog_benches::error::{BenchError, BenchResult};
use riverlog_benches::measure::child::{self, target_dir};
use riverlog_benches::rivals::RIVALS;
use riverlog_benches::rivals::contender::Rival;
use riverlog_benches::rivals::phases::{PHASES, Work};
use riverlog_benches::rivals::table::Results;

/// The engine and published crates, doing the same durable work on the same disk, in turn.
#[derive(Debug, Parser)]
struct Options {
    /// Messages of 256 bytes in the batches and reads.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Seconds of the appends that wait for the disk one by one.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds; in each one everybody runs every phase once. The table has the medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Contenders to run, by name, separated by commas; by default all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Directory for the stores; by default in the target directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Run one phase, as "contender/phase" in --dir. Used by this program itself.
    #[arg(long, hide = true)]
    phase: Option<String>,
}

impl Options {
    fn work(&self) -> Work {
        Work {
            messages: self.messages,
            seconds: self.seconds,
        }
    }

    fn takes_part(&self, rival: &Rival) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == rival.name)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.phase {
        Some(phase) => run_phase(&options, phase).map(|()| true),
        None => run_all(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("rivals: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run_phase(options: &Options, wanted: &str) -> BenchResult<()> {
    let unknown = || BenchError::Failed(format!("no phase {wanted}"));
    let (rival, phase) = wanted.split_once('/').ok_or_else(unknown)?;
    let rival = RIVALS.iter().find(|candidate| candidate.name == rival);
    let phase = PHASES.iter().find(|candidate| candidate.name == phase);
    let dir = options.dir.as_deref().ok_or_else(unknown)?;
    let (rival, phase) = rival.zip(phase).ok_or_else(unknown)?;
    (phase.run)(rival, dir, options.work())
}

/// Runs everybody; false when somebody failed.
fn run_all(options: &Options) -> BenchResult<bool> {
    let scratch = match &options.dir {
        Some(dir) => dir.clone(),
        None => target_dir()?.join("rivals"),
    };
    std::fs::create_dir_all(&scratch)
        .map_err(|err| BenchError::Io("creating the directory", err))?;
    // Some contenders work in the directory they are given, whatever the current one is.
    let scratch = scratch
        .canonicalize()
        .map_err(|err| BenchError::Io("finding the directory", err))?;
    let rivals: Vec<&'static Rival> = RIVALS
        .iter()
        .filter(|rival| options.takes_part(rival))
        .collect();
    let mut results = Results::default();
    let mut failed = Vec::new();
    println!(
        "# rivals: {} messages, stores in {}",
        options.messages,
        scratch.display()
    );
    for _ in 0..options.rounds {
        run_round(options, &rivals, &scratch, &mut results, &mut failed)?;
    }
    println!("\n{}", results.table(&rivals));
    for rival in &rivals {
        println!("{}: durable by {}", rival.name, rival.durable_by);
        if !rival.cannot.is_empty() {
            println!("{}: {}", rival.name, rival.cannot);
        }
    }
    println!("failed: {failed:?}");
    Ok(failed.is_empty())
}

/// Everybody does every phase, phase by phase, so that all find the machine in the same mood.
fn run_round(
    options: &Options,
    rivals: &[&'static Rival],
    scratch: &Path,
    results: &mut Results,
    failed: &mut Vec<(&'static str, &'static str)>,
) -> BenchResult<()> {
    let mut dirs: Vec<Option<tempfile::TempDir>> = rivals.iter().map(|_| None).collect();
    for phase in PHASES {
        for (rival, dir) in rivals.iter().zip(&mut dirs) {
            if !(phase.applies)(rival) || failed.iter().any(|(name, _)| *name == rival.name) {
                continue;
            }
            let path = match dir {
                Some(dir) if !phase.fresh => dir.path().to_path_buf(),
                _ => {
                    *dir = None;
                    let fresh = tempfile::tempdir_in(scratch)
                        .map_err(|err| BenchError::Io("creating a directory", err))?;
                    dir.insert(fresh).path().to_path_buf()
                }
            };
            let args = child_args(options, rival, phase.name, &path);
            let run = child::run(&args, phase.ending, &mut |figure| {
                println!("{}: {}", rival.name, figure.line());
                results.add(rival.name, figure);
            });
            if let Err(err) = run {
                println!("{}: FAILED in {}: {err}", rival.name, phase.name);
                failed.push((rival.name, phase.name));
            }
        }
    }
    Ok(())
}

fn child_args(options: &Options, rival: &Rival, phase: &str, dir: &Path) -> Vec<OsString> {
    vec![
        "--messages".into(),
        options.messages.to_string().into(),
        "--seconds".into(),
        options.seconds.to_string().into(),
        "--phase".into(),
        format!("{}/{phase}", rival.name).into(),
        "--dir".into(),
        dir.into(),
    ]
}
