//! What is known to be damaged.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::catalogue::Catalogue;
use crate::error::Corrupt;
use crate::ids::{Seq, TimestampNs};

/// Ranges that are remembered; more are only counted.
const RANGES_MAX: usize = 1024;

/// A range of messages that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Name of the stream; empty if it was deleted, or if nobody can tell any more whose messages
    /// they were.
    pub stream: String,
    /// Stream, sequences, file and reason.
    pub range: Corrupt,
    /// Who came across it first.
    pub found_by: FoundBy,
    /// When.
    pub found_at: TimestampNs,
}

/// Who comes across damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FoundBy {
    /// A read.
    Read,
    /// The background check of all sealed files.
    Scrub,
    /// The last start.
    Recovery,
}

/// A bounded list of damaged ranges.
#[derive(Default)]
pub(crate) struct DamageLog {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    found: Vec<Found>,
    not_listed: u64,
}

struct Found {
    range: Corrupt,
    by: FoundBy,
    at: TimestampNs,
}

impl DamageLog {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a range; false if it was known.
    pub fn note(&self, range: &Corrupt, by: FoundBy, at: TimestampNs) -> bool {
        let mut inner = self.lock();
        let known = |found: &Found| {
            let known = &found.range;
            known.stream == range.stream
                && known.first <= range.first
                && range.last <= known.last
                && (known.file == range.file || by == FoundBy::Read)
        };
        if inner.found.iter().any(known) {
            return false;
        }
        if inner.found.len() == RANGES_MAX {
            inner.not_listed += 1;
            return true;
        }
        let range = range.clone();
        inner.found.push(Found { range, by, at });
        true
    }

    /// Forgets what is known of a file, which was replaced.
    pub fn forget_file(&self, file: &Path) {
        self.lock().found.retain(|found| found.range.file != file);
    }

    /// What is damaged and live, by stream and sequence, and how many ranges are not listed.
    pub fn list(&self, catalogue: &Catalogue) -> (Vec<Damage>, u64) {
        let (found, not_listed) = {
            let inner = self.lock();
            let found = inner.found.iter();
            let found: Vec<_> = found.map(|f| (f.range.clone(), f.by, f.at)).collect();
            (found, inner.not_listed)
        };
        let streams = catalogue.all();
        let mut damage = Vec::new();
        for (range, found_by, found_at) in found {
            let core = streams.iter().find(|core| core.id == range.stream);
            let (mut stream, mut range) = (String::new(), range);
            if let Some(core) = core {
                let data = core.lock();
                // What a recovery lost counts as removed.
                if found_by != FoundBy::Recovery {
                    let last = range.last.0.min(data.last_seq);
                    let first = data.tombstones.next_live(range.first.0.max(data.first_seq));
                    if first > last {
                        continue;
                    }
                    (range.first, range.last) = (Seq(first), Seq(last));
                }
                stream = core.name.clone();
            } else if range.stream.0 != 0 {
                continue;
            }
            damage.push(Damage {
                stream,
                range,
                found_by,
                found_at,
            });
        }
        damage.sort_by_key(|d| (d.range.stream, d.range.first));
        (damage, not_listed)
    }
}
