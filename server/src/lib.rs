//! Riverlog server: the library behind the binary `riverlog`.

pub mod config;
pub mod jetstream;
