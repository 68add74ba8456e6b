//! Streams: ordered, subject-addressed messages with limits, and named cursors over them.

mod admission;
mod claims;
pub(crate) mod core;
mod count;
pub(crate) mod cursor;
pub(crate) mod dedup;
mod deliver;
pub(crate) mod due;
pub(crate) mod erase;
mod expiry;
pub(crate) mod extent;
pub(crate) mod file_index;
mod follow;
mod front;
mod handle;
mod interest;
mod marker;
mod messages;
mod notices;
mod prior;
mod read;
mod release;
mod remove;
pub(crate) mod snapshot;
mod start;
pub(crate) mod state;
pub(crate) mod tail;
mod tombstones;
mod types;

pub use deliver::{Delivery, Idle, Next};
pub use erase::Erasure;
pub use follow::{FollowError, Follower, NextMessage};
pub use handle::{Consumer, Stream};
pub use messages::Messages;
pub use release::AckResult;
pub use remove::Removed;
pub use types::{
    Append, AppendError, Appended, BatchError, ChangeError, ExpectSubject, PurgeRequest, Rollup,
    StreamState,
};
