//! JetStream: the `$JS.API` requests, publishing with acknowledgements, and pull consumers, on top
//! of the storage engine.
//!
//! How a message goes:
//!
//! 1. The read loop of the publishing connection finds the stream's subscription in the account and
//!    calls it (`publish`). The message is checked and appended to the engine; its acknowledgement
//!    is queued on the connection and leaves when the engine's durable position covers it.
//! 2. After each commit the engine says which streams have new messages. Consumers of these streams
//!    that have waiting requests are woken, once per commit, and deliver (`delivery`).
//! 3. Acknowledgements come back through the read loop of the consuming connection (`ack`).
//!
//! What must stay true:
//!
//! - Nothing is confirmed, and nothing shown to a client, before it is durable.
//! - Nothing here blocks a read loop for longer than one block read from disk, except for waiting
//!   until the commit queue has room.
//! - A setting or request that is not supported is refused by name.

mod ack;
mod ack_subject;
mod advisories;
mod api;
mod consumer_handle;
mod delivery;
mod direct;
mod engine_config;
pub mod errors;
pub mod fuzzing;
pub mod json;
pub mod limits;
mod monitor;
mod options;
mod publish;
mod publish_headers;
mod pull;
mod pull_request;
mod removal;
mod shared;
mod start;
mod stream_handle;
pub mod time;
mod timers;
pub mod types;
mod usage;
pub mod validate;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use riverlog_engine::{RecoveryReport, Stopped, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use options::{JetStreamLimits, JetStreamOptions};
pub use start::StartError;

use self::shared::Shared;
use crate::routing::{Account, InternalSubscription};
use crate::server::Server;

/// JetStream of one server.
pub struct JetStream {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    subscriptions: Vec<InternalSubscription>,
    timer_task: JoinHandle<()>,
    report: RecoveryReport,
    stopping: AtomicBool,
    closing: Mutex<()>,
}

impl JetStream {
    /// Opens the store, brings its streams and consumers back, and subscribes to everything. Call it
    /// inside the runtime and before the server listens; it reads from disk.
    ///
    /// # Errors
    ///
    /// What prevents it, in one line for the operator; nothing was changed or deleted.
    pub fn start(options: JetStreamOptions, server: &Server) -> Result<JetStream, StartError> {
        let (store, report) = Store::open(&options.store_dir, options.store.clone())?;
        JetStream::serve(store, report, options, server)
    }

    /// As [`JetStream::start`], with a store that is open already.
    ///
    /// # Errors
    ///
    /// As for [`JetStream::start`].
    pub fn serve(
        store: Store,
        report: RecoveryReport,
        options: JetStreamOptions,
        server: &Server,
    ) -> Result<JetStream, StartError> {
        let jetstream = start::start(store, report, options, server)?;
        server.attach_jetstream(jetstream.durable_watch());
        Ok(jetstream)
    }

    /// The engine's durable position; acknowledgements up to it may go out.
    pub fn durable_watch(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// What opening the store found.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.report
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Why nothing is acknowledged any more, if that is so. The process should end then.
    pub fn stopped(&self) -> Option<Stopped> {
        self.shared.store.stopped()
    }

    /// Ends everything: waiting requests are told, nothing is taken any more, and the store is synced
    /// and closed. Blocks for the disk. Call it after the connections are closed; later calls do
    /// nothing.
    pub fn shutdown(&self) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            // Whoever comes second finds the store closed when this returns.
            let _wait = self.closing.lock();
            return;
        }
        let _closing = self.closing.lock();
        self.timer_task.abort();
        for subscription in &self.subscriptions {
            self.shared.account.unsubscribe(subscription);
        }
        for stream in self.shared.streams() {
            stream.unsubscribe(&self.shared);
            for consumer in stream.take_consumers() {
                consumer.mark_deleted();
                consumer.unwatch(&self.shared);
                removal::end_waiting_for_shutdown(&self.shared, &consumer);
            }
            self.shared.remove_stream(&stream);
        }
        self.shared.store.close();
    }

    /// Tells every waiting pull request that the server stops (PULL-021), while connections are
    /// still there to hear it.
    pub fn announce_shutdown(&self) {
        for stream in self.shared.streams() {
            for consumer in stream.consumers() {
                removal::end_waiting_for_shutdown(&self.shared, &consumer);
            }
        }
    }

    /// Snapshots for monitoring.
    pub fn monitor(&self) -> Arc<dyn crate::monitor::JetStreamMonitor> {
        Arc::new(monitor::Monitor {
            shared: Arc::clone(&self.shared),
        })
    }

    /// The account it serves.
    pub fn account(&self) -> &Arc<Account> {
        &self.shared.account
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.shutdown();
    }
}
