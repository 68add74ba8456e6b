//! Every constant bound of the JetStream side, with its unit and reason.

/// API level announced in INFO, account info and the metadata of replies (LVL-001).
pub const API_LEVEL: u32 = 5;
/// Release of the protocol's reference server this server behaves like; the `_nats.ver` metadata key.
pub const COMPATIBLE_VERSION: &str = "2.15.1";

/// Longest stream or consumer name, in bytes (JSAPI-020).
pub const ASSET_NAME_BYTES_MAX: usize = 255;
/// Longest description, in bytes (JSAPI-021).
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// Largest sum of metadata keys and values, in bytes (JSAPI-022).
pub const METADATA_BYTES_MAX: usize = 128 * 1024;
/// Most replicas a configuration may name (SCFG-009).
pub const REPLICAS_MAX: i64 = 5;

/// Names per page of a names reply (JSAPI-012).
pub const NAMES_PAGE: usize = 1024;
/// Infos per page of a list reply (JSAPI-012).
pub const LIST_PAGE: usize = 256;
/// Subjects per page of the subject details of a stream info (SAPI-009).
pub const SUBJECTS_PAGE: usize = 100_000;

/// Smallest `max_age` and `duplicate_window`, in nanoseconds (SCFG-012, SCFG-019).
pub const WINDOW_NS_MIN: i64 = 100_000_000;
/// Default `duplicate_window`, in nanoseconds (SCFG-019).
pub const DUPLICATE_WINDOW_NS_DEFAULT: i64 = 120_000_000_000;

/// Default `ack_wait`, in nanoseconds (CCFG-010).
pub const ACK_WAIT_NS_DEFAULT: i64 = 30_000_000_000;
/// Default `max_ack_pending` (CCFG-019).
pub const ACK_PENDING_DEFAULT: i64 = 1000;
/// Default `max_waiting`: pull requests that may wait at one consumer (CCFG-018).
pub const WAITING_DEFAULT: i64 = 512;
/// Default inactivity after which an ephemeral consumer is removed, in nanoseconds (CCFG-028).
pub const INACTIVE_NS_DEFAULT: i64 = 5_000_000_000;
/// Smallest heartbeat of a push consumer, in nanoseconds (CCFG-021).
pub const HEARTBEAT_NS_MIN: i64 = 100_000_000;
/// Smallest `max_expires` other than 0, in nanoseconds (CCFG-024).
pub const MAX_EXPIRES_NS_MIN: i64 = 1_000_000;
/// Consumers a stream takes when its configuration names no number (LIM-018).
pub const CONSUMERS_PER_STREAM_DEFAULT: usize = 1000;

/// Largest header block a stream stores, in bytes (PUB-020).
pub const HEADER_BYTES_MAX: usize = 65_535;
/// Largest record of a file stream, in bytes (PUB-034).
pub const FILE_RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// API requests that may wait for a worker; more are dropped (JSAPI-016).
pub const API_QUEUE_MAX: usize = 10_000;

/// Subjects a multi-last direct get may return (DGET-015).
pub const MULTI_LAST_SUBJECTS_MAX: usize = 1024;
/// Bytes a batched direct get sends when the request names no number: a slice of what one
/// connection may have outstanding, so that one reply cannot close the requester (DGET-012).
pub const DIRECT_BATCH_BYTES_DEFAULT: usize = 32 * 1024 * 1024;

/// Messages one consumer delivers before it lets other consumers of the runtime run.
pub const DELIVERY_SLICE_MESSAGES: usize = 256;
