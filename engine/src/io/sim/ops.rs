//! The record of everything a simulated disk was asked to do.

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;

use super::fault::Fault;

/// Kind of an operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OpKind {
    /// Creation of one directory, a step of `create_dir_all`.
    CreateDir,
    /// `open` of an existing file.
    Open,
    /// `open` with `CreateNew`.
    Create,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
    /// `list`.
    List,
    /// `sync_dir`.
    SyncDir,
    /// `lock`.
    Lock,
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `sync_data`.
    Sync,
    /// `set_len`.
    SetLen,
    /// `allocate`.
    Allocate,
    /// `len`, `free_bytes`.
    Stat,
    /// `drop_cache`.
    DropCache,
}

impl OpKind {
    /// True for operations that change what a power cut leaves. Only these are worth crashing at.
    pub fn changes_disk(self) -> bool {
        match self {
            Self::CreateDir
            | Self::Create
            | Self::Rename
            | Self::Remove
            | Self::SyncDir
            | Self::Lock
            | Self::Write
            | Self::Sync
            | Self::SetLen
            | Self::Allocate => true,
            Self::Open | Self::List | Self::Read | Self::Stat | Self::DropCache => false,
        }
    }
}

/// One operation in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    /// Counts all operations of the disk from 1.
    pub number: u64,
    /// What was asked for.
    pub kind: OpKind,
    /// File or directory, as named at open time.
    pub path: Arc<str>,
    /// Offset of a read or write, in bytes; otherwise 0.
    pub offset: u64,
    /// Bytes read or written, or the length set; otherwise 0.
    pub len: u64,
    /// The injected fault, if one happened.
    pub fault: Option<Fault>,
    /// How it failed, if it did.
    pub error: Option<ErrorKind>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} {:?} {}", self.number, self.kind, self.path)?;
        if self.len != 0 || self.offset != 0 {
            write!(f, " {}+{}", self.offset, self.len)?;
        }
        if let Some(fault) = self.fault {
            write!(f, " !{fault:?}")?;
        }
        if let Some(error) = self.error {
            write!(f, " -> {error:?}")?;
        }
        Ok(())
    }
}

/// Operations that the log keeps; older ones are dropped.
pub(super) const LOG_OPS_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct OpLog {
    ops: VecDeque<Op>,
}

impl OpLog {
    pub(super) fn push(&mut self, op: Op) {
        if self.ops.len() == LOG_OPS_MAX {
            self.ops.pop_front();
        }
        self.ops.push_back(op);
    }

    pub(super) fn to_vec(&self) -> Vec<Op> {
        self.ops.iter().cloned().collect()
    }
}
