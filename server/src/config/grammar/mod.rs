//! The configuration language: JSON-like, with comments, bare words, sizes, variables and
//! includes (CONF-001 .. CONF-004). JSON is a subset of it.
//!
//! Pure: files and environment come through [`Source`], so tests and fuzzing need neither.
//! Nesting, include depth and variable references are bounded, and every error has a position.

mod digest;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};

pub use digest::digest;
pub use value::{Entry, Map, Position, Value, ValueKind};

/// Where files and variables come from.
pub trait Source {
    /// The content of a file, and a path that is the same for every spelling of that file.
    ///
    /// # Errors
    /// A reason in words, for the message to the user.
    fn read(&self, path: &Path) -> Result<(PathBuf, String), String>;

    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
}

/// A configuration file larger than this is refused unread.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Files of this machine and the environment of this process.
#[derive(Debug, Default)]
pub struct SystemSource;

impl Source for SystemSource {
    fn read(&self, path: &Path) -> Result<(PathBuf, String), String> {
        let read = || {
            let identity = std::fs::canonicalize(path)?;
            let file_bytes = std::fs::metadata(&identity)?.len();
            if file_bytes > FILE_BYTES_MAX {
                return Ok(Err(format!("larger than {FILE_BYTES_MAX} bytes")));
            }
            Ok(Ok((identity, std::fs::read_to_string(path)?)))
        };
        read().unwrap_or_else(|error: std::io::Error| Err(plain_io_error(&error)))
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// An I/O error in the words users know from other tools, without the number Rust appends.
#[must_use]
pub fn plain_io_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads a configuration file and everything it includes.
///
/// # Errors
/// The first syntax error, with its position.
pub fn parse(source: &dyn Source, path: &Path) -> Result<Map, SyntaxError> {
    parser::Parser::new(source).parse(path)
}

/// Text that is not in the configuration language.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntaxError {
    /// What is wrong.
    pub kind: SyntaxErrorKind,
    /// Where.
    pub position: Position,
}

/// The ways in which a configuration file can be malformed.
#[derive(Clone, Debug, PartialEq)]
pub enum SyntaxErrorKind {
    /// No key in the whole file.
    Empty,
    /// The file, or an included one, cannot be read.
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// A file includes itself, directly or through others.
    IncludeCycle(PathBuf),
    /// Too many files inside each other.
    IncludeTooDeep {
        /// The bound.
        depth_max: usize,
    },
    /// `include` is followed by something that is no path.
    IncludeNeedsPath,
    /// Something stands where a key should be.
    KeyExpected(Option<char>),
    /// A key is followed by the end of the line, block or file.
    KeyWithoutValue(String),
    /// Something stands where a value should be.
    ValueExpected(Option<char>),
    /// Something stands behind a value on its line.
    EndOfValueExpected(Option<char>),
    /// Array elements need `,` or a new line between them.
    EndOfElementExpected(Option<char>),
    /// A quote that is never closed.
    UnclosedString,
    /// A `(` that is never closed by a `)` on its own line.
    UnclosedBlock,
    /// A `[` that is never closed.
    UnclosedArray,
    /// A `{` that is never closed.
    UnclosedMap,
    /// Too many arrays and blocks inside each other.
    NestedTooDeep {
        /// The bound.
        depth_max: usize,
    },
    /// The configuration as a whole is too large.
    TooManyValues {
        /// The bound.
        values_max: usize,
    },
    /// A backslash before something that is no escape.
    InvalidEscape(Option<char>),
    /// A whole number that needs more than 64 bits.
    NumberOutOfRange(String),
    /// Neither a key before this line nor the environment defines the variable.
    UnknownVariable(String),
    /// Environment variables that refer to each other.
    VariableCycle(String),
    /// The environment variable's text is no value.
    BadVariable(String),
}

/// A character for a message.
fn shown(found: Option<char>) -> String {
    match found {
        None => "the end of the file".to_owned(),
        Some('\n') => "a new line".to_owned(),
        Some(c) if c.is_control() => format!("'{}'", c.escape_default()),
        Some(c) => format!("'{c}'"),
    }
}

impl fmt::Display for SyntaxErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "config has no values or is empty"),
            Self::Unreadable { path, reason } => write!(f, "open {}: {reason}", path.display()),
            Self::IncludeCycle(path) => {
                write!(f, "include cycle: {} includes itself", path.display())
            }
            Self::IncludeTooDeep { depth_max } => {
                write!(f, "more than {depth_max} files include each other")
            }
            Self::IncludeNeedsPath => write!(f, "include needs the path of a file"),
            Self::KeyExpected(found) => write!(f, "expected a key, found {}", shown(*found)),
            Self::KeyWithoutValue(key) => write!(f, "expected a value for {key:?}"),
            Self::ValueExpected(found) => write!(f, "expected a value, found {}", shown(*found)),
            Self::EndOfValueExpected(found) => write!(
                f,
                "expected a new line, comma or comment after the value, found {}",
                shown(*found)
            ),
            Self::EndOfElementExpected(found) => write!(
                f,
                "expected ',' or ']' after the array element, found {}",
                shown(*found)
            ),
            Self::UnclosedString => write!(f, "string is not closed"),
            Self::UnclosedBlock => write!(f, "'(' is not closed by a ')' on a line of its own"),
            Self::UnclosedArray => write!(f, "array is not closed by ']'"),
            Self::UnclosedMap => write!(f, "block is not closed by '}}'"),
            Self::NestedTooDeep { depth_max } => {
                write!(
                    f,
                    "more than {depth_max} arrays and blocks inside each other"
                )
            }
            Self::TooManyValues { values_max } => write!(f, "more than {values_max} values"),
            Self::InvalidEscape(found) => write!(
                f,
                "invalid escape {}: only \\xXX, \\t, \\n, \\r, \\\" and \\\\ are known",
                shown(*found)
            ),
            Self::NumberOutOfRange(word) => write!(f, "number {word} is out of range"),
            Self::UnknownVariable(name) => write!(f, "variable ${name} is not defined"),
            Self::VariableCycle(name) => write!(f, "variable ${name} refers to itself"),
            Self::BadVariable(name) => {
                write!(
                    f,
                    "the environment variable ${name} does not hold a single value"
                )
            }
        }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            // The position would be the first line of the file that is not there.
            SyntaxErrorKind::Unreadable { path, .. }
                if path.as_os_str() == std::ffi::OsStr::new(&*self.position.file) =>
            {
                write!(f, "{}", self.kind)
            }
            kind => write!(f, "{}: {kind}", self.position),
        }
    }
}

impl std::error::Error for SyntaxError {}
