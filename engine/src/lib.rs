//! Riverlog's storage engine: a durable, subject-addressed, multi-cursor log for embedding.

pub mod cache;
pub mod config;
mod config_codec;
pub mod consumer;
pub mod error;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod index;
pub mod io;
pub mod limits;
pub mod message;
pub mod meta;
pub mod segment;
mod store;
mod stream;
pub mod subject;
pub mod ticket;
pub mod wal;

pub use config::{Compression, ConfigError, Discard, Retention, Storage, StreamConfig};
pub use error::{Corrupt, ReadError, Stopped};
pub use ids::{ConsumerId, Lsn, Seq, StreamId, TimestampNs};
pub use message::Message;
pub use store::{CheckpointError, OpenError, RecoveryReport, Store, StoreOptions, Threads};
pub use stream::{
    AckResult, Append, AppendError, Appended, ChangeError, Consumer, Delivery, ExpectSubject, Idle,
    Next, PurgeRequest, Removed, Rollup, Stream, StreamState,
};
pub use subject::Filter;
pub use ticket::Ticket;
