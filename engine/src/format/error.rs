//! Why bytes could not be decoded.

use std::fmt;

/// Bytes that are not what they should be. The caller knows file and offset and adds them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// The input ended inside a value.
    Truncated,
    /// A variable-length integer is longer than needed or does not fit 64 bits.
    VarintInvalid,
    /// The bytes do not start with the magic number of `what`.
    MagicMismatch {
        /// The structure that was expected.
        what: &'static str,
    },
    /// Written by a newer version of this software.
    NewerVersion {
        /// The structure that carries the version.
        what: &'static str,
        /// Version found.
        found: u16,
        /// Newest version this build reads.
        supported: u16,
    },
    /// A kind byte this build does not know: damage, or a newer version.
    UnknownKind {
        /// The structure that carries the kind.
        what: &'static str,
        /// Kind found.
        found: u8,
    },
    /// A checksum does not match its bytes.
    ChecksumMismatch {
        /// The structure that was checked.
        what: &'static str,
        /// Checksum stored with the bytes.
        stored: u64,
        /// Checksum of the bytes.
        computed: u64,
    },
    /// Encrypted with a key that was not given.
    KeyMissing {
        /// What is encrypted.
        what: &'static str,
    },
    /// The checksum fits, the authentication does not: somebody changed it, or encrypted it with
    /// another key.
    NotAuthentic {
        /// What was decrypted.
        what: &'static str,
    },
    /// A number lies outside its range.
    OutOfRange {
        /// The field.
        what: &'static str,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Truncated => f.write_str("the bytes end inside a value"),
            FormatError::VarintInvalid => f.write_str("invalid variable-length integer"),
            FormatError::MagicMismatch { what } => write!(f, "not a {what}: magic differs"),
            FormatError::NewerVersion {
                what,
                found,
                supported,
            } => write!(
                f,
                "{what} has format version {found}, this build reads up to {supported}: \
                 written by a newer version"
            ),
            FormatError::UnknownKind { what, found } => write!(f, "unknown {what} kind {found}"),
            FormatError::ChecksumMismatch {
                what,
                stored,
                computed,
            } => write!(
                f,
                "checksum of {what} differs: stored {stored:#x}, computed {computed:#x}"
            ),
            FormatError::KeyMissing { what } => {
                write!(f, "{what} is encrypted with a key that was not given")
            }
            FormatError::NotAuthentic { what } => write!(
                f,
                "{what} is not authentic: it was changed on purpose or encrypted with another key"
            ),
            FormatError::OutOfRange { what } => write!(f, "{what} is out of range"),
        }
    }
}

impl std::error::Error for FormatError {}
