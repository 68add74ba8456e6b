//! Riverlog's storage engine: a durable, subject-addressed, multi-cursor log for embedding.
//!
//! A [`Store`] is one directory with one write-ahead log. It holds many [`Stream`]s of messages with
//! subjects, each read by any number of durable [`Consumer`]s. There is no global state and no
//! async runtime; waiting works by blocking, by callback or as a future ([`Ticket`]).
//!
//! ```
//! use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
//! use riverlog_engine::{Append, Next, Store, StoreOptions, StreamConfig, TimestampNs};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let (store, report) = Store::open(dir.path(), StoreOptions::default())?;
//! assert!(report.created);
//!
//! let config = StreamConfig { name: "orders".into(), ..StreamConfig::default() };
//! let (stream, created) = store.create_stream(config)?;
//! created.wait()?;
//!
//! // Appends are admitted at once and durable later: wait for one, and all before it are as well.
//! let mut last = None;
//! for payload in [b"one".as_slice(), b"two"] {
//!     let append = Append { subject: b"orders.new", payload, ..Append::default() };
//!     last = Some(stream.append_nosync(&append)?);
//! }
//! let last = last.expect("two were appended");
//! store.ticket(last.lsn).wait()?;
//!
//! let config = ConsumerConfig {
//!     name: "worker".into(),
//!     ack: AckPolicy::Explicit,
//!     ..ConsumerConfig::default()
//! };
//! let (consumer, _) = stream.create_consumer(config)?;
//! let now = TimestampNs(0);
//! while let Next::Message(delivery) = consumer.next(now, &mut |_| true)? {
//!     assert_eq!(delivery.message.subject(), b"orders.new");
//!     let ack = consumer.ack(delivery.message.seq, now)?;
//!     store.ticket(ack.lsn).wait()?; // never delivered again, whatever happens
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Durability
//!
//! A position in the log ([`Lsn`]) is durable once its frame was written and synced; one sync covers
//! everything that was waiting. Readers and consumers see durable messages only. After a failed
//! write or sync the store stops acknowledging for good ([`Stopped::Poisoned`]): close the process
//! and open the directory again. Opening reads the metadata and the tail of the log, nothing else.
//!
//! # Limits
//!
//! Sizes are bounded in [`limits`], budgets in [`StoreOptions`]. One process opens a directory at a
//! time. A file stream's messages move from the log into immutable, checksummed files in the
//! background; what cannot be read back is reported with its sequences ([`ReadError::Corrupt`]) while
//! the rest keeps serving.

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
mod invariants;
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
