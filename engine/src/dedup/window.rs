//! For how long a stream knows its ids.

use crate::ids::{Seq, TimestampNs};

/// Ids that had expired when a window was made longer: they stay so. An id is one of them if neither
/// its sequence nor its time is above these; the sequence keeps later ids out when the clock was set
/// back, the time those that had not expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdFloor {
    pub seq: Seq,
    pub ts: TimestampNs,
}

impl Default for IdFloor {
    fn default() -> IdFloor {
        IdFloor {
            seq: Seq(0),
            ts: TimestampNs(i64::MIN),
        }
    }
}

/// A stream's deduplication window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdWindow {
    /// Length in nanoseconds; 0 knows nothing.
    pub length_ns: u64,
    pub floor: IdFloor,
}

impl IdWindow {
    /// Whether the id of message `seq` of time `ts` is still known at `now`.
    pub fn holds(&self, seq: Seq, ts: TimestampNs, now: TimestampNs) -> bool {
        let under_floor = seq <= self.floor.seq && ts <= self.floor.ts;
        !under_floor && now < self.ends(ts)
    }

    /// When an id of time `ts` expires.
    pub fn ends(&self, ts: TimestampNs) -> TimestampNs {
        TimestampNs(ts.0.saturating_add(self.length()))
    }

    /// The window after its length was changed at `now`, behind message `last_seq`; and by how much it
    /// has grown.
    pub fn change(self, length_ns: u64, last_seq: Seq, now: TimestampNs) -> (IdWindow, u64) {
        let grown = length_ns.saturating_sub(self.length_ns);
        let expired = TimestampNs(now.0.saturating_sub(self.length()));
        let mut floor = self.floor;
        if grown > 0 && expired >= floor.ts {
            floor = IdFloor {
                seq: last_seq,
                ts: expired,
            };
        }
        (IdWindow { length_ns, floor }, grown)
    }

    fn length(&self) -> i64 {
        i64::try_from(self.length_ns).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_FLOOR: IdWindow = IdWindow {
        length_ns: 100,
        floor: IdFloor {
            seq: Seq(0),
            ts: TimestampNs(i64::MIN),
        },
    };

    /// Message n of time n.
    fn holds(window: IdWindow, n: i64, now: i64) -> bool {
        window.holds(Seq(n as u64), TimestampNs(n), TimestampNs(now))
    }

    #[test]
    fn a_longer_window_brings_nothing_back() {
        let at = TimestampNs;
        assert!(!holds(NO_FLOOR, 900, 1_000) && holds(NO_FLOOR, 901, 1_000));
        let (longer, grown) = NO_FLOOR.change(500, Seq(1_000), at(1_000));
        assert_eq!(grown, 400);
        assert!(!holds(longer, 900, 1_000) && holds(longer, 901, 1_000));
        assert!(holds(longer, 901, 1_400) && !holds(longer, 901, 1_401));
        let (shorter, grown) = longer.change(10, Seq(1_000), at(1_000));
        assert_eq!(grown, 0);
        assert!(!holds(shorter, 990, 1_000) && holds(shorter, 991, 1_000));
        let (off, _) = shorter.change(0, Seq(1_000), at(1_000));
        assert!(!holds(off, 1_000, 1_000));
        let (on, _) = off.change(100, Seq(2_000), at(2_000));
        assert!(!holds(on, 2_000, 2_000) && holds(on, 2_001, 2_001));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_new_id_old() {
        let (on, _) = NO_FLOOR.change(0, Seq(5), TimestampNs(1_000));
        let (on, _) = on.change(100, Seq(5), TimestampNs(1_000));
        assert!(!on.holds(Seq(5), TimestampNs(1_000), TimestampNs(1_000)));
        assert!(on.holds(Seq(6), TimestampNs(1_000), TimestampNs(1_000)));
        assert!(on.holds(Seq(7), TimestampNs(500), TimestampNs(500)));
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let window = IdWindow {
            length_ns: u64::MAX,
            ..NO_FLOOR
        };
        assert!(holds(window, i64::MIN + 1, -1));
        assert!(holds(window, 5, i64::MAX - 1));
        window.change(0, Seq(0), TimestampNs(i64::MIN));
    }
}
