//! The engine and published crates that people would use instead, doing the same work.
//!
//! Every append is on disk when it returns, in every contender, and what was written is read back and
//! compared. What a crate has no call for is left out of its column, and named.

pub mod commitlog;
pub mod contender;
pub mod fjall;
pub mod okaywal;
pub mod phases;
pub mod raft_engine;
pub mod redb;
pub mod riverlog;
pub mod table;
pub mod walrus;

use contender::Rival;

/// Everybody, in the order of the table's columns.
pub const RIVALS: &[Rival] = &[
    riverlog::RIVAL,
    fjall::RIVAL,
    redb::RIVAL,
    raft_engine::RIVAL,
    okaywal::RIVAL,
    walrus::RIVAL,
    commitlog::RIVAL,
];
