//! JetStream: the `$JS.API` requests, publishing with acknowledgements, and consumers.

pub mod errors;
pub mod json;
pub mod limits;
pub mod time;
pub mod types;
pub mod validate;
