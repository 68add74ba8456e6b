//! Drives a store and the reference model with the same actions.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod consumer_model;
pub mod model;
pub mod sample;
pub mod script;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use consumer_model::ModelConsumer;
use model::{ModelAppend, ModelStream};
use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::io::{Clock, Env};
use riverlog_engine::{
    Append, AppendError, Compression, Consumer, Filter, Key, KeyRing, Lsn, Next, OpenError,
    PurgeRequest, ReadError, Retention, Seq, Store, StoreOptions, Stream, StreamConfig, Threads,
    TimestampNs, Ttl,
};

/// Directory of the store on any disk.
pub const DIR: &str = "/data";

/// One step of a script.
#[derive(Clone, Debug)]
pub enum Action {
    Append {
        subject: u8,
        len: u16,
        id: Option<u8>,
    },
    /// Appends a small message that lives for n seconds; 0 stands for ever.
    AppendTtl(u8, u8),
    /// Deletes the n-th live message.
    Delete(u16),
    PurgeSubject(u8),
    PurgeBelow(u16),
    PurgeKeep(u16),
    /// Delivers up to n messages.
    Deliver(u8),
    /// Acknowledges the n-th delivered message.
    Ack(u8),
    /// Refuses the n-th open message, with a delay in milliseconds if that is not 0.
    Nak(u8, u16),
    /// Gives the n-th open message up.
    Term(u8),
    /// Extends the time of the n-th open message.
    InProgress(u8),
    Commit,
    Checkpoint,
    /// Gives back all space that can be given back.
    Compact,
    Upkeep,
}

/// A store of this kind is encrypted.
pub const ENCRYPTED: u8 = 16;

/// The keys of encrypted stores.
pub fn keys() -> KeyRing {
    KeyRing::new(Key::new(&[0x5a; 32]))
}

/// An environment of a store of a kind.
pub fn env(disk: &SimDisk, clock: &SimClock, seed: u64, kind: u8) -> Env {
    let mut env = Env::simulated(disk, clock, seed);
    env.keys = (kind & ENCRYPTED != 0).then(|| Arc::new(keys()));
    env
}

/// Suites named `*_encrypted` are the plain ones once more, with keys.
pub fn suite_is_encrypted() -> bool {
    env!("CARGO_CRATE_NAME").ends_with("_encrypted")
}

/// An environment of the kind that a suite works with.
pub fn suite_env(disk: &SimDisk, clock: &SimClock, seed: u64) -> Env {
    let kind = if suite_is_encrypted() { ENCRYPTED } else { 0 };
    env(disk, clock, seed, kind)
}

/// As [`env`], of the kind that the disk has: whatever else of it is damaged, `FORMAT` names a key.
pub fn env_of(disk: &SimDisk, clock: &SimClock, seed: u64) -> Env {
    let format = disk.read_file(Path::new(DIR).join("FORMAT"));
    let key = format.unwrap_or_default().get(52..60).map(<[u8]>::to_vec);
    let is_encrypted = key.is_some_and(|key| key.iter().any(|byte| *byte != 0));
    env(disk, clock, seed, if is_encrypted { ENCRYPTED } else { 0 })
}

/// Small budgets, so that short scripts reach every path.
pub fn options() -> StoreOptions {
    let mut options = StoreOptions::default();
    options.threads = Threads::Manual;
    options.wal.file_bytes = 64 * 1024;
    options.wal.files_max = 4;
    options.wal.control_reserve_bytes = 8 * 1024;
    options.tail_bytes_max = 64 * 1024;
    // A file with a single message has 13 KiB.
    options.compaction.small_file_bytes = 16 * 1024;
    options.compaction.output_bytes_max = 32 * 1024;
    options.compaction.slack_bytes = 0;
    options.index_merge_parts = 2;
    options.index_merge_span_min = 0;
    options
}

/// A stream configuration of the matrix.
pub fn config(kind: u8) -> StreamConfig {
    let mut config = StreamConfig {
        name: "S".into(),
        dedup_window_ns: 120_000_000_000,
        compression: if kind & 1 == 0 {
            Compression::None
        } else {
            Compression::S2
        },
        ..StreamConfig::default()
    };
    match (kind >> 1) % 8 {
        0 => {}
        1 => config.msgs_max = Some(7),
        2 => config.bytes_max = Some(600),
        3 => config.msgs_per_subject_max = Some(2),
        4 => {
            config.msgs_max = Some(9);
            config.msgs_per_subject_max = Some(3);
            config.discard = riverlog_engine::Discard::New;
        }
        5 => config.age_max_ns = Some(6_000_000_000),
        6 => config.retention = Retention::WorkQueue,
        _ => config.retention = Retention::Interest,
    }
    config
}

/// A store and its model, kept alike.
pub struct Pair {
    pub store: Store,
    pub stream: Stream,
    pub consumer: Consumer,
    config: StreamConfig,
    /// Model after each change, and the log position that makes it durable.
    pub history: Vec<(Lsn, ModelStream)>,
    appended: u64,
    clock: Arc<dyn Clock>,
    /// When the store's background work removed what was too old, of all its streams, and whether it
    /// came to its end.
    upkeeps: Arc<Mutex<Vec<(i64, bool)>>>,
    /// Those of them that the model has followed.
    followed: usize,
    /// The disk fails calls: what is too old may leave later, but never what is not.
    pub faulty: bool,
    /// An operation of the consumer was refused. It may have taken effect in memory all the same, so
    /// the consumer is left alone until the next life.
    pub consumer_unknown: bool,
}

/// Why a script ended early.
#[derive(Debug)]
pub enum Halt {
    /// The log failed or the power is off: the store acknowledges nothing any more.
    Stopped,
    /// The store refused this action and goes on.
    Refused(String),
    /// Store and model differ.
    Differs(String),
}

fn halt<E: std::fmt::Debug>(error: E) -> Halt {
    Halt::Refused(format!("{error:?}"))
}

pub fn subject_name(subject: u8) -> String {
    format!("s.{}", subject % 5)
}

impl Pair {
    /// Opens an empty store with one stream and one consumer.
    pub fn create(env: &Env, config: StreamConfig) -> Result<Pair, Halt> {
        let (store, _) = Store::open_in(env.clone(), Path::new(DIR), options()).map_err(halt)?;
        let pair = Pair::in_store(&store, env, config, consumer_config())?;
        pair.commit()?;
        Ok(pair)
    }

    /// Adds a stream and a consumer to a store.
    pub fn in_store(
        store: &Store,
        env: &Env,
        config: StreamConfig,
        consumer: ConsumerConfig,
    ) -> Result<Pair, Halt> {
        let (stream, ticket) = store.create_stream(config.clone()).map_err(halt)?;
        let model = ModelStream {
            consumer: ModelConsumer::new(consumer, 1),
            ..ModelStream::default()
        };
        Pair::with_stream(store, env, stream, config, ticket.lsn(), model)
    }

    /// Goes on with a stream that a restart brought back, and a new consumer.
    pub fn again(
        store: &Store,
        env: &Env,
        config: StreamConfig,
        mut model: ModelStream,
    ) -> Result<Pair, Halt> {
        let Some(stream) = store.stream(&config.name) else {
            return Err(Halt::Differs(format!("{} is gone", config.name)));
        };
        stream.delete_consumer("C").map_err(halt)?;
        let consumer = model.consumer.config.clone();
        model.replace_consumer(&config, consumer);
        Pair::with_stream(store, env, stream, config, Lsn(0), model)
    }

    fn with_stream(
        store: &Store,
        env: &Env,
        stream: Stream,
        config: StreamConfig,
        lsn: Lsn,
        model: ModelStream,
    ) -> Result<Pair, Halt> {
        let (_, ticket) = stream
            .create_consumer(model.consumer.config.clone())
            .map_err(halt)?;
        let lsn = lsn.max(ticket.lsn());
        Pair::resume(store, env, config, lsn, model)
    }

    /// Goes on with a stream and a consumer as they are.
    pub fn resume(
        store: &Store,
        env: &Env,
        config: StreamConfig,
        lsn: Lsn,
        model: ModelStream,
    ) -> Result<Pair, Halt> {
        let found = store.stream(&config.name);
        let found = found.and_then(|stream| Some((stream.consumer("C")?, stream)));
        let Some((consumer, stream)) = found else {
            return Err(Halt::Differs(format!("{} is gone", config.name)));
        };
        Ok(Pair {
            store: store.clone(),
            stream,
            consumer,
            config,
            appended: model.last_seq,
            history: vec![(lsn, model)],
            clock: env.clock.clone(),
            upkeeps: Arc::default(),
            followed: 0,
            faulty: false,
            consumer_unknown: false,
        })
    }

    /// Says that this stream is in the same store as that of `other`.
    pub fn in_store_of(&mut self, other: &Pair) {
        self.upkeeps = other.upkeeps.clone();
    }

    /// Applies to the model what background work has removed meanwhile, one time after the other: a
    /// crash can bring back what each of them left.
    pub fn catch_up(&mut self) {
        let upkeeps = self.upkeeps.clone();
        let upkeeps = upkeeps.lock().unwrap_or_else(PoisonError::into_inner);
        for (now_ns, completed) in upkeeps.get(self.followed..).unwrap_or_default() {
            let mut model = self.model();
            let before = model.msgs.len();
            let below = match self.faulty {
                true => self.stream.state().first_seq.0,
                false => u64::MAX,
            };
            model.expire(&self.config, below, *now_ns);
            if model.msgs.len() < before {
                // A store that stopped meanwhile may not have come that far. What a failed call left,
                // `below` says.
                let is_sure = self.store.stopped().is_none() && (*completed || self.faulty);
                let lsn = match is_sure {
                    true => self.store.barrier().lsn(),
                    false => Lsn(u64::MAX),
                };
                self.push(lsn, model);
            }
        }
        self.followed = upkeeps.len();
    }

    fn now(&self) -> TimestampNs {
        TimestampNs(self.clock.now_ns())
    }

    fn model(&self) -> ModelStream {
        self.history
            .last()
            .map(|(_, model)| model.clone())
            .unwrap_or_default()
    }

    fn push(&mut self, lsn: Lsn, model: ModelStream) {
        let last = self.history.last().map_or(Lsn(0), |(lsn, _)| *lsn);
        self.history.push((lsn.max(last), model));
    }

    fn commit(&self) -> Result<(), Halt> {
        self.store.commit();
        match self.store.stopped() {
            None => Ok(()),
            Some(_) => Err(Halt::Stopped),
        }
    }

    /// As [`Pair::commit`]; where the log is full, a checkpoint lets the rest be written.
    fn commit_all(&mut self) -> Result<(), Halt> {
        self.commit()?;
        if self.store.durable_lsn() < self.store.barrier().lsn() {
            self.upkeep()?;
            self.commit()?;
        }
        Ok(())
    }

    /// Carries out one action on both and compares the answers. A refused action has changed
    /// neither.
    pub fn act(&mut self, action: &Action) -> Result<(), Halt> {
        self.catch_up();
        let of_consumer = matches!(
            action,
            Action::Deliver(_)
                | Action::Ack(_)
                | Action::Nak(..)
                | Action::Term(_)
                | Action::InProgress(_)
        );
        if of_consumer && self.consumer_unknown {
            return Ok(());
        }
        let done = self.carry_out(action);
        self.consumer_unknown |= of_consumer && done.is_err();
        match done {
            Err(Halt::Refused(_)) if self.store.stopped().is_some() => Err(Halt::Stopped),
            done => done,
        }
    }

    fn carry_out(&mut self, action: &Action) -> Result<(), Halt> {
        if matches!(
            action,
            Action::PurgeSubject(_)
                | Action::PurgeBelow(_)
                | Action::PurgeKeep(_)
                | Action::Deliver(_)
        ) {
            // What follows depends on what is visible.
            self.commit_all()?;
        }
        let mut model = self.model();
        match action {
            Action::Append { subject, len, id } => return self.append(*subject, *len, *id, None),
            Action::AppendTtl(subject, seconds) => {
                return self.append(*subject, 0, None, Some(*seconds));
            }
            Action::Delete(nth) => {
                let Some(seq) = nth_of(&model, *nth) else {
                    return Ok(());
                };
                model.delete(seq);
                let ticket = self.stream.delete(Seq(seq)).map_err(halt)?;
                let Some(ticket) = ticket else {
                    return Err(Halt::Differs(format!("{seq} was not there to delete")));
                };
                self.push(ticket.lsn(), model);
            }
            Action::PurgeSubject(subject) => {
                let name = subject_name(*subject);
                let filter = Filter::new(name.as_bytes()).map_err(halt)?;
                let expected = model.purge(Some(&name), None, None);
                let request = PurgeRequest {
                    filter: Some(filter),
                    ..PurgeRequest::default()
                };
                self.purge(&request, expected, model)?;
            }
            Action::PurgeBelow(nth) => {
                let below = model.first_seq() + u64::from(*nth);
                let expected = model.purge(None, Some(below), None);
                let request = PurgeRequest {
                    below: Some(Seq(below)),
                    ..PurgeRequest::default()
                };
                self.purge(&request, expected, model)?;
            }
            Action::PurgeKeep(keep) => {
                let keep = u64::from(*keep);
                let expected = model.purge(None, None, Some(keep));
                let request = PurgeRequest {
                    keep: Some(keep),
                    ..PurgeRequest::default()
                };
                self.purge(&request, expected, model)?;
            }
            Action::Deliver(count) => return self.deliver(*count),
            Action::Ack(nth) => return self.ack(*nth, false),
            Action::Term(nth) => return self.ack(*nth, true),
            Action::Nak(nth, delay_ms) => return self.nak(*nth, *delay_ms),
            Action::InProgress(nth) => return self.in_progress(*nth),
            Action::Commit => self.commit()?,
            Action::Checkpoint => self.store.checkpoint().map_err(halt)?,
            Action::Compact => self.store.compact().map_err(halt)?,
            Action::Upkeep => return self.upkeep(),
        }
        Ok(())
    }

    fn purge(
        &mut self,
        request: &PurgeRequest,
        expected: u64,
        model: ModelStream,
    ) -> Result<(), Halt> {
        let (purged, ticket) = self.stream.purge(request).map_err(halt)?;
        if purged != expected {
            return Err(Halt::Differs(format!(
                "{request:?} purged {purged}, model {expected}"
            )));
        }
        if self.faulty {
            // Where the next match could not be read, the consumer stops at the first message.
            let found = self.consumer.info().delivered.stream_seq.0;
            self.consumer_unknown |= found != model.consumer.delivered.1;
        }
        self.push(ticket.lsn(), model);
        Ok(())
    }

    fn append(
        &mut self,
        subject: u8,
        len: u16,
        id: Option<u8>,
        ttl_s: Option<u8>,
    ) -> Result<(), Halt> {
        let subject = subject_name(subject);
        self.appended += 1;
        let mut payload = format!("{:08}", self.appended).into_bytes();
        payload.resize(payload.len().max(usize::from(len)), b'x');
        let id = id.map(|id| format!("id-{id}"));
        let append = Append {
            subject: subject.as_bytes(),
            payload: &payload,
            msg_id: id.as_ref().map(|id| id.as_bytes()),
            ttl: ttl_s.map(|seconds| match seconds {
                0 => Ttl::Never,
                _ => Ttl::For {
                    ttl_ns: u64::from(seconds) * 1_000_000_000,
                },
            }),
            ..Append::default()
        };
        let mut answer = self.stream.append_nosync(&append);
        for _ in 0..8 {
            let Err(AppendError::Busy) = answer else {
                break;
            };
            self.upkeep()?;
            answer = self.stream.append_nosync(&append);
        }
        let (found, lsn) = match answer {
            Ok(done) if done.duplicate => (ModelAppend::Duplicate(done.seq.0), done.lsn),
            Ok(done) => (ModelAppend::Stored(done.seq.0), done.lsn),
            Err(
                AppendError::MsgsExceeded
                | AppendError::BytesExceeded
                | AppendError::MsgsPerSubjectExceeded,
            ) => (ModelAppend::Refused, Lsn(0)),
            Err(error) => return Err(halt(error)),
        };
        let mut model = self.model();
        let now_ns = self.now().0;
        let expected = model.append(&self.config, &subject, &payload, id.as_deref(), now_ns);
        if found != expected {
            return Err(Halt::Differs(format!(
                "append answered {found:?}, model {expected:?}"
            )));
        }
        if let ModelAppend::Stored(seq) = found
            && let Some(message) = model.msgs.get_mut(&seq)
        {
            message.ttl_ns = ttl_s.map(|seconds| match seconds {
                0 => i64::MAX,
                _ => i64::from(seconds) * 1_000_000_000,
            });
        }
        self.push(lsn, model);
        Ok(())
    }

    /// Background work, which also removes what is too old.
    fn upkeep(&mut self) -> Result<(), Halt> {
        let now_ns = self.now().0;
        let done = self.store.step().map_err(halt);
        self.upkeeps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((now_ns, done.is_ok()));
        self.catch_up();
        done
    }

    /// Deliveries need durable messages, and are not acknowledged themselves: the model follows.
    fn deliver(&mut self, count: u8) -> Result<(), Halt> {
        for _ in 0..count {
            let mut model = self.model();
            let now = self.now();
            let expected = model.next(now.0);
            let next = self.consumer.next(now, &mut |_| true).map_err(halt)?;
            let found = match &next {
                Next::Message(delivery) => Some((
                    delivery.message.seq.0,
                    delivery.consumer_seq,
                    delivery.deliveries,
                )),
                _ => None,
            };
            if found != expected {
                return Err(Halt::Differs(format!(
                    "delivered {found:?}, model {expected:?}"
                )));
            }
            if let Next::Message(delivery) = &next
                && delivery.num_pending != model.num_pending()
            {
                let (found, expected) = (delivery.num_pending, model.num_pending());
                return Err(Halt::Differs(format!(
                    "num_pending {found}, model {expected}"
                )));
            }
            self.push(Lsn(0), model);
        }
        Ok(())
    }

    fn ack(&mut self, nth: u8, term: bool) -> Result<(), Halt> {
        let mut model = self.model();
        let held = model.consumer.held();
        let Some(seq) = nth_seq(&held, nth) else {
            return Ok(());
        };
        model.ack(&self.config, seq);
        let result = match term {
            false => self.consumer.ack(Seq(seq), self.now()),
            true => self.consumer.term(Seq(seq), self.now()),
        };
        self.push(result.map_err(halt)?.lsn, model);
        Ok(())
    }

    fn nak(&mut self, nth: u8, delay_ms: u16) -> Result<(), Halt> {
        let mut model = self.model();
        let Some(seq) = nth_seq(&model.consumer.open(), nth) else {
            return Ok(());
        };
        let delay_ns = (delay_ms > 0).then(|| u64::from(delay_ms) * 1_000_000);
        let now = self.now();
        model.consumer.nak(seq, delay_ns, now.0);
        let result = self.consumer.nak(Seq(seq), delay_ns, now).map_err(halt)?;
        self.push(result.lsn, model);
        Ok(())
    }

    fn in_progress(&mut self, nth: u8) -> Result<(), Halt> {
        let mut model = self.model();
        let Some(seq) = nth_seq(&model.consumer.open(), nth) else {
            return Ok(());
        };
        let now = self.now();
        model.consumer.in_progress(seq, now.0);
        let result = self.consumer.in_progress(Seq(seq), now).map_err(halt)?;
        self.push(result.lsn, model);
        Ok(())
    }

    /// Number of the oldest model state that the store may come back with.
    pub fn acknowledged(&self) -> usize {
        let durable = self.store.durable_lsn();
        self.history
            .iter()
            .rposition(|(lsn, _)| *lsn <= durable)
            .unwrap_or(0)
    }

    /// Compares everything readable with the newest model state.
    pub fn compare(&mut self) -> Result<(), Halt> {
        self.catch_up();
        self.commit_all()?;
        let checked = self.store.check_invariants();
        checked.map_err(|violation| Halt::Differs(violation.to_string()))?;
        let (_, model) = self.history.last().ok_or(Halt::Stopped)?;
        differences(&self.stream, model).map_err(Halt::Differs)?;
        if self.consumer_unknown {
            return Ok(());
        }
        self.compare_consumer(model).map_err(Halt::Differs)
    }

    fn compare_consumer(&self, model: &ModelStream) -> Result<(), String> {
        let mut consumer = model.consumer.clone();
        consumer.trimmed(model.first_seq());
        let info = self.consumer.info();
        let found = (
            info.delivered.consumer_seq,
            info.delivered.stream_seq.0,
            info.num_ack_pending,
        );
        let (number, seq) = consumer.delivered;
        let expected = (number, seq, consumer.num_ack_pending());
        if found != expected {
            return Err(format!(
                "(delivered, sequence, open) is {found:?}, model {expected:?}"
            ));
        }
        let found = self.consumer.num_pending().map_err(|e| e.to_string())?;
        if found != model.num_pending() {
            let expected = model.num_pending();
            return Err(format!("num_pending {found}, model {expected}"));
        }
        Ok(())
    }

    /// After a clean stop nothing is lost, of the consumer neither.
    pub fn after_close(
        store: &Store,
        env: &Env,
        config: StreamConfig,
        mut model: ModelStream,
    ) -> Result<Pair, Halt> {
        model.consumer.restart();
        let mut pair = Pair::resume(store, env, config, Lsn(0), model)?;
        pair.compare()?;
        Ok(pair)
    }
}

fn nth_seq(seqs: &[u64], nth: u8) -> Option<u64> {
    seqs.get(usize::from(nth) % seqs.len().max(1)).copied()
}

pub fn consumer_config() -> ConsumerConfig {
    ConsumerConfig {
        name: "C".into(),
        durable: true,
        ack: AckPolicy::Explicit,
        ack_wait_ns: 3_600_000_000_000,
        ..ConsumerConfig::default()
    }
}

fn nth_of(model: &ModelStream, nth: u16) -> Option<u64> {
    let count = model.msgs.len();
    if count == 0 {
        return None;
    }
    model.msgs.keys().nth(usize::from(nth) % count).copied()
}

/// What of `stream` differs from `model`: positions, counts, every message, every subject.
pub fn differences(stream: &Stream, model: &ModelStream) -> Result<(), String> {
    let state = stream.state();
    let found = (state.first_seq.0, state.last_seq.0, state.msgs, state.bytes);
    let expected = (
        model.first_seq(),
        model.last_seq,
        model.msgs.len() as u64,
        model.bytes(),
    );
    if found != expected {
        return Err(format!(
            "(first, last, msgs, bytes) is {found:?}, model {expected:?}"
        ));
    }
    for seq in 0..=model.last_seq + 1 {
        let message = stream
            .get(Seq(seq))
            .map_err(|error| format!("{seq}: {error}"))?;
        let found = message
            .as_ref()
            .map(|m| (m.subject().to_vec(), m.payload().to_vec()));
        let expected = model.msgs.get(&seq);
        let expected = expected.map(|m| (m.subject.clone().into_bytes(), m.payload.clone()));
        if found != expected {
            return Err(format!("message {seq} is {found:?}, model {expected:?}"));
        }
    }
    let subjects = stream
        .subjects(&Filter::all())
        .map_err(|error| error.to_string())?;
    let subjects: std::collections::BTreeMap<String, u64> = subjects
        .into_iter()
        .map(|(subject, count)| (String::from_utf8_lossy(&subject).into_owned(), count))
        .collect();
    if subjects != model.subjects() {
        return Err(format!(
            "subjects are {subjects:?}, model {:?}",
            model.subjects()
        ));
    }
    let number = stream.num_subjects().map_err(|error| error.to_string())?;
    if number != subjects.len() as u64 {
        return Err(format!("{number} subjects, but they are {subjects:?}"));
    }
    for subject in 0..5 {
        let name = subject_name(subject);
        let filter = Filter::new(name.as_bytes()).map_err(|error| error.to_string())?;
        let last = stream
            .last_by_subject(&filter)
            .map_err(|error| error.to_string())?;
        let expected = model
            .msgs
            .iter()
            .rfind(|(_, m)| m.subject == name)
            .map(|(seq, _)| *seq);
        if last.as_ref().map(|message| message.seq.0) != expected {
            return Err(format!("last of {name} is {last:?}, model {expected:?}"));
        }
    }
    Ok(())
}

/// Opens what survived and finds the model state it is in, at or after `acknowledged`.
pub fn reopen(
    env: &Env,
    history: &[(Lsn, ModelStream)],
    acknowledged: usize,
) -> Result<(Store, usize), String> {
    let opened: Result<_, OpenError> = Store::open_in(env.clone(), Path::new(DIR), options());
    let (store, _) = opened.map_err(|error| format!("cannot reopen: {error}"))?;
    let at = state_after_restart(&store, "S", history, acknowledged)?;
    id_difference(env, &store, &history[at].1)?;
    Ok((store, at))
}

/// The number of the model state that a stream came back in, at or after `acknowledged`.
pub fn state_after_restart(
    store: &Store,
    name: &str,
    history: &[(Lsn, ModelStream)],
    acknowledged: usize,
) -> Result<usize, String> {
    let Some(stream) = store.stream(name) else {
        return Err(format!("the stream {name} is gone"));
    };
    let mut newest = String::new();
    for at in (acknowledged..history.len()).rev() {
        match differences(&stream, &history[at].1) {
            Ok(()) => {
                consumer_difference(&stream, &history[acknowledged].1)?;
                return Ok(at);
            }
            Err(difference) => newest = difference,
        }
    }
    Err(format!(
        "no state from {acknowledged} on fits {name}; against it: {newest}"
    ))
}

/// Every id in its window is known, with its sequence, whatever became of its message.
fn id_difference(env: &Env, store: &Store, model: &ModelStream) -> Result<(), String> {
    let stream = store.stream("S").ok_or("the stream is gone")?;
    let window = i64::try_from(stream.config().dedup_window_ns).unwrap_or(i64::MAX);
    let now_ns = env.clock.now_ns();
    for (id, (seq, ts_ns)) in &model.ids {
        if now_ns - ts_ns >= window {
            continue;
        }
        let answer = stream.append_nosync(&Append {
            subject: b"s.0",
            msg_id: Some(id.as_bytes()),
            ..Append::default()
        });
        let known = answer
            .as_ref()
            .is_ok_and(|answer| answer.duplicate && answer.seq.0 == *seq);
        if !known {
            return Err(format!("{id} of sequence {seq} is answered by {answer:?}"));
        }
    }
    Ok(())
}

/// An acknowledged acknowledgement is never forgotten: the message is not delivered again.
fn consumer_difference(stream: &Stream, model: &ModelStream) -> Result<(), String> {
    let Some(consumer) = stream.consumer("C") else {
        return Err("the consumer is gone".into());
    };
    let later = TimestampNs(i64::MAX / 2);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..model.last_seq + 1_000 {
        match consumer
            .next(later, &mut |_| true)
            .map_err(|error| error.to_string())?
        {
            Next::Message(delivery) => {
                let seq = delivery.message.seq.0;
                if model.consumer.acked.contains(&seq) {
                    return Err(format!("acknowledged message {seq} was delivered again"));
                }
                if !seen.insert(seq) {
                    break;
                }
            }
            _ => break,
        }
    }
    Ok(())
}

/// Compares `stream` with `model`, where messages may be reported as damaged. Returns the sequences
/// that were: each by an error that names its stream, its file and a range it lies in.
pub fn readable_or_reported(stream: &Stream, model: &ModelStream) -> Result<Vec<u64>, String> {
    let state = stream.state();
    let found = (state.first_seq.0, state.last_seq.0, state.msgs, state.bytes);
    let expected = (
        model.first_seq(),
        model.last_seq,
        model.msgs.len() as u64,
        model.bytes(),
    );
    if found != expected {
        return Err(format!(
            "(first, last, msgs, bytes) is {found:?}, model {expected:?}"
        ));
    }
    let mut reported = Vec::new();
    for seq in 0..=model.last_seq + 1 {
        let message = match stream.get(Seq(seq)) {
            Ok(message) => message,
            Err(ReadError::Corrupt(corrupt))
                if corrupt.stream == stream.id()
                    && corrupt.first.0 <= seq
                    && seq <= corrupt.last.0
                    && model.msgs.contains_key(&seq)
                    && !corrupt.file.as_os_str().is_empty() =>
            {
                reported.push(seq);
                continue;
            }
            Err(error) => return Err(format!("{seq}: {error:?}")),
        };
        let found = message
            .as_ref()
            .map(|m| (m.subject().to_vec(), m.payload().to_vec()));
        let expected = model.msgs.get(&seq);
        let expected = expected.map(|m| (m.subject.clone().into_bytes(), m.payload.clone()));
        if found != expected {
            return Err(format!("message {seq} is {found:?}, model {expected:?}"));
        }
    }
    Ok(reported)
}
