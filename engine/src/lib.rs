//! Riverlog's storage engine: a durable, subject-addressed, multi-cursor log for embedding.
//!
//! A [`Store`] is one directory with one write-ahead log. It holds many [`Stream`]s of messages with
//! subjects, each read by any number of durable [`Consumer`]s. There is no global state and no
//! async runtime. Memory is set by budgets, not by the data.
//!
//! # A first look
//!
//! ```
//! use riverlog_engine::{Append, Filter, Seq, Store, StoreOptions, StreamConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let (store, report) = Store::open(dir.path(), StoreOptions::default())?;
//! assert!(report.created);
//!
//! let config = StreamConfig { name: "orders".into(), ..StreamConfig::default() };
//! let (stream, _) = store.create_stream(config)?;
//!
//! // On disk when it returns; a batch costs one sync.
//! let one = Append { subject: b"orders.new.17", payload: b"one", ..Append::default() };
//! let two = Append { subject: b"orders.paid.17", payload: b"two", ..Append::default() };
//! stream.append(&one)?;
//! stream.append_batch(&[one, two])?;
//!
//! // By sequence, by subject, in order.
//! assert_eq!(stream.get(Seq(3))?.expect("stored").payload(), b"two");
//! let new = Filter::new(b"orders.new.*")?;
//! assert_eq!(stream.num_pending(std::slice::from_ref(&new), Seq(1))?, 2);
//! for message in stream.messages(&[new], Seq(1)..=Seq(3)) {
//!     assert_eq!(message?.subject(), b"orders.new.17");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Consumers
//!
//! A [`Consumer`] is a named cursor that survives restarts: it delivers, waits for acknowledgements and
//! delivers again what was not acknowledged in time. Time is always an argument.
//!
//! ```
//! use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
//! use riverlog_engine::{Append, Next, Store, StoreOptions, StreamConfig, TimestampNs};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let (store, _) = Store::open(dir.path(), StoreOptions::default())?;
//! # let config = StreamConfig { name: "orders".into(), ..StreamConfig::default() };
//! # let (stream, _) = store.create_stream(config)?;
//! # stream.append(&Append { subject: b"orders.new", ..Append::default() })?;
//! let config = ConsumerConfig {
//!     name: "worker".into(),
//!     durable: true,
//!     ack: AckPolicy::Explicit,
//!     ..ConsumerConfig::default()
//! };
//! let (consumer, _) = stream.create_consumer(config)?;
//! let now = TimestampNs(0);
//! while let Next::Message(delivery) = consumer.next(now, &mut |_| true)? {
//!     let ack = consumer.ack(delivery.message.seq, now)?;
//!     store.ticket(ack.lsn).wait()?; // never delivered again, whatever happens
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Waiting
//!
//! [`Stream::append`] blocks until the message is on disk. [`Stream::append_nosync`] and every other
//! change return at once with a log position or a [`Ticket`]: block on it, `.await` it in any runtime,
//! or give it a callback. One sync covers everything that waits at that moment, of all streams: many
//! threads, or many messages admitted before one wait, cost one sync together. [`Stream::follow`]
//! waits for messages in the same three ways.
//!
//! # Durability
//!
//! | call | what survives a crash of the process or the machine once it has returned |
//! |---|---|
//! | [`Stream::append`], [`Stream::append_batch`] | the messages, and all before them |
//! | [`Stream::append_nosync`] | nothing, until the store's durable position reaches [`Appended::lsn`] |
//! | [`Ticket::wait`] | the operation the ticket stands for, and all before it |
//! | deliveries | nothing: after a crash a message may be delivered once more |
//!
//! Readers and consumers see durable messages only. After a failed write or sync the store stops
//! acknowledging for good ([`Stopped::Poisoned`]): end the process and open the directory again. Opening
//! reads the metadata and the tail of the log, nothing else, and says what it found
//! ([`RecoveryReport`]). Streams with [`Storage::Memory`] are gone when the store closes.
//!
//! # Damage
//!
//! Every stored byte is checked before it is used. What cannot be read back answers
//! [`ReadError::Corrupt`] with its stream, its exact sequences, its file and the place in it, while
//! everything else keeps serving; an index that is damaged or gone is made anew from the data.
//! Damaged metadata, or damage to acknowledged operations in the log, stops [`Store::open`] with a
//! message that says what to do, and changes nothing.
//!
//! # Encryption
//!
//! With [`StoreOptions::encryption`] every file is encrypted with AES-256-GCM under a key of its own,
//! derived from the store's [`Key`]. A store that is encrypted does not open without its key
//! ([`OpenError::KeyMissing`] says which one it needs, by its [`KeyId`]). Keys are rotated by opening
//! the store with a [`KeyRing`] of the new and the old one; [`Store::reencrypt`] has the files of the
//! old one rewritten, and [`Store::keys_in_use`] says how long it is needed.
//!
//! ```
//! use riverlog_engine::{Key, KeyRing, Store, StoreOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let (old, new) = ([1; 32], [2; 32]);
//! let mut options = StoreOptions::default();
//! options.encryption = Some(KeyRing::new(Key::new(&old)));
//! drop(Store::open(dir.path(), options)?);
//!
//! // Later: the log and the metadata move to the new key at once, sealed files when they are rewritten.
//! let mut options = StoreOptions::default();
//! options.encryption = Some(KeyRing::new(Key::new(&new)).with_previous(Key::new(&old)));
//! let (store, _) = Store::open(dir.path(), options)?;
//! store.reencrypt();
//! for used in store.keys_in_use()? {
//!     println!("{:?}: {} files, {} bytes", used.key, used.files, used.bytes);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Resources
//!
//! Sizes are bounded in [`limits`], budgets are set in [`StoreOptions`], and [`Store::status`] and
//! [`Store::metrics`] show how they are used. Appends that find the queue or the tails full answer
//! [`AppendError::Busy`] and [`Store::wait_room`] waits for room, which is how the disk slows its
//! writers down. A full disk refuses appends with [`AppendError::NoSpace`] before anything is given a
//! sequence; reads, acknowledgements and deletes go on, and appends work again once there is space.
//! One process opens a directory at a time.
//!
//! # Testing
//!
//! [`io::sim`] is a disk that tears, loses, reorders and flips what was written to it, fails calls and
//! fills up; [`Store::open_in`] runs the same engine on it with a clock of the test.
//! [`Threads::Manual`] makes a run deterministic.
//!
//! The examples in the repository are an event log, a work queue, a key/value view and a
//! demonstration of what survives a crash.

pub mod cache;
pub mod config;
mod config_codec;
pub mod consumer;
mod dedup;
pub mod error;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod index;
pub mod invariants;
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

pub use config::{
    Compression, ConfigError, DeleteMarker, Discard, Retention, Storage, StreamConfig,
};
pub use error::{Corrupt, ReadError, Stopped};
pub use format::key_ring::{Key, KeyId, KeyRing};
pub use ids::{ConsumerId, Lsn, Seq, StreamId, TimestampNs};
pub use message::{BodyLayout, Message, Ttl};
pub use store::{
    BackupCheck, BackupError, BackupReport, BackupSource, RestoreError, RestoreReport,
};
pub use store::{
    CheckpointError, CompactionOptions, Finding, FindingKind, KeyUse, OpenError, RecoveryReport,
    SpaceStatus, Store, StoreOptions, StoreStatus, Threads, VerifiedStream, VerifyReport,
};
pub use store::{Damage, FoundBy, ScrubStatus};
pub use store::{
    RangeSource, RepairError, RepairOptions, RepairReport, RestoredRange, SourceError,
};
pub use stream::{
    AckResult, Append, AppendError, Appended, BatchError, ChangeError, Consumer, Delivery, Erasure,
    ExpectSubject, FollowError, Follower, Idle, Messages, Next, NextMessage, PurgeRequest, Removed,
    Rollup, Stream, StreamState,
};
pub use subject::Filter;
pub use ticket::Ticket;
