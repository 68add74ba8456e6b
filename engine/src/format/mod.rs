//! Byte formats of everything the engine puts on disk: pure encoding and decoding over byte
//! slices, no I/O. `engine/FORMAT.md` documents them byte by byte.
//!
//! Every decoder is total: any input gives a value or a [`FormatError`], never a panic, and no
//! allocation is sized by a number that was not compared with the bytes at hand first.
//! All fixed-width integers are little-endian.

pub mod backup;
pub mod block;
pub mod block_table;
pub mod bloom;
pub mod cipher;
pub mod cursor;
#[cfg(test)]
mod document;
mod error;
pub mod file_header;
pub mod footer;
pub mod frame;
pub mod id_page;
pub mod identity;
pub mod key_page;
pub mod key_ring;
pub mod op;
pub mod page;
pub mod record;
pub mod timers;
pub mod varint;

pub use error::FormatError;
