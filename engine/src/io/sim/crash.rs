//! What a power cut leaves of the changes that were not synced.

use std::fmt;

use super::file::{Change, SectorPlace};
use super::image::{PAGE, SECTOR};
use super::rng::SimRng;

/// Which of the unsynced changes survive a power cut. Synced changes always do.
///
/// "Names" are creations, renames and removals without a `sync_dir`; "lengths" are changes of a
/// file's length without a `sync_data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persist {
    /// Nothing unsynced survives.
    Nothing,
    /// Everything survives, as when only the process dies.
    Everything,
    /// Everything but the last write.
    LastWriteLost,
    /// Everything, but of the last write only the first half of its sectors; of a write within one
    /// sector, nothing.
    LastWriteFirstHalf,
    /// Everything, but of the last write only the second half of its sectors: the device reordered
    /// them.
    LastWriteSecondHalf,
    /// Of all unsynced writes only the last one; names and lengths survive.
    OnlyLastWrite,
    /// Names and lengths, no content: new files read as zeros.
    MetadataOnly,
    /// Content and lengths, no names: new files are missing, removed ones are back.
    ContentOnly,
    /// Any subset of sectors (torn at 512 B or 4 KiB), lengths and names, chosen by the seed.
    Random {
        /// Same seed and same state of the disk: same result.
        seed: u64,
    },
}

impl Persist {
    /// Every choice that is not random.
    pub const FIXED: [Self; 8] = [
        Self::Nothing,
        Self::Everything,
        Self::LastWriteLost,
        Self::LastWriteFirstHalf,
        Self::LastWriteSecondHalf,
        Self::OnlyLastWrite,
        Self::MetadataOnly,
        Self::ContentOnly,
    ];
}

impl fmt::Display for Persist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing unsynced survives"),
            Self::Everything => f.write_str("everything unsynced survives"),
            Self::LastWriteLost => f.write_str("the last write is lost"),
            Self::LastWriteFirstHalf => f.write_str("the last write keeps its first half"),
            Self::LastWriteSecondHalf => f.write_str("the last write keeps its second half"),
            Self::OnlyLastWrite => f.write_str("of all writes only the last survives"),
            Self::MetadataOnly => f.write_str("names and lengths survive without content"),
            Self::ContentOnly => f.write_str("content survives without names"),
            Self::Random { seed } => write!(f, "a random part survives, seed {seed}"),
        }
    }
}

/// Makes the choices of one power cut.
pub(super) struct Chooser {
    persist: Persist,
    /// Operation number of the last unsynced write on the disk.
    last_write: Option<u64>,
    rng: SimRng,
    /// Chance of a sector to survive, in the random case.
    sector_per_million: u32,
    /// Chance of a name change to survive, in the random case.
    name_per_million: u32,
    /// Unit in which random tears happen, in bytes: some devices write 4 KiB at once.
    tear_unit: u64,
    /// Choice for the unit that the previous sector was in: (operation, unit, kept).
    unit: (u64, u64, bool),
}

impl Chooser {
    pub(super) fn new(persist: Persist, last_write: Option<u64>) -> Self {
        let seed = match persist {
            Persist::Random { seed } => seed,
            _ => 0,
        };
        let mut rng = SimRng::new(seed);
        // One crash leans to losing all, another to losing a little: every kind of mixture comes up.
        let leaning = [0, 125_000, 500_000, 875_000, 1_000_000];
        Self {
            persist,
            last_write,
            sector_per_million: leaning[rng.below(5) as usize],
            name_per_million: leaning[rng.below(5) as usize],
            tear_unit: [SECTOR, PAGE][rng.below(2) as usize],
            unit: (u64::MAX, 0, false),
            rng,
        }
    }

    pub(super) fn keeps_sector(&mut self, change: &Change, place: SectorPlace) -> bool {
        let is_last = Some(change.op) == self.last_write;
        match self.persist {
            Persist::Nothing | Persist::MetadataOnly => false,
            Persist::Everything | Persist::ContentOnly => true,
            Persist::LastWriteLost => !is_last,
            Persist::LastWriteFirstHalf => !is_last || place.index < place.count / 2,
            Persist::LastWriteSecondHalf => !is_last || place.index >= place.count.div_ceil(2),
            Persist::OnlyLastWrite => is_last,
            Persist::Random { .. } => {
                let unit = place.offset / self.tear_unit;
                if (self.unit.0, self.unit.1) != (change.op, unit) {
                    self.unit = (change.op, unit, self.rng.chance(self.sector_per_million));
                }
                self.unit.2
            }
        }
    }

    /// How many of the changes of length survive, oldest first, and the length itself where the
    /// file grew only partly.
    pub(super) fn lengths(&mut self, pending: &[Change]) -> (usize, Option<u64>) {
        let all = pending.iter().filter(|change| change.moves_len()).count();
        match self.persist {
            Persist::Nothing => (0, None),
            Persist::LastWriteLost => {
                let lost = |change: &&Change| Some(change.op) != self.last_write;
                let before = pending
                    .iter()
                    .take_while(lost)
                    .filter(|change| change.moves_len());
                let lost_moves_len = pending
                    .iter()
                    .any(|change| Some(change.op) == self.last_write && change.moves_len());
                (if lost_moves_len { before.count() } else { all }, None)
            }
            Persist::Random { .. } => self.random_lengths(pending, all),
            _ => (all, None),
        }
    }

    fn random_lengths(&mut self, pending: &[Change], all: usize) -> (usize, Option<u64>) {
        let kept = match self.rng.below(4) {
            0 => 0,
            1 => all,
            _ => self.rng.below(all as u64 + 1) as usize,
        };
        let next = pending.iter().filter(|change| change.moves_len()).nth(kept);
        let partial = next
            .filter(|change| change.is_write() && change.len_after > change.len_before)
            .and_then(|change| {
                let pages = (change.len_after - change.len_before) / PAGE;
                let grown = self.rng.below(pages + 1) * PAGE;
                let len = (change.len_before + grown) / PAGE * PAGE;
                Some(len).filter(|len| *len > change.len_before)
            });
        (kept, partial)
    }

    pub(super) fn keeps_name(&mut self) -> bool {
        match self.persist {
            Persist::Nothing | Persist::ContentOnly => false,
            Persist::Random { .. } => self.rng.chance(self.name_per_million),
            _ => true,
        }
    }
}
