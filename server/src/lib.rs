//! Riverlog server: the library behind the binary `riverlog`.

pub mod cli;
pub mod config;
pub mod jetstream;
pub mod logging;
pub mod monitor;
