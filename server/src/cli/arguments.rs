//! Typed arguments, and how they change a configuration (CLI-006: the command line wins).

use std::path::PathBuf;

use clap::Parser;

use super::flags::{UsageError, normalise};
use crate::config::options::{Credentials, Syslog, User};
use crate::config::{Port, ServerConfig};

/// The arguments as clap reads them after [`normalise`]: booleans have a value, so that
/// `-js=false` can switch off what the file switches on.
#[derive(Clone, Debug, Default, Parser, PartialEq, Eq)]
#[command(
    disable_help_flag = true,
    disable_version_flag = true,
    no_binary_name = true
)]
#[command(rename_all = "snake_case", args_override_self = true)]
pub struct Arguments {
    #[arg(long)]
    pub(super) addr: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub(super) port: Option<i32>,
    #[arg(long)]
    pub(super) server_name: Option<String>,
    #[arg(long)]
    pub(super) pid: Option<PathBuf>,
    #[arg(long, allow_hyphen_values = true)]
    pub(super) http_port: Option<i32>,
    #[arg(long)]
    pub(super) config: Option<PathBuf>,
    #[arg(long)]
    pub(super) test_config: Option<bool>,
    #[arg(long)]
    pub(super) signal: Option<String>,
    #[arg(long)]
    pub(super) client_advertise: Option<String>,
    #[arg(long)]
    pub(super) ports_file_dir: Option<PathBuf>,
    #[arg(long)]
    pub(super) log: Option<PathBuf>,
    #[arg(long)]
    pub(super) logtime: Option<bool>,
    #[arg(long)]
    pub(super) logtime_utc: Option<bool>,
    #[arg(long)]
    pub(super) syslog: Option<bool>,
    #[arg(long)]
    pub(super) remote_syslog: Option<String>,
    #[arg(long)]
    pub(super) debug: Option<bool>,
    #[arg(long)]
    pub(super) trace: Option<bool>,
    #[arg(long)]
    pub(super) trace_verbose: Option<bool>,
    #[arg(long)]
    pub(super) debug_trace: Option<bool>,
    #[arg(long)]
    pub(super) debug_trace_verbose: Option<bool>,
    #[arg(long)]
    pub(super) log_size_limit: Option<u64>,
    #[arg(long)]
    pub(super) max_traced_msg_len: Option<usize>,
    #[arg(long)]
    pub(super) jetstream: Option<bool>,
    #[arg(long)]
    pub(super) store_dir: Option<PathBuf>,
    #[arg(long)]
    pub(super) ephemeral: Option<bool>,
    #[arg(long)]
    pub(super) salvage: Option<bool>,
    #[arg(long)]
    pub(super) user: Option<String>,
    #[arg(long)]
    pub(super) pass: Option<String>,
    #[arg(long)]
    pub(super) auth: Option<String>,
    #[arg(long)]
    pub(super) help: Option<bool>,
    #[arg(long)]
    pub(super) version: Option<bool>,
}

fn port(flag: &str, value: i32) -> Result<Port, UsageError> {
    if (-1..=i32::from(u16::MAX)).contains(&value) {
        return Ok(Port::of(i64::from(value)));
    }
    Err(UsageError::BadValue {
        flag: flag.to_owned(),
        value: value.to_string(),
        expected: "a port from -1 to 65535",
    })
}

impl Arguments {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn parse_from_args(arguments: &[String]) -> Result<Self, UsageError> {
        Self::try_parse_from(normalise(arguments)?).map_err(|error| bad_value(&error))
    }

    /// Changes `config` by what the command line says.
    ///
    /// # Errors
    /// A port out of range, or credentials that do not go together.
    pub fn apply_to(&self, config: &mut ServerConfig) -> Result<(), UsageError> {
        fn set<T: Clone>(target: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        fn set_some<T: Clone>(target: &mut Option<T>, value: &Option<T>) {
            if value.is_some() {
                target.clone_from(value);
            }
        }
        set(&mut config.host, &self.addr);
        if let Some(value) = self.port {
            config.port = port("-p", value)?.for_clients();
        }
        if let Some(value) = self.http_port {
            config.monitor.port = port("-m", value)?.for_monitoring();
        }
        set_some(&mut config.server_name, &self.server_name);
        set_some(&mut config.pid_file, &self.pid);
        set_some(&mut config.client_advertise, &self.client_advertise);
        set_some(&mut config.ports_file_dir, &self.ports_file_dir);
        set(&mut config.jetstream.enabled, &self.jetstream);
        set(&mut config.jetstream.store_dir, &self.store_dir);
        set(&mut config.jetstream.ephemeral, &self.ephemeral);
        set(&mut config.jetstream.salvage, &self.salvage);
        self.apply_log(config);
        self.apply_credentials(config)
    }

    fn apply_log(&self, config: &mut ServerConfig) {
        let log = &mut config.log;
        if self.log.is_some() {
            log.file.clone_from(&self.log);
        }
        for (target, values) in [
            (
                &mut log.debug,
                [self.debug, self.debug_trace, self.debug_trace_verbose],
            ),
            (
                &mut log.trace_verbose,
                [self.trace_verbose, self.debug_trace_verbose, None],
            ),
        ] {
            if let Some(value) = values.into_iter().flatten().reduce(|a, b| a || b) {
                *target = value;
            }
        }
        let trace = [
            self.trace,
            self.trace_verbose,
            self.debug_trace,
            self.debug_trace_verbose,
        ];
        if let Some(value) = trace.into_iter().flatten().reduce(|a, b| a || b) {
            log.trace = value;
        }
        log.timestamps = self.logtime.unwrap_or(log.timestamps);
        log.utc = self.logtime_utc.unwrap_or(log.utc);
        log.file_bytes_max = self.log_size_limit.unwrap_or(log.file_bytes_max);
        log.traced_bytes_max = self.max_traced_msg_len.unwrap_or(log.traced_bytes_max);
        match (self.syslog, &self.remote_syslog) {
            (_, Some(address)) => log.syslog = Some(Syslog::Remote(address.clone())),
            (Some(true), None) if log.syslog.is_none() => log.syslog = Some(Syslog::Local),
            (Some(false), None) => log.syslog = None,
            _ => {}
        }
    }

    /// Credentials of the command line replace all those of the file.
    fn apply_credentials(&self, config: &mut ServerConfig) -> Result<(), UsageError> {
        config.auth.credentials = match (&self.user, &self.pass, &self.auth) {
            (None, None, None) => return Ok(()),
            (Some(name), Some(password), None) if !name.is_empty() && !password.is_empty() => {
                Credentials::User(User {
                    name: name.clone(),
                    password: password.clone(),
                })
            }
            (None, None, Some(token)) if !token.is_empty() => Credentials::Token(token.clone()),
            (Some(_), Some(_), Some(_)) => {
                return Err(UsageError::Conflict("--user and --pass exclude --auth"));
            }
            (_, _, Some(_)) => return Err(UsageError::Conflict("--auth must not be empty")),
            _ => {
                return Err(UsageError::Conflict(
                    "--user and --pass need each other, not empty",
                ));
            }
        };
        Ok(())
    }
}

/// Clap's complaint in our words: after [`normalise`] only values can be wrong.
fn bad_value(error: &clap::Error) -> UsageError {
    use clap::error::{ContextKind, ContextValue};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match (
        text(ContextKind::InvalidArg),
        text(ContextKind::InvalidValue),
    ) {
        (Some(flag), Some(value)) => UsageError::BadValue {
            flag: flag.split([' ', '=']).next().unwrap_or_default().to_owned(),
            value,
            expected: "a number",
        },
        _ => UsageError::Other(error.kind().to_string()),
    }
}
