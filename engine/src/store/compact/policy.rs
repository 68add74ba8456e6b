//! Which files are compacted next: a pure function of what is in them.

use std::collections::{BTreeMap, BTreeSet};

use super::measure::Facts;
use crate::ids::{SegmentId, StreamId};
use crate::store::options::CompactionOptions;

/// So many small files of about the same size are merged.
const MERGE_FILES: usize = 8;
/// Files read by one job at most.
const INPUTS_MAX: usize = 64;
/// A file of which less is dead, as a fraction, is not taken along with a dirtier one.
const DIRTY_NEIGHBOUR: u64 = 6;
/// A shared file whose streams have less than this in it, in bytes, is small whatever its length:
/// what one stream has in it is read with less than a block.
const GRAIN_BYTES: u64 = 64 << 10;
/// Each tier of small files is this many times larger than the one before.
const TIER_FACTOR: u64 = 8;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// Nothing in these files is live.
    Dead(BTreeSet<SegmentId>),
    /// Rewrite these to get rid of what is dead; the dirtiest one comes first.
    Dirty(Vec<SegmentId>),
    /// Merge these.
    Small(Vec<SegmentId>),
}

/// Files that share one bound on dead data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// Large files of one stream.
    Own(StreamId),
    /// All others.
    Shared,
}

fn is_small(file: &Facts, options: &CompactionOptions) -> bool {
    let grain = file.file_bytes / file.streams.max(1);
    file.file_bytes < options.small_file_bytes
        || (file.streams > 1
            && grain < GRAIN_BYTES
            && file.file_bytes < options.output_bytes_max / 2)
}

fn group(file: &Facts, options: &CompactionOptions) -> Group {
    match file.owner {
        Some(stream) if file.file_bytes >= options.small_file_bytes => Group::Own(stream),
        _ => Group::Shared,
    }
}

/// Files in which nothing is live.
pub(super) fn dead(files: &[Facts]) -> Option<Pick> {
    let dead = files.iter().filter(|file| file.live_msgs == 0);
    let dead: BTreeSet<SegmentId> = dead.map(|file| file.id).collect();
    (!dead.is_empty()).then_some(Pick::Dead(dead))
}

/// The next job, if one is due. `files` are those that may be compacted; of them, `unmergeable` are
/// not merged.
pub(super) fn pick(
    mut files: Vec<Facts>,
    unmergeable: &BTreeSet<SegmentId>,
    options: &CompactionOptions,
) -> Option<Pick> {
    files.sort_unstable_by_key(|file| (file.age, file.id));
    if let Some(found) = dirty(&files, options) {
        return Some(Pick::Dirty(found));
    }
    files.retain(|file| is_small(file, options) && !unmergeable.contains(&file.id));
    small(&files, options).map(Pick::Small)
}

/// Where more than a third of the files' length is dead: the dirtiest file and, as long as the
/// result is one file, dirty neighbours.
fn dirty(files: &[Facts], options: &CompactionOptions) -> Option<Vec<SegmentId>> {
    let mut groups: BTreeMap<Group, Vec<&Facts>> = BTreeMap::new();
    for file in files {
        groups.entry(group(file, options)).or_default().push(file);
    }
    let dead_of = |files: &[&Facts]| files.iter().map(|file| file.dead_file_bytes()).sum::<u64>();
    let over = |group: &Group, files: &[&Facts]| {
        let all: u64 = files.iter().map(|file| file.file_bytes).sum();
        let dead = dead_of(files);
        dead > all / 3 && (dead > options.slack_bytes || *group != Group::Shared)
    };
    groups.retain(|group, files| over(group, files));
    let (_, files) = groups.iter().max_by_key(|(_, files)| dead_of(files))?;
    let fraction = |file: &Facts| {
        u128::from(file.dead_file_bytes()) * 1_000_000 / u128::from(file.file_bytes.max(1))
    };
    let start = (0..files.len()).max_by_key(|at| fraction(files[*at]))?;
    if files[start].dead_file_bytes() == 0 {
        return None;
    }
    let mut chosen = vec![files[start].id];
    let mut live = files[start].live_file_bytes();
    let (mut low, mut high) = (start, start);
    while chosen.len() < INPUTS_MAX {
        let wanted = |file: &Facts| {
            let dirty = file.dead_file_bytes() > file.file_bytes / DIRTY_NEIGHBOUR;
            let fits = live + file.live_file_bytes() <= options.output_bytes_max;
            fits && (dirty || file.file_bytes < options.small_file_bytes)
        };
        let before = low.checked_sub(1).filter(|at| wanted(files[*at]));
        let after = Some(high + 1).filter(|at| files.get(*at).is_some_and(|file| wanted(file)));
        let next = match (before, after) {
            (Some(a), Some(b)) if fraction(files[a]) >= fraction(files[b]) => a,
            (_, Some(b)) => b,
            (Some(a), None) => a,
            (None, None) => break,
        };
        (low, high) = (low.min(next), high.max(next));
        live += files[next].live_file_bytes();
        chosen.push(files[next].id);
    }
    Some(chosen)
}

fn tier(file: &Facts) -> u32 {
    file.file_bytes.max(1).ilog(TIER_FACTOR)
}

/// Neighbours of one tier, with the smaller ones between them, if there are enough. A byte moves up
/// a tier with every merge, so it is merged a few times in its life.
fn small(files: &[Facts], options: &CompactionOptions) -> Option<Vec<SegmentId>> {
    let tiers: BTreeSet<u32> = files.iter().map(tier).collect();
    for at in tiers {
        for run in files.split(|file| tier(file) > at) {
            if let Some(found) = full_run(run, at, options) {
                return Some(found);
            }
        }
    }
    None
}

/// The first files of `run` if enough of them are of the tier: until there are enough and the
/// result is as long as a file should be.
fn full_run(run: &[Facts], at: u32, options: &CompactionOptions) -> Option<Vec<SegmentId>> {
    if run.iter().filter(|file| tier(file) == at).count() < MERGE_FILES {
        return None;
    }
    let (mut chosen, mut live, mut of_tier) = (Vec::new(), 0, 0);
    for file in run.iter().take(INPUTS_MAX) {
        live += file.live_file_bytes();
        if of_tier >= MERGE_FILES && live > options.output_bytes_max {
            break;
        }
        of_tier += usize::from(tier(file) == at);
        chosen.push(file.id);
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn file(id: u64, file_bytes: u64, dead_percent: u64, owner: Option<u64>) -> Facts {
        Facts {
            id: SegmentId(id),
            file_bytes,
            bytes: file_bytes * 3,
            live_bytes: file_bytes * 3 * (100 - dead_percent) / 100,
            live_msgs: u64::from(dead_percent < 100),
            streams: if owner.is_some() { 1 } else { 1_000_000 },
            owner: owner.map(StreamId),
            age: (id as i64, id),
        }
    }

    fn pick_of(files: &[Facts]) -> Option<Pick> {
        pick(
            files.to_vec(),
            &BTreeSet::new(),
            &CompactionOptions::default(),
        )
    }

    fn ids(ids: impl IntoIterator<Item = u64>) -> Vec<SegmentId> {
        ids.into_iter().map(SegmentId).collect()
    }

    #[test]
    fn nothing_is_due_up_to_a_third_of_dead_data() {
        let files = [
            file(1, 60 * MIB, 66, Some(1)),
            file(2, 60 * MIB, 0, Some(1)),
        ];
        assert_eq!(pick_of(&files), None);
        let files = [
            file(1, 60 * MIB, 68, Some(1)),
            file(2, 60 * MIB, 0, Some(1)),
        ];
        assert_eq!(pick_of(&files), Some(Pick::Dirty(ids([1]))));
    }

    #[test]
    fn a_clean_stream_does_not_hide_a_dirty_one() {
        let mut files: Vec<Facts> = (0..20).map(|id| file(id, 60 * MIB, 0, Some(1))).collect();
        files.push(file(20, 20 * MIB, 50, Some(2)));
        assert_eq!(pick_of(&files), Some(Pick::Dirty(ids([20]))));
    }

    #[test]
    fn dirty_neighbours_make_one_full_file() {
        let files: Vec<Facts> = [10, 50, 80, 50, 50, 10]
            .into_iter()
            .zip(1..)
            .map(|(dead, id)| file(id, 40 * MIB, dead, Some(1)))
            .collect();
        // 8 MiB of the third, 20 MiB each of two neighbours.
        let Some(Pick::Dirty(found)) = pick_of(&files) else {
            panic!("42 % are dead");
        };
        assert_eq!(found.first(), Some(&SegmentId(3)));
        assert_eq!(
            found.iter().collect::<BTreeSet<_>>(),
            ids([2, 3, 4]).iter().collect()
        );
    }

    #[test]
    fn little_dead_data_in_shared_files_is_left() {
        assert_eq!(pick_of(&[file(1, MIB, 90, None)]), None);
        let found = pick_of(&[file(1, 2 * MIB, 90, None)]);
        assert_eq!(found, Some(Pick::Dirty(ids([1]))));
    }

    #[test]
    fn files_without_live_data_go_first() {
        let files = [file(1, MIB, 100, None), file(2, MIB, 0, None)];
        assert_eq!(
            dead(&files),
            Some(Pick::Dead(ids([1]).into_iter().collect()))
        );
        assert_eq!(dead(&files[1..]), None);
    }

    /// One new small file after the other: few files are left, and each byte is written a few times.
    #[test]
    fn small_files_are_merged_in_tiers() {
        let options = CompactionOptions::default();
        let mut files: Vec<Facts> = Vec::new();
        let (mut next, mut written, total) = (0, 0, 5_000);
        for _ in 0..total {
            next += 1;
            files.push(file(next, 5_000, 0, None));
            while let Some(picked) = pick(files.clone(), &BTreeSet::new(), &options) {
                let Pick::Small(inputs) = picked else {
                    panic!("nothing is dead: {picked:?}");
                };
                assert!(inputs.len() >= MERGE_FILES);
                let merged: u64 = files
                    .iter()
                    .filter(|file| inputs.contains(&file.id))
                    .map(|file| file.file_bytes)
                    .sum();
                let age = inputs.iter().map(|id| id.0).min().unwrap_or(0);
                files.retain(|file| !inputs.contains(&file.id));
                next += 1;
                let mut output = file(next, merged, 0, None);
                let first = (age as i64, age);
                output.age = first;
                files.push(output);
                written += merged;
            }
            assert!(files.len() < 40, "{} files", files.len());
        }
        assert!(written < 5 * total * 5_000, "{written} bytes were written");
    }

    #[test]
    fn a_large_file_between_small_ones_does_not_keep_them_apart() {
        let mut files: Vec<Facts> = (1..=8).map(|id| file(2 * id, 5_000, 0, None)).collect();
        files.extend((1..8).map(|id| file(2 * id + 1, 60 * MIB, 0, Some(1))));
        let found = pick_of(&files);
        assert_eq!(found, Some(Pick::Small(ids((1..=8).map(|id| 2 * id)))));
    }
}
