//! The command line: flags, help, and how flags override the configuration file.

mod arguments;
mod flags;
mod help;
mod main;
mod signal;
#[cfg(test)]
mod tests;

pub use arguments::Arguments;
pub use flags::{FLAGS, Flag, Takes, UsageError, normalise};
pub use help::help;
pub use main::{exit, main};

/// The version of the reference server whose protocol and behaviour this server has. Clients
/// switch features on by it.
pub const NATS_VERSION: &str = "2.15.1";

/// This server's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The name the reference server's binary has.
const NATS_SERVER: &str = "nats-server";

/// The name the program was started under, which messages begin with and the ports file is
/// named after.
#[must_use]
pub fn program_name(argument_zero: Option<&str>) -> String {
    argument_zero
        .and_then(|path| std::path::Path::new(path).file_name())
        .map_or_else(
            || "riverlog".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
}

/// The line of `-v`. Scripts parse it, so a link named `nats-server` prints just what the
/// reference does (CLI-007).
#[must_use]
pub fn version_line(program: &str) -> String {
    if program == NATS_SERVER {
        format!("{NATS_SERVER}: v{NATS_VERSION}")
    } else {
        format!("riverlog: v{VERSION} ({NATS_SERVER}: v{NATS_VERSION} compatible)")
    }
}
