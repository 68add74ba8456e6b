//! Riverlog and a peer, driven by the same load on the same disk, in turn.
//!
//! One run is: a fresh directory, a fresh server process, one stream; publish with a number of messages
//! in flight per connection, then read everything back through a pull consumer. Every ack and every
//! payload is checked, so that a figure never counts a message that was lost, doubled or damaged.
//!
//! The load has to be far cheaper than the servers it measures: frames are written in large batches,
//! answers are parsed in place, nothing is allocated per message.

pub mod consume;
pub mod contender;
pub mod histogram;
pub mod payload;
pub mod process;
pub mod publish;
pub mod report;
pub mod round;
pub mod wire;
