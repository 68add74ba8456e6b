//! Faults that a test injects into a simulated disk.

use super::ops::OpKind;
use super::rng::SimRng;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A read fails.
    ReadError,
    /// A read ends early with `UnexpectedEof`, although the file is long enough.
    ShortRead,
    /// A read returns what the device held before the last sync of the file.
    StaleRead,
    /// One bit in the range of a read flips on the device, for good.
    BitFlip,
    /// A write, `set_len` or `allocate` fails. Of a write, a part may have happened.
    WriteError,
    /// A write, `set_len`, `allocate` or creation fails with `StorageFull`. Of a write, a part may
    /// have happened.
    NoSpace,
    /// A write succeeds but never reaches the device, even if synced. Reads see it until
    /// [`drop_cache`](crate::io::IoFile::drop_cache) or a power cut, and other writes to the same
    /// sector heal it.
    LostWrite,
    /// Like [`Fault::LostWrite`], and the data lands on other sectors of the same file.
    MisdirectedWrite,
    /// A `sync_data` or `sync_dir` fails. Any part of the changes may have become durable; the rest
    /// never will, although later syncs succeed and reads show it until the cache is dropped.
    SyncError,
    /// A `sync_data` or `sync_dir` says it succeeded and did nothing: a device with a volatile cache
    /// that lies. No engine survives it; tests use it to prove that they would notice.
    LyingSync,
    /// Opening, creating, renaming, removing or listing fails and changes nothing.
    NameError,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 11] = [
        Self::ReadError,
        Self::ShortRead,
        Self::StaleRead,
        Self::BitFlip,
        Self::WriteError,
        Self::NoSpace,
        Self::LostWrite,
        Self::MisdirectedWrite,
        Self::SyncError,
        Self::LyingSync,
        Self::NameError,
    ];

    /// True if the fault can hit this kind of operation.
    pub fn applies_to(self, kind: OpKind) -> bool {
        match self {
            Self::ReadError | Self::ShortRead | Self::StaleRead | Self::BitFlip => {
                kind == OpKind::Read
            }
            Self::WriteError => {
                matches!(kind, OpKind::Write | OpKind::SetLen | OpKind::Allocate)
            }
            Self::NoSpace => matches!(
                kind,
                OpKind::Write
                    | OpKind::SetLen
                    | OpKind::Allocate
                    | OpKind::Create
                    | OpKind::CreateDir
            ),
            Self::LostWrite | Self::MisdirectedWrite => kind == OpKind::Write,
            Self::SyncError | Self::LyingSync => {
                matches!(kind, OpKind::Sync | OpKind::SyncDir)
            }
            Self::NameError => matches!(
                kind,
                OpKind::Open
                    | OpKind::Create
                    | OpKind::CreateDir
                    | OpKind::Rename
                    | OpKind::Remove
                    | OpKind::List
            ),
        }
    }
}

/// When a fault happens. Counting starts when the fault is injected and counts only operations that
/// the fault can hit, on paths that its rule names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Every time.
    Always,
    /// Once, after this many matching operations went well: 0 hits the next one.
    After(u64),
    /// Every time after this many matching operations went well.
    EachAfter(u64),
    /// Once, at the operation with this number in the log, if the fault can hit it.
    AtOp(u64),
    /// With this chance in a million, each time.
    PerMillion(u32),
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) fault: Fault,
    pub(super) trigger: Trigger,
    /// The rule concerns paths that contain this.
    pub(super) path_part: String,
    pub(super) matched: u64,
}

impl Rule {
    /// Counts a matching operation and says whether the fault happens.
    pub(super) fn fires(&mut self, op: u64, kind: OpKind, path: &str, rng: &mut SimRng) -> bool {
        if !self.fault.applies_to(kind) || !path.contains(&self.path_part) {
            return false;
        }
        let before = self.matched;
        self.matched += 1;
        match self.trigger {
            Trigger::Always => true,
            Trigger::After(count) => before == count,
            Trigger::EachAfter(count) => before >= count,
            Trigger::AtOp(number) => op == number,
            Trigger::PerMillion(chance) => rng.chance(chance),
        }
    }
}
