//! From the arguments of the process to an exit code.

use std::process::ExitCode;

use super::arguments::Arguments;
use super::{help, program_name, signal, version_line};
use crate::config::grammar::SystemSource;
use crate::config::{self, ServerConfig};
use crate::run::{self, Launch};

/// Exit codes of the process.
pub mod exit {
    /// Stopped as asked, or nothing to do.
    pub const OK: u8 = 0;
    /// The configuration is not valid, or the server could not start or keep running.
    pub const FAILED: u8 = 1;
    /// The command line is not valid.
    pub const USAGE: u8 = 2;
}

/// The whole program: reads the command line, and the configuration file it names, and runs.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let program = program_name(arguments.next().as_deref());
    let arguments: Vec<String> = arguments.collect();
    ExitCode::from(main_with(&program, &arguments))
}

fn main_with(program: &str, arguments: &[String]) -> u8 {
    let arguments = match Arguments::parse_from_args(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return usage(program, &error),
    };
    if arguments.help == Some(true) {
        print!("{}", help(program));
        return exit::OK;
    }
    if arguments.version == Some(true) {
        println!("{}", version_line(program));
        return exit::OK;
    }
    if let Some(request) = &arguments.signal {
        return match signal::send(request, program) {
            Ok(()) => exit::OK,
            Err(error) => fail(program, &error),
        };
    }
    let is_test = arguments.test_config == Some(true);
    if is_test && arguments.config.is_none() {
        let reason = "must specify [-c, --config] option to check configuration file syntax";
        return fail(program, &reason);
    }
    let config = match read_config(&arguments) {
        Ok(config) => config,
        Err(ReadError::Usage(error)) => return usage(program, &error),
        Err(ReadError::Config(problems)) => return fail(program, &problems),
    };
    if is_test {
        let path = arguments.config.unwrap_or_default();
        let digest = &config.digest;
        eprintln!(
            "{program}: configuration file {} is valid ({digest})",
            path.display()
        );
        return exit::OK;
    }
    let read_again = move || match read_config(&arguments) {
        Ok(config) => Ok(config),
        Err(ReadError::Usage(error)) => Err(error.to_string()),
        Err(ReadError::Config(problems)) => Err(problems.to_string()),
    };
    run::run(Launch {
        program: program.to_owned(),
        config,
        read_again: Box::new(read_again),
    })
}

enum ReadError {
    Usage(super::UsageError),
    Config(config::Problems),
}

/// The configuration file with the command line on top. Also used for a reload.
fn read_config(arguments: &Arguments) -> Result<ServerConfig, ReadError> {
    let mut config = match &arguments.config {
        Some(path) => config::load(&SystemSource, path).map_err(ReadError::Config)?,
        None => ServerConfig::default(),
    };
    arguments.apply_to(&mut config).map_err(ReadError::Usage)?;
    config::check(&config).map_err(ReadError::Config)?;
    Ok(config)
}

fn fail(program: &str, reason: &dyn std::fmt::Display) -> u8 {
    eprintln!("{program}: {reason}");
    exit::FAILED
}

fn usage(program: &str, error: &super::UsageError) -> u8 {
    eprintln!("{program}: {error}\nTry '{program} -h' for the list of options.");
    exit::USAGE
}
