//! What an operator can set about JetStream.

use std::path::PathBuf;

use riverlog_engine::StoreOptions;

use super::json::UnknownFields;

/// Settings of the `jetstream` block and its command-line flags.
#[derive(Clone, Debug)]
pub struct JetStreamOptions {
    /// Directory of the store. Created when it does not exist.
    pub store_dir: PathBuf,
    /// Bytes of all memory streams together; `None` = no limit.
    pub max_memory: Option<u64>,
    /// Bytes of all file streams together; `None` = no limit.
    pub max_file: Option<u64>,
    /// Name of the domain, for acknowledgements and the `$JS.<domain>.API` prefix.
    pub domain: Option<String>,
    /// Refuse unknown fields in request bodies (default). Off: they are ignored.
    pub strict: bool,
    /// Limits on what requests may ask for.
    pub limits: JetStreamLimits,
    /// Budgets of the storage engine.
    pub store: StoreOptions,
}

/// Limits on what requests may ask for; `None` = no limit (LIM-010).
#[derive(Clone, Copy, Debug, Default)]
pub struct JetStreamLimits {
    /// Ceiling of `max_ack_pending`.
    pub max_ack_pending: Option<i64>,
    /// Ceiling and default of `max_batch`.
    pub max_request_batch: Option<i64>,
    /// Ceiling of `duplicate_window`, in nanoseconds.
    pub duplicate_window_ns: Option<i64>,
    /// Consumers of a stream that names no number; default 1000 (LIM-018).
    pub default_max_consumers: Option<usize>,
    /// Number of streams.
    pub max_streams: Option<usize>,
}

impl JetStreamOptions {
    /// Default settings for a store in `store_dir`.
    pub fn new(store_dir: impl Into<PathBuf>) -> JetStreamOptions {
        JetStreamOptions {
            store_dir: store_dir.into(),
            max_memory: None,
            max_file: None,
            domain: None,
            strict: true,
            limits: JetStreamLimits::default(),
            store: StoreOptions::default(),
        }
    }

    /// How request bodies with unknown fields are read (JSAPI-009).
    pub(crate) fn unknown_fields(&self) -> UnknownFields {
        if self.strict {
            UnknownFields::Refuse
        } else {
            UnknownFields::Ignore
        }
    }
}
