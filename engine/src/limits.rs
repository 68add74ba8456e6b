//! Every constant with its unit and its reason.

use crate::config::Storage;

/// Accounted overhead of a message in a file stream, in bytes. Part of `state.bytes` and of
/// `bytes_max`, so that limits mean the same as with other JetStream servers (LIM-013).
pub const FILE_MESSAGE_OVERHEAD_BYTES: u64 = 30;
/// Further accounted overhead of a message with headers in a file stream, in bytes.
pub const FILE_HEADERS_OVERHEAD_BYTES: u64 = 4;
/// Accounted overhead of a message in a memory stream, in bytes (LIM-012).
pub const MEMORY_MESSAGE_OVERHEAD_BYTES: u64 = 16;

/// Longest subject, in bytes: lengths up to here keep every record header small.
pub const SUBJECT_BYTES_MAX: usize = 64 * 1024 - 1;
/// Longest message (subject, headers, payload and id together), in bytes. A record must fit one
/// WAL frame and one block, and replay must be able to hold it.
pub const MESSAGE_BYTES_MAX: usize = 68 * 1024 * 1024;
/// Highest first sequence that can be asked for, so that no stream runs out of sequences.
pub const FIRST_SEQ_MAX: u64 = u64::MAX / 2;
/// Highest position of a consumer: no stream gets there, and there is room to count on from it.
pub const POSITION_MAX: u64 = u64::MAX / 4 * 3;
/// Longest message id, in bytes.
pub const MSG_ID_BYTES_MAX: usize = 64 * 1024 - 1;

/// The size that counts against `bytes_max`, in bytes.
pub fn accounted_bytes(storage: Storage, subject: usize, headers: usize, payload: usize) -> u64 {
    let parts = (subject + headers + payload) as u64;
    match storage {
        Storage::Memory => parts + MEMORY_MESSAGE_OVERHEAD_BYTES,
        Storage::File if headers > 0 => {
            parts + FILE_MESSAGE_OVERHEAD_BYTES + FILE_HEADERS_OVERHEAD_BYTES
        }
        Storage::File => parts + FILE_MESSAGE_OVERHEAD_BYTES,
    }
}
