//! Configuration: the language of the file ([`grammar`]), the accepted keys ([`keys`]), and the
//! typed result ([`ServerConfig`]). `server/docs/configuration.md` describes every key.

mod duration;
pub mod grammar;
pub mod keys;
pub mod options;
mod port;
mod problems;
pub mod reload;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use duration::parse_duration;
use options::Credentials;
pub use options::ServerConfig;
pub use port::Port;
pub use problems::{Problem, Problems};

/// Reads a configuration file on top of the defaults.
///
/// # Errors
/// Everything that is wrong with the file, not only the first thing. Whether keys go together is
/// for [`check`] to say, because the command line may still change them.
pub fn load(source: &dyn grammar::Source, path: &Path) -> Result<ServerConfig, Problems> {
    let map =
        grammar::parse(source, path).map_err(|error| Problems(vec![Problem::Syntax(error)]))?;
    let mut config = ServerConfig {
        file: Some(path.to_owned()),
        digest: grammar::digest(&map),
        ..ServerConfig::default()
    };
    let mut problems = Problems::default();
    keys::apply_file(&map, &mut config, &mut problems);
    if problems.0.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}

/// Checks what a single key cannot know.
///
/// # Errors
/// Every pair of options that do not go together.
pub fn check(config: &ServerConfig) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let mut conflict = |reason: String| problems.0.push(Problem::Conflict(reason));
    let limits = &config.limits;
    if limits.payload_bytes_max > limits.pending_bytes_max {
        conflict(format!(
            "max_payload ({}) cannot be higher than max_pending ({})",
            limits.payload_bytes_max, limits.pending_bytes_max
        ));
    }
    if config
        .server_name
        .as_deref()
        .is_some_and(|name| name.contains(char::is_whitespace))
    {
        conflict("server name cannot contain spaces".to_owned());
    }
    if let Some(name) = &config.auth.no_auth_user {
        let is_known = matches!(&config.auth.credentials,
            Credentials::Users(users) if users.iter().any(|user| user.name == *name));
        if !is_known {
            conflict(format!("no_auth_user {name:?} is not one of the users"));
        }
    }
    if config.lame_duck_grace_period >= config.lame_duck_duration {
        conflict(format!(
            "lame_duck_grace_period ({}s) must be shorter than lame_duck_duration ({}s)",
            config.lame_duck_grace_period.as_secs(),
            config.lame_duck_duration.as_secs()
        ));
    }
    if problems.0.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}
