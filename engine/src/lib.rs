//! Riverlog's storage engine.
pub mod ids;
pub mod io;
