//! Reproducible numbers that look random.

/// A bijection of 64-bit numbers (splitmix64): different inputs give different outputs.
pub fn scramble(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sequence of numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(1);
        scramble(self.state) % bound
    }

    /// Fills `bytes` with numbers that no compression shrinks.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.state = self.state.wrapping_add(1);
            chunk.copy_from_slice(&scramble(self.state).to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, scramble};

    #[test]
    fn different_inputs_differ_and_bounds_hold() {
        let seen: std::collections::HashSet<u64> = (0..10_000).map(scramble).collect();
        assert_eq!(seen.len(), 10_000);
        let mut random = Random::new(7);
        assert!((0..1000).all(|_| random.below(10) < 10));
        let (mut one, mut two) = ([0u8; 13], [0u8; 13]);
        Random::new(1).fill(&mut one);
        Random::new(1).fill(&mut two);
        assert_eq!(one, two);
        assert!(one.iter().any(|byte| *byte != 0));
    }
}
