//! What is wrong with a configuration: all of it, each with its place, in one report.

use std::fmt;

use super::grammar::{Position, SyntaxError};

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// The file cannot be read as a configuration.
    Syntax(SyntaxError),
    /// No key of that name exists here.
    UnknownKey {
        /// The key as written.
        key: String,
        /// Where.
        position: Position,
    },
    /// A key of a feature that this server does not have.
    UnsupportedKey {
        /// The key as written.
        key: String,
        /// The feature.
        feature: &'static str,
        /// Where.
        position: Position,
    },
    /// A key with a value it cannot have.
    BadValue {
        /// The key's name.
        key: String,
        /// What is wrong.
        reason: String,
        /// Where.
        position: Position,
    },
    /// Keys or flags that do not go together.
    Conflict(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => error.fmt(f),
            Self::UnknownKey { key, position } => write!(f, "{position}: unknown field {key:?}"),
            Self::UnsupportedKey {
                key,
                feature,
                position,
            } => write!(
                f,
                "{position}: {key:?}: {feature} not supported by this version of Riverlog"
            ),
            Self::BadValue {
                key,
                reason,
                position,
            } => write!(f, "{position}: {key:?}: {reason}"),
            Self::Conflict(reason) => f.write_str(reason),
        }
    }
}

/// All that is wrong with a configuration; never empty when returned as an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
