//! `--signal`: tells a running server to stop, reload, and so on (CLI-009).

use std::fmt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Why a signal could not be sent.
#[derive(Debug)]
pub(super) enum SignalError {
    /// No such command.
    UnknownCommand(String),
    /// Neither a process id nor a readable pid file.
    BadTarget { target: String, reason: String },
    /// No process id given and not exactly one server running.
    Ambiguous { program: String, pids: Vec<i32> },
    /// The system refused.
    Failed { pid: i32, reason: String },
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCommand(command) => write!(
                f,
                "unknown signal {command:?}: expected ldm, stop, quit, term, reopen or reload"
            ),
            Self::BadTarget { target, reason } => {
                write!(
                    f,
                    "{target:?} is neither a process id nor a pid file: {reason}"
                )
            }
            Self::Ambiguous { program, pids } if pids.is_empty() => {
                write!(f, "no {program} processes running")
            }
            Self::Ambiguous { program, pids } => {
                write!(f, "multiple {program} processes running, add =<pid>:")?;
                pids.iter().try_for_each(|pid| write!(f, " {pid}"))
            }
            Self::Failed { pid, reason } => write!(f, "cannot signal process {pid}: {reason}"),
        }
    }
}

/// Carries out `command[=pid]` for servers started as `program`.
pub(super) fn send(request: &str, program: &str) -> Result<(), SignalError> {
    let (command, target) = match request.split_once('=') {
        Some((command, target)) => (command, Some(target)),
        None => (request, None),
    };
    let signal = signal(command)?;
    let pid = match target {
        Some(target) => target_pid(target)?,
        None => match running(program).as_slice() {
            [pid] => *pid,
            pids => {
                let program = program.to_owned();
                return Err(SignalError::Ambiguous {
                    program,
                    pids: pids.to_vec(),
                });
            }
        },
    };
    let Some(process) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else {
        return Err(SignalError::Failed {
            pid,
            reason: "no process id".to_owned(),
        });
    };
    kill_process(process, signal).map_err(|error| SignalError::Failed {
        pid,
        reason: error.to_string(),
    })
}

fn signal(command: &str) -> Result<Signal, SignalError> {
    match command {
        "stop" => Ok(Signal::KILL),
        "quit" => Ok(Signal::INT),
        "term" => Ok(Signal::TERM),
        "reopen" => Ok(Signal::USR1),
        "reload" => Ok(Signal::HUP),
        "ldm" => Ok(Signal::USR2),
        _ => Err(SignalError::UnknownCommand(command.to_owned())),
    }
}

fn target_pid(target: &str) -> Result<i32, SignalError> {
    if let Ok(pid) = target.parse() {
        return Ok(pid);
    }
    let bad = |reason: String| SignalError::BadTarget {
        target: target.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(target).map_err(|error| bad(error.to_string()))?;
    text.trim()
        .parse()
        .map_err(|_| bad("the file holds no process id".to_owned()))
}

/// Processes started under the same name as this one, without this one.
fn running(program: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let Ok(folder) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own && started_as(*pid).as_deref() == Some(program))
        .collect()
}

fn started_as(pid: i32) -> Option<String> {
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let argument_zero = command_line.split(|byte| *byte == 0).next()?;
    let path = std::str::from_utf8(argument_zero).ok()?;
    Some(Path::new(path).file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        for (command, expected) in [
            ("stop", Signal::KILL),
            ("quit", Signal::INT),
            ("term", Signal::TERM),
            ("reopen", Signal::USR1),
            ("reload", Signal::HUP),
            ("ldm", Signal::USR2),
        ] {
            assert_eq!(signal(command).unwrap(), expected);
        }
        assert!(
            send("bogus=1", "riverlog")
                .unwrap_err()
                .to_string()
                .contains("bogus")
        );
    }

    #[test]
    fn targets() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        std::fs::write(&file, "77\n").unwrap();
        assert_eq!(target_pid(file.to_str().unwrap()).unwrap(), 77);
        assert_eq!(target_pid("12").unwrap(), 12);
        std::fs::write(&file, "x").unwrap();
        assert!(target_pid(file.to_str().unwrap()).is_err());
        assert!(target_pid("/no/such/file").is_err());
        // Zero and negative ids would mean whole process groups.
        assert!(send("quit=0", "riverlog").is_err());
        assert!(send("quit=-5", "riverlog").is_err());
        assert!(send("quit", "no-such-program-anywhere").is_err());
    }
}
