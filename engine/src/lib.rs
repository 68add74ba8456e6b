//! Riverlog's storage engine.
pub mod error;
pub mod ids;
pub mod io;
pub mod message;
