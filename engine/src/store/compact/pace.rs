//! How fast compaction may go: a bucket of bytes that fills with the store's clock.

/// One second; its bytes may be used at once.
const BURST_NS: i64 = 1_000_000_000;

/// Allows `rate` bytes per second on average. A step may take more than is there; the next one then
/// waits until the debt is paid.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// Bytes that may be used now; negative after a large step.
    bytes: i64,
    at_ns: i64,
}

impl Pace {
    pub fn new(bytes_per_second: u64, now_ns: i64) -> Pace {
        Pace {
            bytes_per_second,
            bytes: i64::try_from(bytes_per_second).unwrap_or(i64::MAX),
            at_ns: now_ns,
        }
    }

    /// When the next step may run: `None` means now.
    pub fn next_at(&mut self, now_ns: i64) -> Option<i64> {
        let rate = i128::from(self.bytes_per_second);
        // A clock that was set back starts a new second.
        let passed = now_ns.saturating_sub(self.at_ns).max(0);
        let earned = rate * i128::from(passed) / i128::from(BURST_NS);
        let full = i64::try_from(rate).unwrap_or(i64::MAX);
        let bytes = i128::from(self.bytes) + earned;
        self.bytes = i64::try_from(bytes).unwrap_or(i64::MAX).min(full);
        self.at_ns = now_ns;
        if self.bytes > 0 || rate == 0 {
            return None;
        }
        let missing = 1 - i128::from(self.bytes);
        let wait = (missing * i128::from(BURST_NS)).div_euclid(rate) + 1;
        Some(now_ns.saturating_add(i64::try_from(wait).unwrap_or(i64::MAX)))
    }

    /// Takes what a step used.
    pub fn spend(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time_whatever_the_steps_take() {
        let mut pace = Pace::new(1_000, 0);
        let (mut now, mut used) = (0, 0);
        for step in [10, 4_000, 1, 900, 2_500].into_iter().cycle().take(500) {
            if let Some(at) = pace.next_at(now) {
                assert!(at > now);
                now = at;
                assert_eq!(pace.next_at(now), None, "the announced time is enough");
            }
            pace.spend(step);
            used += step;
            // One second's burst, and one step beyond.
            let earned = 1_000 + now as u64 / 1_000_000;
            assert!(used <= earned + 4_000, "{used} bytes until {now} ns");
        }
    }

    #[test]
    fn time_without_work_is_not_saved_up() {
        let mut pace = Pace::new(1_000, 0);
        assert_eq!(pace.next_at(100 * BURST_NS), None);
        pace.spend(1_000);
        assert!(pace.next_at(100 * BURST_NS).is_some());
    }

    #[test]
    fn a_clock_that_goes_back_does_not_stop_it() {
        let mut pace = Pace::new(1_000, 5 * BURST_NS);
        pace.spend(1_500);
        let at = pace.next_at(0).expect("in debt");
        assert!(at <= BURST_NS);
        assert_eq!(pace.next_at(at), None);
    }
}
