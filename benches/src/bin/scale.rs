//! Runs the scenarios of `scale` and prints a table. See `benches/README.md`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use riverlog_benches::error::{BenchError, BenchResult};
use riverlog_benches::measure::child::{self, target_dir};
use riverlog_benches::measure::figure::{Figure, table};
use riverlog_benches::measure::os::cpus;
use riverlog_benches::scale::context::Context;
use riverlog_benches::scale::sizes::Sizes;
use riverlog_benches::scale::{SCENARIOS, Scenario};

/// Memory, restart and lookups with a lot of data, each with the bound it must keep.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    sizes: Sizes,
    /// Scenarios to run, by name, separated by commas; by default all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Directory for the stores; by default in the target directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave the stores behind.
    #[arg(long)]
    keep: bool,
    /// Run one phase, as "scenario/phase" in --dir. Used by this program itself.
    #[arg(long, hide = true)]
    phase: Option<String>,
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
            eprintln!("scale: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run_phase(options: &Options, wanted: &str) -> BenchResult<()> {
    let unknown = || BenchError::Failed(format!("no phase {wanted}"));
    let (scenario, phase) = wanted.split_once('/').ok_or_else(unknown)?;
    let dir = options.dir.as_deref().ok_or_else(unknown)?;
    let phases = SCENARIOS
        .iter()
        .filter(|candidate| candidate.name == scenario)
        .flat_map(|scenario| scenario.phases);
    let mut named = phases.filter(|candidate| candidate.name == phase);
    let phase = named.next().ok_or_else(unknown)?;
    (phase.run)(&Context::new(dir, options.sizes.clone()))
}

/// Runs what was asked for; false when a bound was not kept or a scenario failed.
fn run_all(options: &Options) -> BenchResult<bool> {
    let scratch = match &options.dir {
        Some(dir) => dir.clone(),
        None => target_dir()?.join("scale"),
    };
    for name in &options.only {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            return Err(BenchError::Failed(format!("no scenario {name}")));
        }
    }
    println!("# scale: {} CPUs, stores in {}", cpus(), scratch.display());
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for scenario in SCENARIOS {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == scenario.name) {
            continue;
        }
        if let Err(err) = run_scenario(options, scenario, &scratch, &mut rows) {
            println!("{}: FAILED: {err}", scenario.name);
            failed.push(scenario.name);
        }
    }
    println!("\n{}", table(&rows));
    let missed = rows
        .iter()
        .filter(|(_, figure)| figure.passes() == Some(false));
    let missed = missed.count();
    println!(
        "{missed} bounds not kept, {} scenarios failed {failed:?}",
        failed.len()
    );
    Ok(missed == 0 && failed.is_empty())
}

fn run_scenario(
    options: &Options,
    scenario: &Scenario,
    scratch: &Path,
    rows: &mut Vec<(String, Figure)>,
) -> BenchResult<()> {
    std::fs::create_dir_all(scratch)
        .map_err(|err| BenchError::Io("creating the directory", err))?;
    let mut dir = tempfile::Builder::new()
        .prefix(scenario.name)
        .tempdir_in(scratch)
        .map_err(|err| BenchError::Io("creating a directory", err))?;
    dir.disable_cleanup(options.keep);
    for phase in scenario.phases {
        eprintln!(
            "{}/{} in {}",
            scenario.name,
            phase.name,
            dir.path().display()
        );
        let mut args = child_args();
        for (flag, value) in [
            (
                "--phase",
                OsString::from(format!("{}/{}", scenario.name, phase.name)),
            ),
            ("--dir", dir.path().into()),
        ] {
            args.extend([flag.into(), value]);
        }
        child::run(&args, phase.ending, &mut |figure| {
            println!("{}: {}", scenario.name, figure.line());
            rows.push((scenario.name.to_string(), figure));
        })?;
    }
    Ok(())
}

/// The arguments of this process without those that a child gets in its own form.
fn child_args() -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--dir" {
            args.next();
        } else if !arg.to_string_lossy().starts_with("--dir=") {
            kept.push(arg);
        }
    }
    kept
}
