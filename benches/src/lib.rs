//! Benchmarks of Riverlog.
//!
//! [`versus`] runs Riverlog's server and a peer side by side, [`scale`] fills stores until a bound
//! would show, and `rivals` (behind the feature of that name) puts the engine beside published crates.
//! The binaries of the same names are their command lines. See `benches/README.md`.

pub mod error;
pub mod measure;
#[cfg(feature = "rivals")]
pub mod rivals;
pub mod scale;
pub mod versus;
