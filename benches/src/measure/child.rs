//! One measurement, one process: memory of an earlier one must not count, and a restart must be one.
//!
//! A child writes its figures to standard output, one JSON object a line, and everything meant for
//! people to standard error.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::figure::{Figure, Gate};
use crate::error::{BenchError, BenchResult, Doing};

/// How a child is supposed to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By returning.
    Exit,
    /// By killing itself, so that the next child finds what a crash leaves behind.
    Killed,
}

/// Runs this program again with `args` and hands on its figures as they come.
pub fn run(
    args: &[OsString],
    ending: Ending,
    on_figure: &mut dyn FnMut(Figure),
) -> BenchResult<()> {
    let exe = std::env::current_exe().doing("finding this program")?;
    let mut child = Command::new(exe)
        .args(args)
        // One of the crates in `rivals` talks on standard output otherwise.
        .env("WALRUS_QUIET", "1")
        .stdout(Stdio::piped())
        .spawn()
        .doing("starting a child")?;
    let stdout = child.stdout.take().into_iter();
    for line in stdout.flat_map(|stdout| BufReader::new(stdout).lines()) {
        match Figure::from_json(&line.doing("reading from a child")?) {
            Some(figure) => on_figure(figure),
            None => return Err(BenchError::Failed("a child wrote no figure".into())),
        }
    }
    let status = child.wait().doing("waiting for a child")?;
    if ended_as(status, ending) {
        return Ok(());
    }
    Err(BenchError::Failed(format!("a child ended with {status}")))
}

fn ended_as(status: ExitStatus, ending: Ending) -> bool {
    match ending {
        Ending::Exit => status.success(),
        Ending::Killed => status.signal() == Some(libc::SIGKILL),
    }
}

/// Where a child says what it measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reporter;

impl Reporter {
    /// A figure without a bound.
    pub fn figure(&self, name: &str, value: f64, unit: &str) {
        self.write(name, value, unit, None);
    }

    /// A figure with a bound.
    pub fn gated(&self, name: &str, value: f64, unit: &str, gate: Gate) {
        self.write(name, value, unit, Some(gate));
    }

    fn write(&self, name: &str, value: f64, unit: &str, gate: Option<Gate>) {
        let (name, unit) = (name.to_string(), unit.to_string());
        let figure = Figure {
            name,
            value,
            unit,
            gate,
        };
        println!("{}", figure.to_json());
        // Not lost when the process kills itself.
        let _ = std::io::stdout().flush();
    }
}

/// Numbers that one phase leaves for the next, in a file beside the store.
#[derive(Clone, Debug)]
pub struct Notes {
    dir: PathBuf,
}

impl Notes {
    /// Notes kept in `dir`.
    pub fn new(dir: &Path) -> Notes {
        Notes {
            dir: dir.to_path_buf(),
        }
    }

    /// Leaves a number.
    pub fn put(&self, name: &str, value: u64) -> BenchResult<()> {
        std::fs::write(self.dir.join(name), value.to_string()).doing("writing a note")
    }

    /// The number that was left.
    pub fn get(&self, name: &str) -> BenchResult<u64> {
        let text = std::fs::read_to_string(self.dir.join(name)).doing("reading a note")?;
        text.parse()
            .map_err(|_| BenchError::Failed(format!("the note {name} is no number")))
    }
}

/// The directory that Cargo builds into: on the disk of the workspace, unlike the system's temporary
/// directory, and ignored by version control.
pub fn target_dir() -> BenchResult<PathBuf> {
    let exe = std::env::current_exe().doing("finding this program")?;
    let dir = exe.ancestors().nth(2).map(Path::to_path_buf);
    dir.ok_or_else(|| BenchError::Failed(format!("no target directory above {}", exe.display())))
}

#[cfg(test)]
mod tests {
    use super::{Ending, Notes, ended_as};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn an_exit_is_no_kill() {
        let (exited, killed) = (ExitStatus::from_raw(0), ExitStatus::from_raw(9));
        assert!(ended_as(exited, Ending::Exit) && !ended_as(exited, Ending::Killed));
        assert!(ended_as(killed, Ending::Killed) && !ended_as(killed, Ending::Exit));
    }

    #[test]
    fn notes_are_kept() {
        let dir = tempfile::tempdir().expect("directory");
        let notes = Notes::new(dir.path());
        assert!(notes.get("msgs").is_err());
        notes.put("msgs", 7).expect("written");
        assert_eq!(notes.get("msgs").expect("read"), 7);
    }
}
