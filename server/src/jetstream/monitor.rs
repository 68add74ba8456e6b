//! Snapshots for the monitoring endpoint.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::api::consumer_info;
use super::api::stream_info::stream_state;
use super::shared::Shared;
use super::stream_handle::StreamHandle;
use super::time::format_time;
use super::types::enums::Storage;
use crate::monitor::{
    JetStreamMonitor, JetStreamProblem, JetStreamStats, StreamDetail, StreamDetailOptions,
};

/// Looks at the live streams.
pub(super) struct Monitor {
    pub shared: Arc<Shared>,
}

fn json(value: impl serde::Serialize) -> Value {
    // The types have string keys and no failing serialiser.
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn detail(shared: &Shared, stream: &StreamHandle, options: StreamDetailOptions) -> StreamDetail {
    let consumers = if options.consumers {
        stream.consumers()
    } else {
        Vec::new()
    };
    let infos = consumers
        .iter()
        .filter_map(|consumer| consumer_info(shared, stream, consumer).ok());
    StreamDetail {
        name: stream.name.to_string(),
        created: format_time(stream.engine.created()),
        config: options.config.then(|| json(&*stream.config())),
        state: json(stream_state(stream)),
        consumers: infos.map(json).collect(),
    }
}

impl JetStreamMonitor for Monitor {
    fn stats(&self) -> JetStreamStats {
        let shared = &self.shared;
        let streams = shared.streams();
        let states: Vec<_> = streams.iter().map(|stream| stream.engine.state()).collect();
        JetStreamStats {
            memory: shared.bytes_used(Storage::Memory),
            storage: shared.bytes_used(Storage::File),
            reserved_memory: shared.bytes_reserved(Storage::Memory),
            reserved_storage: shared.bytes_reserved(Storage::File),
            accounts: 1,
            api_total: shared.stats.total.load(Ordering::Relaxed),
            api_errors: shared.stats.errors.load(Ordering::Relaxed),
            streams: streams.len() as u64,
            consumers: streams
                .iter()
                .map(|stream| stream.consumer_count() as u64)
                .sum(),
            messages: states.iter().map(|state| state.msgs).sum(),
            bytes: states.iter().map(|state| state.bytes).sum(),
        }
    }

    fn streams(&self, options: StreamDetailOptions) -> Vec<StreamDetail> {
        self.shared
            .streams()
            .iter()
            .map(|stream| detail(&self.shared, stream, options))
            .collect()
    }

    fn has_stream(&self, stream: &str) -> bool {
        self.shared.stream(stream).is_some()
    }

    fn has_consumer(&self, stream: &str, consumer: &str) -> bool {
        self.shared
            .stream(stream)
            .is_some_and(|stream| stream.consumer(consumer).is_some())
    }

    fn problems(&self) -> Vec<JetStreamProblem> {
        let stopped = self.shared.store.stopped();
        let problem = |error: riverlog_engine::Stopped| JetStreamProblem {
            stream: None,
            error: error.to_string(),
        };
        stopped.map(problem).into_iter().collect()
    }
}
