//! Start: the store is opened and everything in it comes back to life.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use riverlog_engine::wal::DurableBatch;
use riverlog_engine::{OpenError, RecoveryReport, Store, Stream};
use tokio::sync::watch;

use super::ack::{AckSubscriber, FlowSubscriber};
use super::api::{ApiQueues, ApiSubscriber};
use super::consumer_handle::ConsumerHandle;
use super::engine_config::{consumer_from_engine, stream_from_engine};
use super::options::JetStreamOptions;
use super::shared::Shared;
use super::stream_handle::StreamHandle;
use super::{JetStream, removal};
use crate::server::Server;

/// Why JetStream could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The store could not be opened.
    Store(OpenError),
    /// A subject of the API could not be subscribed to.
    Subscribe(String),
    /// The stored configuration of a stream or consumer cannot be read by this version.
    Config {
        /// `stream S` or `consumer C of stream S`.
        asset: String,
        /// What does not fit.
        reason: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Store(error) => error.fmt(f),
            StartError::Subscribe(subject) => write!(f, "cannot subscribe to {subject}"),
            StartError::Config { asset, reason } => write!(
                f,
                "the stored configuration of {asset} cannot be read: {reason}; it may be from a newer version, nothing was changed"
            ),
        }
    }
}

impl std::error::Error for StartError {}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> StartError {
        StartError::Store(error)
    }
}

pub(super) fn start(
    store: Store,
    report: RecoveryReport,
    options: JetStreamOptions,
    server: &Server,
) -> Result<JetStream, StartError> {
    let account = Arc::clone(server.account());
    let server_id = server.server_id().to_owned();
    let server_name = server.server_name().to_owned();
    let (durable_sender, durable) = watch::channel(store.durable_lsn().0);
    let shared = Arc::new(Shared::new(store, account, options, server_id, server_name));
    observe_commits(&shared, durable_sender);
    for stream in shared.store.streams() {
        revive_stream(&shared, stream)?;
    }
    let timers = Arc::clone(&shared.timers);
    let timer_task = shared.runtime.spawn(timers.run());
    let mut jetstream = JetStream {
        shared: Arc::clone(&shared),
        durable,
        subscriptions: Vec::new(),
        timer_task,
        report,
        stopping: AtomicBool::new(false),
        closing: Mutex::default(),
    };
    subscribe_all(&shared, &mut jetstream)?;
    for stream in shared.streams() {
        stream.sync_subscriptions(&shared);
        for consumer in stream.consumers() {
            consumer.watch_deliver_subject(&shared);
            consumer.schedule();
        }
    }
    Ok(jetstream)
}

/// Passes the durable position on, and wakes the consumers of streams with new messages. Runs on the
/// committer's thread, or for memory streams on the publisher's.
fn observe_commits(shared: &Arc<Shared>, durable: watch::Sender<u64>) {
    let weak: Weak<Shared> = Arc::downgrade(shared);
    shared
        .store
        .on_durable(Arc::new(move |batch: &DurableBatch<'_>| {
            durable.send_if_modified(|position| {
                let moved = batch.lsn.0 > *position;
                *position = batch.lsn.0.max(*position);
                moved
            });
            let Some(shared) = weak.upgrade() else {
                return;
            };
            for (stream, _) in batch.streams {
                if let Some(stream) = shared.stream_by_id(*stream) {
                    stream.wake_consumers();
                }
            }
        }));
}

fn revive_stream(shared: &Arc<Shared>, engine: Stream) -> Result<(), StartError> {
    let config = stream_from_engine(&engine.config()).map_err(|error| StartError::Config {
        asset: format!("stream {}", engine.name()),
        reason: error.to_string(),
    })?;
    let stream = StreamHandle::new(shared, engine, config);
    for consumer in stream.engine.consumers() {
        let config =
            consumer_from_engine(&consumer.config()).map_err(|error| StartError::Config {
                asset: format!("consumer {} of stream {}", consumer.name(), stream.name),
                reason: error.to_string(),
            })?;
        let consumer = ConsumerHandle::new(shared, &stream, consumer, config);
        stream.add_consumer(&consumer);
        removal::check_inactivity(shared, &consumer);
    }
    shared.add_stream(&stream);
    Ok(())
}

fn subscribe_all(shared: &Arc<Shared>, jetstream: &mut JetStream) -> Result<(), StartError> {
    let queues = ApiQueues::start(shared);
    let mut prefixes = vec!["$JS.API.".to_owned()];
    prefixes.extend(
        shared
            .options
            .domain
            .iter()
            .map(|domain| format!("$JS.{domain}.API.")),
    );
    for prefix in prefixes {
        let subject = format!("{prefix}>");
        let (shared, queues) = (Arc::clone(shared), Arc::clone(&queues));
        let subscriber = Arc::new(ApiSubscriber {
            shared,
            queues,
            prefix,
        });
        subscribe(jetstream, &subject, subscriber)?;
    }
    let subscriber = Arc::new(AckSubscriber {
        shared: Arc::clone(shared),
    });
    subscribe(jetstream, "$JS.ACK.>", subscriber)?;
    let subscriber = Arc::new(FlowSubscriber {
        shared: Arc::clone(shared),
    });
    subscribe(jetstream, "$JS.FC.>", subscriber)
}

fn subscribe(
    jetstream: &mut JetStream,
    subject: &str,
    subscriber: Arc<dyn crate::routing::InternalSubscriber>,
) -> Result<(), StartError> {
    let subscription = jetstream
        .shared
        .account
        .subscribe(subject.as_bytes(), None, subscriber)
        .map_err(|_| StartError::Subscribe(subject.to_owned()))?;
    jetstream.subscriptions.push(subscription);
    Ok(())
}
