//! Connections: listener, read loop, outbound buffer, write loop.
//!
//! A connection is two tasks. The read loop parses what arrives, up to 64 KiB at a time, handles every
//! frame without waiting (only a CONNECT with a hashed password does), and at the end of a batch wakes
//! each connection it wrote to once. The write loop moves a connection's outbound buffer to the socket.
//! Between them is [`outbound::Outbound`], bounded in bytes: a client that does not read is closed, it
//! never makes others wait for it without end (CORE-033).
//!
//! No lock is held across an await or a system call.
//!
//! How other parts of the server plug in is described in [`crate::routing::account`]; how publish
//! acknowledgements wait for the disk, in [`acks`].

pub mod acks;
pub mod close;
pub(crate) mod commands;
pub mod conn;
pub(crate) mod listener;
pub mod outbound;
pub(crate) mod read_loop;
mod trace;
pub(crate) mod write_loop;
