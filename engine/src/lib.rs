//! Riverlog's storage engine.
pub mod cache;
pub mod consumer;
pub mod error;
pub mod format;
pub mod ids;
pub mod io;
pub mod message;
pub mod segment;
pub mod subject;
pub mod ticket;
pub mod wal;
