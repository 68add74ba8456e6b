//! Defaulting and checking of configurations, with the error a client of the protocol expects for
//! each rule. Pure functions: what they need to know about the server comes in as arguments.

pub mod consumer;
pub mod consumer_update;
pub mod metadata;
pub mod names;
pub mod stream;
pub mod stream_update;
pub mod subjects;
pub mod unsupported;
