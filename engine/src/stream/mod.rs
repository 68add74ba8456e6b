//! Streams: ordered, subject-addressed messages with limits, and named cursors over them.

mod admission;
mod by_time;
mod claims;
pub(crate) mod core;
mod count;
pub(crate) mod cursor;
mod deliver;
pub(crate) mod due;
pub(crate) mod erase;
mod expiry;
pub(crate) mod extent;
pub(crate) mod file_index;
mod filter_set;
mod follow;
mod front;
mod handle;
pub(crate) mod index_part;
mod interest;
mod layout;
mod load;
mod marker;
pub(crate) mod merged_run;
mod messages;
mod notices;
mod place;
mod prior;
mod read;
mod release;
mod remove;
mod resolved;
pub(crate) mod snapshot;
mod start;
pub(crate) mod state;
mod subject_count;
mod subjects;
pub(crate) mod tail;
mod tombstones;
mod types;
mod walk;

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
