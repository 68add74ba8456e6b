//! The store: one data directory, one log, one committer, many streams.

mod backup;
mod catalogue;
mod checkpoint;
#[cfg(test)]
mod checkpoint_tests;
mod compact;
mod damage;
mod error;
mod files;
mod id_keeper;
#[cfg(test)]
mod id_tests;
mod identity;
mod jobs;
mod key_use;
pub(crate) mod keys;
mod layout;
mod maintenance;
mod merge_runs;
mod open;
mod options;
mod recovery;
mod repair;
mod reserve;
mod scrub;
mod share;
pub(crate) mod shared;
mod space;
mod status;
pub(crate) mod stored;
mod verify;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use catalogue::Catalogue;
use checkpoint::Scope;
use maintenance::Maintenance;
use shared::{Pump, StoreShared};

pub use backup::{
    BackupCheck, BackupError, BackupReport, BackupSource, RestoreError, RestoreReport,
};
pub use damage::{Damage, FoundBy};
pub use error::{CheckpointError, OpenError};
#[cfg(test)]
pub(crate) use identity::encode as encode_identity;
pub use key_use::KeyUse;
pub use open::RecoveryReport;
pub use options::{CompactionOptions, StoreOptions, Threads};
pub use repair::{
    RangeSource, RepairError, RepairOptions, RepairReport, RestoredRange, SourceError,
};
pub use scrub::ScrubStatus;
pub use space::SpaceStatus;
pub use status::StoreStatus;
pub use verify::{Finding, FindingKind, VerifiedStream, VerifyReport};

use crate::config::{Storage, StreamConfig};
use crate::dedup::IdKey;
use crate::error::Stopped;
use crate::format::op::Op;
use crate::ids::{Lsn, Seq, StreamId, TimestampNs};
use crate::invariants::{self, Violation};
use crate::io::Env;
use crate::stream::core::StreamCore;
use crate::stream::state::StreamData;
use crate::stream::{ChangeError, Stream};
use crate::ticket::Ticket;
use crate::wal::metrics::CommitCounts;
use crate::wal::{Committer, DurableBatch, Step, StreamGate};

/// A durable log store. Cheap to clone; the last clone that is dropped closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<StoreShared>,
    catalogue: Arc<Catalogue>,
    stopping: Arc<AtomicBool>,
    workers: Mutex<Workers>,
    _lock: Box<dyn Send + Sync>,
}

enum Workers {
    Background {
        committer: JoinHandle<()>,
        maintenance: JoinHandle<Maintenance>,
    },
    Manual {
        committer: Box<Committer>,
        maintenance: Box<Maintenance>,
    },
    Closed,
}

impl Store {
    /// Opens or creates the store in `dir` on the real disk.
    ///
    /// Reads the metadata and the log behind the last checkpoint; sealed data is not touched.
    ///
    /// # Errors
    ///
    /// What prevents it, where, and what to do. Nothing is changed or deleted then.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Store, RecoveryReport), OpenError> {
        Store::open_in(Env::real(), dir, options)
    }

    /// As [`Store::open`], in the given environment.
    pub fn open_in(
        env: Env,
        dir: &Path,
        options: StoreOptions,
    ) -> Result<(Store, RecoveryReport), OpenError> {
        let opened = open::open(env, dir, &options)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (committer, maintenance) = (opened.committer, opened.maintenance);
        let workers = match options.threads {
            Threads::Manual => Workers::Manual {
                committer: Box::new(committer),
                maintenance: Box::new(maintenance),
            },
            Threads::Background => {
                let shared_queue = opened.shared.queue.clone();
                let stop = stopping.clone();
                let stop = move || stop.load(Ordering::Acquire);
                let spawned = spawn("riverlog-commit", move || committer.run()).and_then(|c| {
                    let guard = StopOnPanic(shared_queue);
                    let upkeep = move || {
                        let _guard = guard;
                        maintenance.run(&stop)
                    };
                    Ok((c, spawn("riverlog-upkeep", upkeep)?))
                });
                let (committer, maintenance) = spawned.map_err(|source| OpenError::Io {
                    file: dir.to_path_buf(),
                    source,
                })?;
                Workers::Background {
                    committer,
                    maintenance,
                }
            }
        };
        let shared = opened.shared;
        let weak = Arc::downgrade(&shared);
        shared.queue.on_stall(Box::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.wake.ask();
            }
        }));
        let weak = Arc::downgrade(&shared);
        shared.queue.on_durable(Box::new(move |_| {
            if let Some(shared) = weak.upgrade()
                && shared.log_is_half_full()
            {
                shared.wake.ask();
            }
        }));
        let inner = Inner {
            shared,
            catalogue: opened.catalogue,
            stopping,
            workers: Mutex::new(workers),
            _lock: opened.lock,
        };
        let inner = Arc::new(inner);
        if options.threads == Threads::Manual {
            let weak = Arc::downgrade(&inner);
            inner.shared.pump_with(Box::new(move |pump| {
                if let Some(inner) = weak.upgrade() {
                    let store = Store { inner };
                    match pump {
                        Pump::Commit => store.commit(),
                        // What it could not do shows where the caller tries again.
                        Pump::Upkeep => drop(store.step()),
                        Pump::Jobs => store.run_jobs(),
                    }
                }
            }));
        }
        Ok((Store { inner }, opened.report))
    }

    /// Checks everything that the store in `dir` keeps on disk: every byte of it is read. Nothing is
    /// changed, whatever is found. The store must not be open.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] if the store is open, [`OpenError::NotAStore`] if there is none, or what
    /// the system says. Damage is no error but in the report.
    pub fn verify(dir: &Path, options: &StoreOptions) -> Result<VerifyReport, OpenError> {
        Store::verify_in(&Env::real(), dir, options)
    }

    /// As [`Store::verify`], in the given environment.
    pub fn verify_in(
        env: &Env,
        dir: &Path,
        options: &StoreOptions,
    ) -> Result<VerifyReport, OpenError> {
        verify::verify(env, dir, options)
    }

    /// Creates a stream. [`ChangeError::Exists`] when the name is taken.
    pub fn create_stream(&self, config: StreamConfig) -> Result<(Stream, Ticket), ChangeError> {
        config.check()?;
        let shared = &self.inner.shared;
        let created = TimestampNs(shared.env.clock.now_ns());
        let mut catalogue = self.inner.catalogue.lock();
        if catalogue.is_taken(&config.name) {
            return Err(ChangeError::Exists);
        }
        let id = StreamId(catalogue.next_stream_id);
        let mut data = StreamData::new(config, created);
        data.ids_seed = IdKey::default_seed(shared.dedup_seed, id);
        let mut lsn = Lsn(0);
        if data.config.storage == Storage::File {
            let mut encoded = Vec::new();
            data.config.encode(&mut encoded);
            let op = Op::StreamPut {
                stream: id,
                created,
                changed: created,
                config: &encoded,
            };
            lsn = shared.log_control(&op)?;
            data.touched(lsn, lsn);
        }
        catalogue.next_stream_id += 1;
        let gate = StreamGate::new(id, Seq(data.last_seq));
        let core = StreamCore::new(id, gate, shared.clone(), data);
        catalogue.by_name.insert(core.name.clone(), core.clone());
        drop(catalogue);
        shared.wake.ask();
        Ok((Stream { core }, shared.queue.ticket(lsn)))
    }

    /// The stream of this name.
    pub fn stream(&self, name: &str) -> Option<Stream> {
        self.inner.catalogue.get(name).map(|core| Stream { core })
    }

    /// All streams, in name order.
    pub fn streams(&self) -> Vec<Stream> {
        self.inner
            .catalogue
            .all()
            .into_iter()
            .map(|core| Stream { core })
            .collect()
    }

    /// Deletes a stream with its consumers.
    pub fn delete_stream(&self, name: &str) -> Result<Ticket, ChangeError> {
        let shared = &self.inner.shared;
        let mut catalogue = self.inner.catalogue.lock();
        let core = catalogue
            .by_name
            .get(name)
            .cloned()
            .ok_or(ChangeError::NotFound)?;
        let mut lsn = Lsn(0);
        let mut data = core.lock();
        if core.is_file() {
            lsn = shared.log_control(&Op::StreamDelete { stream: core.id })?;
            catalogue.deleted.push((core.id, lsn));
        }
        core.mark_deleted(&mut data);
        drop(data);
        core.gate.wake();
        catalogue.by_name.remove(name);
        drop(catalogue);
        shared.space_changed();
        Ok(shared.queue.ticket(lsn))
    }

    /// A ticket for everything admitted so far.
    pub fn barrier(&self) -> Ticket {
        let queue = &self.inner.shared.queue;
        queue.ticket(queue.assigned_lsn())
    }

    /// A ticket for a log position.
    pub fn ticket(&self, lsn: Lsn) -> Ticket {
        self.inner.shared.queue.ticket(lsn)
    }

    /// Everything up to here is on disk.
    pub fn durable_lsn(&self) -> Lsn {
        self.inner.shared.queue.durable_lsn()
    }

    /// Calls `observer` after each commit batch, on the committer's thread, and after each append
    /// to a memory stream, on the appending thread: the place to wake readers and to feed metrics.
    /// It must be quick, for the next sync waits for it.
    pub fn on_durable(&self, observer: Arc<dyn Fn(&DurableBatch<'_>) + Send + Sync>) {
        let of_queue = observer.clone();
        self.inner
            .shared
            .queue
            .on_durable(Box::new(move |batch| of_queue(batch)));
        self.inner.shared.observe(observer);
    }

    /// Which keys the store's files are encrypted with, one entry for each key and one for plain
    /// files. A key that is not among them is needed no more: the next start may do without it. Reads
    /// the header of every file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn keys_in_use(&self) -> std::io::Result<Vec<KeyUse>> {
        let shared = &self.inner.shared;
        key_use::keys_in_use(&shared.env, &layout::Layout::new(&shared.dir))
    }

    /// Has every sealed file rewritten that has another key than new files have, or none: the last
    /// step of a rotation, or of the move to encryption. Returns at once; background work does it file by
    /// file, at the rate of compaction ([`StoreOptions::compaction`]; at rate 0 not at all), and
    /// [`Store::keys_in_use`] shows how far it is. It is forgotten when the store closes. A damaged file
    /// stays as it is.
    pub fn reencrypt(&self) {
        let shared = &self.inner.shared;
        shared.rekey.ask();
        shared.space.change();
        shared.wake.ask();
    }

    /// Why the store stopped acknowledging, if it did.
    pub fn stopped(&self) -> Option<Stopped> {
        self.inner.shared.queue.stopped()
    }

    /// Counters of the commit path.
    pub fn metrics(&self) -> CommitCounts {
        self.inner.shared.queue.metrics().counts()
    }

    /// Looks whether everything that must hold does, in memory; for tests. Costs a walk over all
    /// streams and consumers.
    ///
    /// # Errors
    ///
    /// The first [`Violation`] found: a defect of this crate.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        let shared = &self.inner.shared;
        let streams = self.inner.catalogue.all();
        let (held, budget) = (shared.tail_ram(), shared.tail_ram_budget());
        if !invariants::within_tail_budget(held, budget, streams.len() as u64) {
            return Err(Violation::OverBudget);
        }
        match streams
            .iter()
            .find_map(|core| invariants::violated_in(core))
        {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    /// What the store holds in RAM against its budgets, and whether it accepts appends.
    pub fn status(&self) -> StoreStatus {
        let shared = &self.inner.shared;
        StoreStatus {
            streams: self.inner.catalogue.lock().by_name.len(),
            tail_bytes: shared.tail_ram(),
            tail_bytes_max: shared.tail_ram_budget(),
            cache_bytes: shared.cache.bytes(),
            queue_bytes: shared.queue.queued_bytes(),
            log_bytes: shared.queue.metrics().log_used_bytes(),
            out_of_space: shared.queue.is_disk_full(),
            stopped: shared.queue.stopped(),
        }
    }

    /// How the space of sealed files is used, as of the last time maintenance looked, and what
    /// compaction did since the store was opened.
    pub fn space(&self) -> SpaceStatus {
        self.inner.shared.space.status()
    }

    /// What is damaged, as far as reads, the background check and the last start came across it: live
    /// messages that cannot be read, by stream and sequence. A bounded list; the second value is the
    /// number of ranges that are not in it.
    pub fn damage(&self) -> (Vec<Damage>, u64) {
        self.inner.shared.damage.list(&self.inner.catalogue)
    }

    /// How far the background check of all sealed files is, and what it found.
    pub fn scrub_status(&self) -> ScrubStatus {
        self.inner.shared.scrub.status()
    }

    /// Pauses the background check of sealed files, or lets it go on.
    pub fn pause_scrub(&self, paused: bool) {
        self.inner.shared.scrub.pause(paused);
        self.inner.shared.wake.ask();
    }

    /// Blocks while appends answer [`crate::AppendError::Busy`], at most about a second.
    pub fn wait_room(&self) {
        self.inner.shared.wait_room();
    }

    /// Does all pending background work and returns; for [`Threads::Manual`].
    ///
    /// # Errors
    ///
    /// A checkpoint that failed; the log still holds everything.
    pub fn step(&self) -> Result<(), CheckpointError> {
        self.with_manual(|committer, maintenance| {
            let queue = self.inner.shared.queue.clone();
            loop {
                commit_all(committer);
                let round = maintenance.round(&mut |lsn| {
                    commit_all(committer);
                    settled(&queue, lsn)
                });
                commit_all(committer);
                round?;
                if !maintenance.is_merging() {
                    return Ok(());
                }
            }
        })
    }

    /// Makes everything queued durable, without further maintenance; for [`Threads::Manual`].
    pub fn commit(&self) {
        let _ = self.with_manual(|committer, _| {
            commit_all(committer);
            Ok(())
        });
    }

    /// Moves everything into sealed files now; for [`Threads::Manual`].
    ///
    /// # Errors
    ///
    /// As for [`Store::step`].
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.with_manual(|committer, maintenance| {
            let queue = self.inner.shared.queue.clone();
            let result = maintenance.checkpoint(Scope::All, &mut |lsn| {
                commit_all(committer);
                settled(&queue, lsn)
            });
            commit_all(committer);
            result
        })
    }

    /// Gives back all space that compaction would give back over time, without regard to its rate;
    /// for [`Threads::Manual`]. What is in no sealed file yet stays there.
    ///
    /// # Errors
    ///
    /// A compaction that failed; nothing is lost by it, and it is tried again. While the disk has no
    /// room for one, none is begun, and that is no error.
    pub fn compact(&self) -> Result<(), CheckpointError> {
        self.with_manual(|committer, maintenance| {
            let queue = self.inner.shared.queue.clone();
            let result = maintenance.compact(&mut |lsn| {
                commit_all(committer);
                settled(&queue, lsn)
            });
            commit_all(committer);
            result
        })
    }

    fn run_jobs(&self) {
        let _ = self.with_manual(|committer, maintenance| {
            let queue = self.inner.shared.queue.clone();
            maintenance.run_jobs(&mut |lsn| {
                commit_all(committer);
                settled(&queue, lsn)
            });
            Ok(())
        });
    }

    fn with_manual(
        &self,
        work: impl FnOnce(&mut Committer, &mut Maintenance) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let mut workers = self
            .inner
            .workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *workers {
            Workers::Manual {
                committer,
                maintenance,
            } => work(committer, maintenance),
            Workers::Background { .. } | Workers::Closed => Ok(()),
        }
    }

    /// Makes everything durable, seals it, and stops the background work. Further operations fail
    /// with [`Stopped::Closed`].
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = std::mem::replace(&mut *workers, Workers::Closed);
        if let Workers::Manual { .. } = workers {
            self.shared.jobs.close();
        }
        for core in self.catalogue.all() {
            let consumers = core.lock_changed_consumers().clone();
            for consumer in consumers {
                // What cannot be logged any more is delivered again after the restart.
                let _ = consumer.flush();
            }
        }
        match workers {
            Workers::Background {
                committer,
                maintenance,
            } => {
                self.stopping.store(true, Ordering::Release);
                self.shared.wake.ask();
                if let Ok(mut maintenance) = maintenance.join() {
                    let queue = self.shared.queue.clone();
                    let wait =
                        &mut |lsn: Lsn| queue.wait_settled(lsn).map_err(CheckpointError::Stopped);
                    report(maintenance.close(wait));
                }
                self.shared.queue.close();
                if committer.join().is_err() {
                    tracing::error!("the committer panicked");
                }
            }
            Workers::Manual {
                mut committer,
                mut maintenance,
            } => {
                let queue = self.shared.queue.clone();
                let wait = &mut |lsn: Lsn| {
                    commit_all(&mut committer);
                    settled(&queue, lsn)
                };
                report(maintenance.close(wait));
                self.shared.queue.close();
                commit_all(&mut committer);
            }
            Workers::Closed => {}
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn report(result: Result<(), CheckpointError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "no checkpoint at close; the next start replays the log");
    }
}

fn commit_all(committer: &mut Committer) {
    while let Step::Committed(_) = committer.step() {}
}

/// In manual mode nobody else makes anything durable: what is not settled now never will be.
fn settled(queue: &crate::wal::CommitQueue, lsn: Lsn) -> Result<(), CheckpointError> {
    let settled = queue.settled(lsn).unwrap_or(Err(Stopped::Poisoned));
    settled.map_err(CheckpointError::Stopped)
}

/// Stops the store when its maintenance dies: without checkpoints appends would be refused as busy
/// for ever, and nobody would learn why.
struct StopOnPanic(Arc<crate::wal::CommitQueue>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the maintenance of the store panicked; the store stops");
            self.0.close();
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).spawn(work)
}
