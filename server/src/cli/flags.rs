//! The flags, in the many spellings operators know: one dash or two, `-p 4222`, `-p=4222`,
//! several letters behind one dash (`-js`, `-DV`), booleans as `-js=false` (CLI-001 .. CLI-009).
//!
//! [`normalise`] turns all of them into the one long spelling that clap is told about.

use std::fmt;

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// The long name that clap knows, then every other spelling, without dashes.
    pub names: &'static [&'static str],
    /// What it takes.
    pub takes: Takes,
    /// The feature it belongs to, when this version does not have it.
    pub unsupported: Option<&'static str>,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or `=true` or `=false`.
    Bool,
    /// A value, behind `=` or as the next argument.
    Value,
}

const fn value(names: &'static [&'static str]) -> Flag {
    Flag {
        names,
        takes: Takes::Value,
        unsupported: None,
    }
}

const fn switch(names: &'static [&'static str]) -> Flag {
    Flag {
        names,
        takes: Takes::Bool,
        unsupported: None,
    }
}

const fn refused(names: &'static [&'static str], takes: Takes, feature: &'static str) -> Flag {
    Flag {
        names,
        takes,
        unsupported: Some(feature),
    }
}

const TLS: &str = "TLS";
const CLUSTERING: &str = "clustering";

/// Every flag.
pub const FLAGS: &[Flag] = &[
    value(&["addr", "a", "net", "host"]),
    value(&["port", "p"]),
    value(&["server_name", "n", "name"]),
    value(&["pid", "P"]),
    value(&["http_port", "m"]),
    value(&["config", "c"]),
    switch(&["test_config", "t"]),
    value(&["signal", "sl"]),
    value(&["client_advertise"]),
    value(&["ports_file_dir"]),
    value(&["log", "l"]),
    switch(&["logtime", "T"]),
    switch(&["logtime_utc"]),
    switch(&["syslog", "s"]),
    value(&["remote_syslog", "r"]),
    switch(&["debug", "D"]),
    switch(&["trace", "V"]),
    switch(&["trace_verbose", "VV"]),
    switch(&["debug_trace", "DV"]),
    switch(&["debug_trace_verbose", "DVV"]),
    value(&["log_size_limit"]),
    value(&["max_traced_msg_len"]),
    switch(&["jetstream", "js"]),
    value(&["store_dir", "sd"]),
    switch(&["ephemeral"]),
    switch(&["salvage"]),
    value(&["user"]),
    value(&["pass"]),
    value(&["auth"]),
    switch(&["help", "h"]),
    switch(&["version", "v"]),
    refused(&["https_port", "ms"], Takes::Value, TLS),
    refused(&["tls"], Takes::Bool, TLS),
    refused(&["tlscert"], Takes::Value, TLS),
    refused(&["tlskey"], Takes::Value, TLS),
    refused(&["tlsverify"], Takes::Bool, TLS),
    refused(&["tlscacert"], Takes::Value, TLS),
    refused(&["help_tls"], Takes::Bool, TLS),
    refused(&["routes"], Takes::Value, CLUSTERING),
    refused(&["cluster"], Takes::Value, CLUSTERING),
    refused(&["cluster_listen"], Takes::Value, CLUSTERING),
    refused(&["cluster_name"], Takes::Value, CLUSTERING),
    refused(&["cluster_advertise"], Takes::Value, CLUSTERING),
    refused(&["no_advertise"], Takes::Bool, CLUSTERING),
    refused(&["connect_retries"], Takes::Value, CLUSTERING),
    refused(&["profile"], Takes::Value, "profiling over HTTP"),
];

/// A command line that cannot be understood. The messages name the flag as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// No such flag.
    UnknownFlag(String),
    /// A flag of a feature that this version does not have.
    Unsupported {
        /// As typed.
        flag: String,
        /// The feature.
        feature: &'static str,
    },
    /// The value is missing.
    NeedsValue(String),
    /// A value that the flag cannot have.
    BadValue {
        /// As typed.
        flag: String,
        /// As typed.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A word that is no flag and no command.
    UnknownCommand(String),
    /// Flags that do not go together.
    Conflict(&'static str),
    /// Anything else clap finds.
    Other(String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFlag(flag) => write!(f, "flag provided but not defined: {flag}"),
            Self::Unsupported { flag, feature } => {
                write!(
                    f,
                    "flag {flag}: {feature} is not supported in this version of Riverlog"
                )
            }
            Self::NeedsValue(flag) => write!(f, "flag needs an argument: {flag}"),
            Self::BadValue {
                flag,
                value,
                expected,
            } => {
                write!(
                    f,
                    "invalid value {value:?} for flag {flag}: expected {expected}"
                )
            }
            Self::UnknownCommand(word) => write!(f, "unrecognized command: {word:?}"),
            Self::Conflict(reason) => f.write_str(reason),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for UsageError {}

/// The arguments in one spelling: `--long=value` for every flag, then the words behind `--`.
///
/// # Errors
/// The first argument that is no flag, or lacks its value, or is not supported here.
pub fn normalise(arguments: &[String]) -> Result<Vec<String>, UsageError> {
    let mut normal = Vec::new();
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            words.extend(rest.by_ref().cloned());
            break;
        }
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
            // Flags may follow a word, unlike with the reference: nothing is dropped in silence.
            words.push(argument.clone());
            continue;
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        let (name, inline) = match body.split_once('=') {
            Some((name, inline)) => (name, Some(inline.to_owned())),
            None => (body, None),
        };
        let typed = argument.split('=').next().unwrap_or(argument).to_owned();
        let Some(flag) = FLAGS.iter().find(|flag| flag.names.contains(&name)) else {
            return Err(UsageError::UnknownFlag(typed));
        };
        if let Some(feature) = flag.unsupported {
            return Err(UsageError::Unsupported {
                flag: typed,
                feature,
            });
        }
        let value = match (flag.takes, inline) {
            (Takes::Bool, None) => "true".to_owned(),
            (Takes::Bool, Some(text)) => bool_text(&typed, text)?.to_owned(),
            (Takes::Value, Some(text)) => text,
            (Takes::Value, None) => rest
                .next()
                .cloned()
                .ok_or_else(|| UsageError::NeedsValue(typed.clone()))?,
        };
        normal.push(format!("--{}={value}", flag.names[0]));
    }
    if let Some(word) = words.first() {
        return match word.to_ascii_lowercase().as_str() {
            "version" => Ok(vec!["--version=true".to_owned()]),
            "help" => Ok(vec!["--help=true".to_owned()]),
            _ => Err(UsageError::UnknownCommand(word.clone())),
        };
    }
    Ok(normal)
}

/// The spellings of booleans that the reference's flags take.
fn bool_text(flag: &str, text: String) -> Result<&'static str, UsageError> {
    match text.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true"),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false"),
        _ => Err(UsageError::BadValue {
            flag: flag.to_owned(),
            value: text,
            expected: "true or false",
        }),
    }
}
