//! What is live in each sealed file, from RAM alone.
//!
//! How many messages of a file are dead is exact. How many bytes they have is exact for a stream as a
//! whole and divided among its files by their average message size: that decides which file comes
//! first, never whether the bound on dead data holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ids::{SegmentId, StreamId};
use crate::store::files::FileList;
use crate::stream::core::StreamCore;
use crate::stream::state::StreamData;

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub id: SegmentId,
    /// Length of the file.
    pub file_bytes: u64,
    /// Accounted size of the messages it was sealed with.
    pub bytes: u64,
    /// Accounted size of those that are live, as far as it can be told.
    pub live_bytes: u64,
    pub live_msgs: u64,
    /// Streams that list it.
    pub streams: u64,
    /// The stream, if it is the only one.
    pub owner: Option<StreamId>,
    /// Time and sequence of its oldest message: what is next to each other by these as a rule was
    /// written one after the other.
    pub age: (i64, u64),
}

impl Facts {
    /// Share of the file's length that is live.
    pub fn live_file_bytes(&self) -> u64 {
        if self.bytes == 0 {
            return 0;
        }
        let live = self.live_bytes.min(self.bytes);
        let share = u128::from(self.file_bytes) * u128::from(live) / u128::from(self.bytes);
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Share of the file's length that is dead.
    pub fn dead_file_bytes(&self) -> u64 {
        self.file_bytes - self.live_file_bytes()
    }
}

/// Looks at every file. Streams are locked one after the other.
pub(super) fn measure(files: &FileList, streams: &[Arc<StreamCore>]) -> Vec<Facts> {
    let mut facts: BTreeMap<SegmentId, Facts> = files
        .iter()
        .map(|listed| {
            let manifest = listed.file.segment.manifest();
            let facts = Facts {
                id: manifest.id,
                file_bytes: manifest.file_bytes,
                bytes: manifest.bytes,
                live_bytes: 0,
                live_msgs: 0,
                streams: listed.streams.len() as u64,
                owner: match listed.streams.len() {
                    1 => listed.streams.first().copied(),
                    _ => None,
                },
                age: (i64::MAX, u64::MAX),
            };
            (manifest.id, facts)
        })
        .collect();
    for core in streams {
        let data = core.lock();
        if !data.deleted {
            add_stream(&mut facts, &data);
        }
    }
    facts.into_values().collect()
}

fn add_stream(facts: &mut BTreeMap<SegmentId, Facts>, data: &StreamData) {
    let mut shares = Vec::with_capacity(data.extents.len());
    let (mut sealed, mut guessed) = (0_u64, 0_u64);
    for extent in data.extents.iter() {
        let live = data.live_in(extent.first, extent.last).min(extent.msgs);
        let dead = share(extent.bytes, extent.msgs - live, extent.msgs);
        sealed = sealed.saturating_add(extent.bytes);
        guessed = guessed.saturating_add(dead);
        shares.push((live, dead));
    }
    let in_ram = data.tail.live_bytes() + data.frozen.as_ref().map_or(0, |t| t.live_bytes());
    let live_sealed = data.bytes.saturating_sub(in_ram);
    let dead_sealed = sealed.saturating_sub(live_sealed);
    for (extent, (live, dead)) in data.extents.iter().zip(shares) {
        let Some(facts) = facts.get_mut(&extent.file.id) else {
            continue;
        };
        // The guesses are brought to the sum that is known.
        let dead = share(dead, dead_sealed, guessed).min(extent.bytes);
        facts.live_msgs += live;
        facts.live_bytes += if live > 0 { extent.bytes - dead } else { 0 };
        facts.age = facts.age.min((extent.first_ts, extent.first));
    }
}

/// `amount * part / whole`; nothing of nothing.
fn share(amount: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    let share = u128::from(amount) * u128::from(part) / u128::from(whole);
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Streams by id.
pub(super) fn by_id(streams: Vec<Arc<StreamCore>>) -> HashMap<StreamId, Arc<StreamCore>> {
    streams.into_iter().map(|core| (core.id, core)).collect()
}
