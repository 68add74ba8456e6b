//! Riverlog server.
pub mod jetstream;
