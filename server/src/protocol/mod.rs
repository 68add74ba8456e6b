//! The NATS client protocol as pure data: frames, header blocks, INFO and CONNECT. No I/O.

pub mod connect;
pub mod encode;
pub mod headers;
pub mod info;
pub mod parser;

pub use parser::{Frame, Limits, Parser, ProtocolError, Publish};
