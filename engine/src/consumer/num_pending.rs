//! How many stored messages still wait for their first delivery (DLV-005, DLV-017).

use crate::ids::Seq;

/// Exact count of matching messages at or after the consumer's position, kept up to date by small
/// steps. It is unknown until the owner sets it from an index query, and becomes unknown again
/// when a change cannot be expressed as a step (a purge, new filters, a reset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingCount {
    known: Option<Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    count: u64,
    /// Messages after this sequence are not counted yet.
    as_of: u64,
}

impl PendingCount {
    /// The count over messages up to and including `as_of`, if known.
    pub fn get(&self) -> Option<u64> {
        self.known.map(|known| known.count)
    }

    /// The last sequence that has been taken into account, if the count is known.
    pub fn as_of(&self) -> Option<Seq> {
        self.known.map(|known| Seq(known.as_of))
    }

    /// Takes over the result of a query over messages up to and including `as_of`.
    pub fn set(&mut self, count: u64, as_of: Seq) {
        self.known = Some(Known {
            count,
            as_of: as_of.0,
        });
    }

    /// Forgets the count; the owner has to ask the index again.
    pub fn invalidate(&mut self) {
        self.known = None;
    }

    /// Message `seq` became visible. Already counted sequences change nothing, so that a query
    /// that ran ahead and the stream of new messages may overlap.
    pub fn appended(&mut self, seq: Seq, matches: bool) {
        if let Some(known) = &mut self.known
            && seq.0 > known.as_of
        {
            known.as_of = seq.0;
            known.count += u64::from(matches);
        }
    }

    /// Message `seq` was delivered for the first time. Redeliveries are not reported (T-44).
    pub fn delivered(&mut self, seq: Seq) {
        self.less(seq);
    }

    /// Matching message `seq`, at or after the consumer's position, was removed (T-10).
    pub fn removed(&mut self, seq: Seq) {
        self.less(seq);
    }

    /// A first delivery was taken back to the consumer's position (AckPolicy::None only).
    pub fn put_back(&mut self, seq: Seq) {
        if let Some(known) = &mut self.known
            && seq.0 <= known.as_of
        {
            known.count += 1;
        }
    }

    fn less(&mut self, seq: Seq) {
        let Some(known) = &mut self.known else { return };
        if seq.0 > known.as_of {
            return;
        }
        match known.count.checked_sub(1) {
            Some(count) => known.count = count,
            // The steps do not fit the count: better unknown than wrong.
            None => self.known = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_the_count_exact() {
        let mut count = PendingCount::default();
        count.appended(Seq(1), true);
        assert_eq!(count.get(), None);
        count.set(3, Seq(10));
        count.appended(Seq(10), true);
        count.appended(Seq(11), true);
        count.appended(Seq(12), false);
        assert_eq!((count.get(), count.as_of()), (Some(4), Some(Seq(12))));
        count.delivered(Seq(5));
        count.removed(Seq(13));
        count.removed(Seq(7));
        count.put_back(Seq(5));
        assert_eq!(count.get(), Some(3));
    }

    #[test]
    fn a_step_that_cannot_be_makes_it_unknown() {
        let mut count = PendingCount::default();
        count.set(0, Seq(4));
        count.delivered(Seq(4));
        assert_eq!(count.get(), None);
    }
}
