//! Riverlog server: the library behind the binary `riverlog`.

pub mod auth;
pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod fuzzing;
pub mod jetstream;
pub mod logging;
pub mod monitor;
pub mod net;
pub mod protocol;
pub mod routing;
pub mod run;
pub mod server;
