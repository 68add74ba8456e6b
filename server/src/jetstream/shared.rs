//! What all parts of JetStream share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use riverlog_engine::ids::StreamId;
use riverlog_engine::{Store, Ticket};
use tokio::runtime::Handle;

use super::options::JetStreamOptions;
use super::stream_handle::StreamHandle;
use super::timers::Timers;
use super::types::enums::Storage;
use super::usage::Usage;
use crate::routing::Account;

/// Store, account and the live streams.
pub(crate) struct Shared {
    pub store: Store,
    pub account: Arc<Account>,
    pub options: JetStreamOptions,
    pub server_id: String,
    pub server_name: String,
    pub runtime: Handle,
    pub timers: Arc<Timers>,
    pub stats: ApiStats,
    pub usage: Usage,
    /// Held while streams or consumers are created, changed or removed, so that checks against the
    /// others stay true until the change is made. Never held while waiting for the disk.
    pub changes: Mutex<()>,
    catalogue: RwLock<Catalogue>,
}

#[derive(Default)]
struct Catalogue {
    by_name: HashMap<String, Arc<StreamHandle>>,
    by_id: HashMap<StreamId, Arc<StreamHandle>>,
}

/// Counters of the API (JSAPI-013).
#[derive(Debug, Default)]
pub struct ApiStats {
    /// Requests taken.
    pub total: AtomicU64,
    /// Requests answered with an error.
    pub errors: AtomicU64,
    /// Requests waiting or being worked on.
    pub inflight: AtomicU64,
}

impl Shared {
    pub fn new(
        store: Store,
        account: Arc<Account>,
        options: JetStreamOptions,
        server_id: String,
        server_name: String,
    ) -> Shared {
        Shared {
            store,
            account,
            options,
            server_id,
            server_name,
            runtime: Handle::current(),
            timers: Arc::default(),
            stats: ApiStats::default(),
            usage: Usage::default(),
            changes: Mutex::default(),
            catalogue: RwLock::default(),
        }
    }

    /// The stream of this name.
    pub fn stream(&self, name: &str) -> Option<Arc<StreamHandle>> {
        self.catalogue.read().by_name.get(name).cloned()
    }

    /// The stream of this identity.
    pub fn stream_by_id(&self, id: StreamId) -> Option<Arc<StreamHandle>> {
        self.catalogue.read().by_id.get(&id).cloned()
    }

    /// All streams, in name order.
    pub fn streams(&self) -> Vec<Arc<StreamHandle>> {
        let mut streams: Vec<_> = self.catalogue.read().by_name.values().cloned().collect();
        streams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        streams
    }

    /// Number of streams.
    pub fn stream_count(&self) -> usize {
        self.catalogue.read().by_name.len()
    }

    pub fn add_stream(&self, stream: &Arc<StreamHandle>) {
        let mut catalogue = self.catalogue.write();
        catalogue
            .by_name
            .insert(stream.name.to_string(), Arc::clone(stream));
        catalogue
            .by_id
            .insert(stream.engine.id(), Arc::clone(stream));
    }

    pub fn remove_stream(&self, stream: &StreamHandle) {
        let mut catalogue = self.catalogue.write();
        catalogue.by_name.remove(&*stream.name);
        catalogue.by_id.remove(&stream.engine.id());
    }

    /// Bytes used by all streams of a kind.
    pub fn bytes_used(&self, storage: Storage) -> u64 {
        let streams = self.streams();
        let of_kind = streams
            .iter()
            .filter(|stream| stream.config().storage == storage);
        of_kind.map(|stream| stream.engine.state().bytes).sum()
    }

    /// Bytes promised to streams of a kind by `max_bytes` (LIM-006).
    pub fn bytes_reserved(&self, storage: Storage) -> u64 {
        let streams = self.streams();
        let configs = streams.iter().map(|stream| stream.config());
        configs
            .filter(|config| config.storage == storage)
            .map(|config| u64::try_from(config.max_bytes).unwrap_or(0))
            .sum()
    }

    /// Server limit of a kind of storage, in bytes.
    pub fn bytes_max(&self, storage: Storage) -> Option<u64> {
        match storage {
            Storage::File => self.options.max_file,
            Storage::Memory => self.options.max_memory,
        }
    }

    /// Publishes once `after` is durable; nothing is said when the store stopped before.
    pub fn publish_after(&self, after: Option<Ticket>, subject: Bytes, payload: Bytes) {
        self.publish_then(after, subject, payload, || {});
    }

    /// As [`Shared::publish_after`], with something to do after it.
    pub fn publish_then(
        &self,
        after: Option<Ticket>,
        subject: Bytes,
        payload: Bytes,
        then: impl FnOnce() + Send + 'static,
    ) {
        let account = Arc::clone(&self.account);
        let publish = move || {
            if !subject.is_empty() {
                account.publish(&subject, None, None, &payload);
            }
            then();
        };
        match after.filter(|ticket| !ticket.is_durable()) {
            None => publish(),
            Some(ticket) => {
                self.runtime.spawn(async move {
                    if ticket.await.is_ok() {
                        publish();
                    }
                });
            }
        }
    }

    /// Counts an answered request.
    pub fn count_answer(&self, is_error: bool) {
        if is_error {
            self.stats.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}
