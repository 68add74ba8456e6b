//! Riverlog's storage engine.
pub mod consumer;
pub mod error;
pub mod format;
pub mod ids;
pub mod io;
pub mod message;
pub mod subject;
