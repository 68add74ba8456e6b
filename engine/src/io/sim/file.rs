//! One simulated file: what programs see, what the device holds, and what is in between.

use super::crash::Chooser;
use super::image::{Image, PAGE, SECTOR};
use super::rng::SimRng;

/// Where the sectors of a write end up on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Landing {
    /// At the offset written to.
    Home,
    /// At this offset (a multiple of [`SECTOR`]) instead.
    Elsewhere(u64),
    /// Nowhere, although the device says it did.
    Nowhere,
}

/// A change that no sync has made durable yet.
#[derive(Clone)]
pub(super) struct Change {
    /// Number of the operation that made it.
    pub(super) op: u64,
    pub(super) kind: ChangeKind,
    /// Length of the file before and after.
    pub(super) len_before: u64,
    pub(super) len_after: u64,
}

#[derive(Clone)]
pub(super) enum ChangeKind {
    /// Whole sectors as the page cache held them after the write. Because each is a snapshot, any
    /// version of a sector may be the one that reaches the device, also without its predecessors.
    Write {
        offset: u64,
        sectors: Vec<u8>,
        landing: Landing,
    },
    /// The length alone.
    Len,
}

impl Change {
    pub(super) fn is_write(&self) -> bool {
        matches!(self.kind, ChangeKind::Write { .. })
    }

    /// True if the change is also one of metadata; those reach the device in order.
    pub(super) fn moves_len(&self) -> bool {
        self.len_before != self.len_after
    }
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    /// What reads return: the page cache over the device.
    live: Image,
    /// What the device holds. May have sectors beyond its length, see [`Image::poke`].
    durable: Image,
    /// What the device held in the sectors that the last sync wrote, oldest first; a stale read
    /// returns it.
    stale: Vec<(u64, Vec<u8>)>,
    /// Oldest first.
    pending: Vec<Change>,
    /// True once `live` may differ from `durable` plus `pending`: a fault lost something.
    diverged: bool,
    /// Pages from the start of the file that `allocate` reserved.
    reserved_pages: u64,
    reserved_pages_durable: u64,
    /// Pages with content behind the reserved ones.
    other_pages: u64,
    /// Live directory entries.
    pub(super) links: u32,
    /// Open handles.
    pub(super) handles: u32,
}

impl FileNode {
    pub(super) fn len(&self) -> u64 {
        self.live.len()
    }

    pub(super) fn live(&self) -> &Image {
        &self.live
    }

    /// Reads as before the last sync; returns the bytes read.
    pub(super) fn read_stale(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = self.live.read(buf, offset);
        let end = offset + n as u64;
        // Backwards, so that the oldest content of a sector written twice wins.
        for (start, sectors) in self.stale.iter().rev() {
            let (from, to) = (offset.max(*start), end.min(start + sectors.len() as u64));
            if from < to {
                let old = &sectors[(from - start) as usize..(to - start) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(old);
            }
        }
        n
    }

    pub(super) fn pending(&self) -> &[Change] {
        &self.pending
    }

    /// Pages that count against the capacity of the disk.
    pub(super) fn pages_used(&self) -> u64 {
        self.reserved_pages + self.other_pages
    }

    /// Nobody can reach the file any more.
    pub(super) fn is_gone(&self) -> bool {
        self.links == 0 && self.handles == 0
    }

    /// How many bytes of a write fit if at most `pages_free` more pages may be used.
    pub(super) fn bytes_that_fit(&self, offset: u64, len: usize, mut pages_free: u64) -> usize {
        if len == 0 {
            return 0;
        }
        for page in offset / PAGE..=(offset + len as u64 - 1) / PAGE {
            if !self.uses_page(page) {
                if pages_free == 0 {
                    return (page * PAGE).saturating_sub(offset) as usize;
                }
                pages_free -= 1;
            }
        }
        len
    }

    fn uses_page(&self, page: u64) -> bool {
        page < self.reserved_pages || self.live.has_page(page)
    }

    pub(super) fn write(&mut self, op: u64, data: &[u8], offset: u64, landing: Landing) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        let new_pages = (offset / PAGE..=(end - 1) / PAGE).filter(|page| !self.uses_page(*page));
        self.other_pages += new_pages.count() as u64;
        let len_before = self.live.len();
        self.live.write(data, offset);
        let first = offset / SECTOR * SECTOR;
        let mut sectors = vec![0; (end.next_multiple_of(SECTOR) - first) as usize];
        self.live.peek(&mut sectors, first);
        self.diverged |= landing != Landing::Home;
        self.pending.push(Change {
            op,
            kind: ChangeKind::Write {
                offset: first,
                sectors,
                landing,
            },
            len_before,
            len_after: self.live.len(),
        });
    }

    pub(super) fn set_len(&mut self, op: u64, len: u64) {
        let len_before = self.live.len();
        if len == len_before {
            return;
        }
        self.live.set_len(len);
        if len < len_before {
            self.reserved_pages = self.reserved_pages.min(len.div_ceil(PAGE));
            self.count_pages();
        }
        self.pending.push(Change {
            op,
            kind: ChangeKind::Len,
            len_before,
            len_after: len,
        });
    }

    /// Pages that `allocate(len)` has to take from the disk.
    pub(super) fn pages_to_allocate(&self, len: u64) -> u64 {
        let reserved = len.div_ceil(PAGE).max(self.reserved_pages);
        (reserved + self.live.pages_from(reserved)).saturating_sub(self.pages_used())
    }

    pub(super) fn allocate(&mut self, op: u64, len: u64) {
        self.reserved_pages = self.reserved_pages.max(len.div_ceil(PAGE));
        self.count_pages();
        if len > self.live.len() {
            self.set_len(op, len);
        }
    }

    fn count_pages(&mut self) {
        self.other_pages = self.live.pages_from(self.reserved_pages);
    }

    /// Makes every change up to operation `up_to` durable.
    pub(super) fn sync(&mut self, up_to: u64) {
        self.stale.clear();
        for change in self.take_pending(up_to) {
            if let ChangeKind::Write {
                offset, sectors, ..
            } = &change.kind
            {
                let mut old = vec![0; sectors.len()];
                self.durable.peek(&mut old, *offset);
                self.stale.push((*offset, old));
            }
            land(&mut self.durable, &change, |_, _| true);
            if change.moves_len() {
                self.durable.set_len(change.len_after);
            }
        }
        self.reserved_pages_durable = self.reserved_pages;
    }

    /// A failed sync: some sectors reached the device, the others count as clean and never will.
    /// Lengths stay pending, because they are in the journal and not in the failed pages.
    pub(super) fn fail_sync(&mut self, up_to: u64, rng: &mut SimRng) {
        let landed_per_million = [0, 500_000, 900_000][rng.below(3) as usize];
        let rest = self
            .pending
            .iter()
            .filter(|change| change.op > up_to)
            .cloned();
        let mut kept = Vec::new();
        for change in self.pending.iter().take_while(|change| change.op <= up_to) {
            land(&mut self.durable, change, |_, _| {
                rng.chance(landed_per_million)
            });
            if change.moves_len() {
                kept.push(Change {
                    kind: ChangeKind::Len,
                    ..*change
                });
            }
        }
        kept.extend(rest);
        self.pending = kept;
        self.diverged = true;
    }

    fn take_pending(&mut self, up_to: u64) -> Vec<Change> {
        let covered = self.pending.partition_point(|change| change.op <= up_to);
        self.pending.drain(..covered).collect()
    }

    /// Forgets clean pages: reads see the device, and the changes still on their way to it.
    pub(super) fn drop_cache(&mut self) {
        if !self.diverged {
            return;
        }
        let len = self.live.len();
        let mut image = self.durable.clone();
        for change in &self.pending {
            if let ChangeKind::Write {
                offset, sectors, ..
            } = &change.kind
            {
                image.poke(sectors, *offset);
            }
            image.set_len(change.len_after);
        }
        image.settle(len);
        self.live = image;
        self.count_pages();
    }

    /// Flips bits on the device, past every cache.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        self.live.flip(offset, mask);
        self.durable.flip(offset, mask);
    }

    /// Replaces bytes on the device, past every cache; within the length only.
    pub(super) fn overwrite(&mut self, data: &[u8], offset: u64) {
        let fits = self
            .live
            .len()
            .saturating_sub(offset)
            .min(data.len() as u64) as usize;
        self.live.poke(&data[..fits], offset);
        self.durable.poke(&data[..fits], offset);
        self.count_pages();
    }

    /// Cuts the file on the device, past every cache, with everything still pending.
    pub(super) fn cut(&mut self, len: u64) {
        self.pending.clear();
        self.live.set_len(len);
        self.durable = self.live.clone();
        self.reserved_pages = self.reserved_pages.min(len.div_ceil(PAGE));
        self.count_pages();
    }

    /// The file after a power cut, with what `chooser` lets survive of the unsynced changes.
    pub(super) fn after_crash(&self, chooser: &mut Chooser) -> FileNode {
        let mut image = self.durable.clone();
        let (len_changes_kept, partial_len) = chooser.lengths(&self.pending);
        let mut len_changes_seen = 0;
        let mut len = self.durable.len();
        // Behind a cut that did not survive, later writes went to sectors the file does not have.
        let mut unreachable_from = u64::MAX;
        for change in &self.pending {
            land(&mut image, change, |sector_offset, chunk| {
                sector_offset < unreachable_from && chooser.keeps_sector(change, chunk)
            });
            if change.moves_len() {
                len_changes_seen += 1;
                if len_changes_seen <= len_changes_kept {
                    len = change.len_after;
                    image.set_len(len);
                } else if change.len_after < change.len_before {
                    unreachable_from = unreachable_from.min(change.len_after);
                }
            }
        }
        let len = partial_len.unwrap_or(len);
        image.settle(len);
        let mut node = FileNode {
            reserved_pages: self.reserved_pages_durable.min(len.div_ceil(PAGE)),
            durable: image.clone(),
            stale: self.stale.clone(),
            live: image,
            ..FileNode::default()
        };
        node.reserved_pages_durable = node.reserved_pages;
        node.count_pages();
        node
    }

    /// The file as a new process finds it: same caches, no handles.
    pub(super) fn after_kill(&self) -> FileNode {
        FileNode {
            handles: 0,
            ..self.clone()
        }
    }
}

/// Position of a sector within its write.
#[derive(Clone, Copy)]
pub(super) struct SectorPlace {
    /// Index of the sector in the write.
    pub(super) index: u64,
    /// Sectors of the write.
    pub(super) count: u64,
    /// Offset of the sector in the file as written, in bytes.
    pub(super) offset: u64,
}

/// Puts the sectors of a write that `keeps(landing offset, place)` chooses on the device.
fn land(device: &mut Image, change: &Change, mut keeps: impl FnMut(u64, SectorPlace) -> bool) {
    let ChangeKind::Write {
        offset,
        sectors,
        landing,
    } = &change.kind
    else {
        return;
    };
    let base = match landing {
        Landing::Home => *offset,
        Landing::Elsewhere(base) => *base,
        Landing::Nowhere => return,
    };
    let chunks = sectors.chunks(SECTOR as usize);
    let count = chunks.len() as u64;
    for (index, sector) in (0..).zip(chunks) {
        let shift = index * SECTOR;
        let place = SectorPlace {
            index,
            count,
            offset: offset + shift,
        };
        if keeps(base + shift, place) {
            device.poke(sector, base + shift);
        }
    }
}
