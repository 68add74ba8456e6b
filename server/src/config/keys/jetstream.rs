//! The `jetstream` block (CONF-011).

use std::time::Duration;

use super::super::grammar::{Value, ValueKind};
use super::super::options::{JetStreamConfig, JetStreamLimits, ServerConfig, SyncInterval};
use super::read::Reader;
use super::{Key, apply, set, unsupported};

const ENCRYPTION: &str = "encryption at rest is";
const CLUSTERING: &str = "clustering is";

pub(super) const KEYS: &[Key<JetStreamConfig>] = &[
    set(&["enabled", "enable"], |c, v, r| {
        c.enabled = r.bool(v).unwrap_or(c.enabled)
    }),
    set(&["store_dir", "storedir", "store"], |c, v, r| {
        if let Some(path) = r.path(v) {
            c.store_dir = path;
        }
    }),
    set(
        &["max_mem", "max_memory_store", "max_mem_store"],
        |c, v, r| {
            c.memory_bytes_max = store_limit(v, r);
        },
    ),
    set(&["max_file", "max_file_store"], |c, v, r| {
        c.file_bytes_max = store_limit(v, r)
    }),
    set(&["domain"], |c, v, r| {
        c.domain = r.text(v);
        let is_token =
            |name: &String| !name.contains(['.', '*', '>']) && !name.contains(char::is_whitespace);
        if c.domain.as_ref().is_some_and(|name| !is_token(name)) {
            r.refuse::<()>(v, "a domain name cannot contain '.', '*', '>' or spaces");
        }
    }),
    set(&["strict"], |c, v, r| {
        c.strict = r.bool(v).unwrap_or(c.strict)
    }),
    set(&["sync_interval", "sync"], |c, v, r| {
        let is_always =
            matches!(&v.kind, ValueKind::String(text) if text.eq_ignore_ascii_case("always"));
        if is_always {
            c.sync_interval = SyncInterval::Always;
        } else if let Some(interval) = r.duration_min(v, Duration::from_millis(1)) {
            c.sync_interval = SyncInterval::Every(interval);
        }
    }),
    set(&["max_buffered_msgs"], |c, v, r| {
        c.buffered_messages_max = r.limit_u64(v).flatten();
    }),
    set(&["max_buffered_size"], |c, v, r| {
        c.buffered_bytes_max = r.limit_u64(v).flatten()
    }),
    set(&["limits"], |c, v, r| {
        if let Some(map) = r.map(v) {
            apply(map, &[LIMITS_KEYS], &mut c.limits, r.problems);
        }
    }),
    unsupported(&["cipher"], ENCRYPTION),
    unsupported(&["key", "ek", "encryption_key"], ENCRYPTION),
    unsupported(&["prev_key", "prev_encryption_key"], ENCRYPTION),
    unsupported(&["tpm"], ENCRYPTION),
    unsupported(&["unique_tag"], CLUSTERING),
    unsupported(&["extension_hint"], "extending a JetStream domain is"),
    unsupported(&["max_outstanding_catchup"], CLUSTERING),
    unsupported(
        &["request_queue_limit"],
        "a limit of waiting API requests is",
    ),
    unsupported(&["info_queue_limit"], "an own limit for info requests is"),
    unsupported(
        &["meta_compact", "meta_compact_size", "meta_compact_sync"],
        CLUSTERING,
    ),
    unsupported(&["max_concurrent_io"], "a limit of concurrent I/O is"),
];

pub(super) const LIMITS_KEYS: &[Key<JetStreamLimits>] = &[
    set(&["max_ack_pending"], |l, v, r| {
        l.ack_pending_max = r.limit_u64(v).flatten()
    }),
    set(&["max_request_batch"], |l, v, r| {
        l.request_batch_max = r.limit_u64(v).flatten()
    }),
    set(&["duplicate_window"], |l, v, r| {
        l.duplicate_window_max = r.duration(v)
    }),
    unsupported(&["max_ha_assets"], CLUSTERING),
    unsupported(&["batch"], "limits of batches in the configuration are"),
];

/// `true`, `enabled`, or a block, which enables unless it says `enabled: false`.
pub(super) fn apply_block(config: &mut ServerConfig, value: &Value, reader: &mut Reader<'_>) {
    let target = &mut config.jetstream;
    match &value.kind {
        ValueKind::Bool(enabled) => target.enabled = *enabled,
        ValueKind::String(text) if text.eq_ignore_ascii_case("enabled") => target.enabled = true,
        ValueKind::String(text) if text.eq_ignore_ascii_case("disabled") => target.enabled = false,
        ValueKind::Map(map) => {
            target.enabled = true;
            apply(map, &[KEYS], target, reader.problems);
        }
        _ => {
            reader.refuse::<()>(
                value,
                "expected true, false, 'enabled', 'disabled' or a block",
            );
        }
    }
}

/// Bytes; -1 leaves the limit to the server, 0 allows nothing.
fn store_limit(value: &Value, reader: &mut Reader<'_>) -> Option<u64> {
    reader
        .int_in(value, -1, i64::MAX)
        .and_then(|bytes| u64::try_from(bytes).ok())
}
