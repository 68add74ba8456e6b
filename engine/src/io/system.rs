//! Wall clock and random bits of the operating system.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Clock, Entropy, disk};

/// The system's wall clock. It may step in either direction when an operator or NTP sets it.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    /// Saturates for a clock set before 1678 or after 2262.
    fn now_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos)
            }
        }
    }
}

/// The kernel's random number generator.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    ///
    /// If the kernel offers neither `getrandom` nor `/dev/urandom`: identities made without
    /// randomness could collide, and no fallback would be better than stopping.
    fn next_u64(&self) -> u64 {
        let mut buf = [0; 8];
        if let Err(error) = disk::fill_random(&mut buf) {
            panic!("the operating system has no random numbers: {error}");
        }
        u64::from_le_bytes(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_past_the_year_2020() {
        assert!(SystemClock.now_ns() > 1_577_836_800_000_000_000);
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(SystemEntropy.next_u64(), SystemEntropy.next_u64());
    }
}
