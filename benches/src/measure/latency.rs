//! Times of single operations, in nanoseconds. Every one is kept, so that percentiles are exact.

use std::time::Instant;

/// Times of many runs of one operation.
#[derive(Debug, Default)]
pub struct Latencies {
    ns: Vec<u32>,
}

impl Latencies {
    /// Room for `count` times, taken at once so that recording allocates nothing.
    pub fn with_capacity(count: usize) -> Latencies {
        Latencies {
            ns: Vec::with_capacity(count),
        }
    }

    /// Runs `operation` and keeps its time. Times above four seconds count as four.
    pub fn time<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = operation();
        let ns = start.elapsed().as_nanos();
        self.ns.push(u32::try_from(ns).unwrap_or(u32::MAX));
        result
    }

    /// The times in nanoseconds that `percents` of the runs did not exceed; 0 when nothing ran.
    pub fn percentiles<const N: usize>(&mut self, percents: [f64; N]) -> [f64; N] {
        self.ns.sort_unstable();
        percents.map(|percent| {
            let rank = (self.ns.len() as f64 * percent / 100.0).ceil() as usize;
            let at = rank.max(1).min(self.ns.len());
            self.ns
                .get(at.wrapping_sub(1))
                .map_or(0.0, |ns| f64::from(*ns))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Latencies;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut latencies = Latencies {
            ns: (1..=100).rev().collect(),
        };
        assert_eq!(
            latencies.percentiles([50.0, 99.0, 100.0]),
            [50.0, 99.0, 100.0]
        );
        assert_eq!(Latencies::default().percentiles([50.0]), [0.0]);
        let mut one = Latencies::with_capacity(1);
        assert_eq!(one.time(|| 7), 7);
        assert_eq!(one.ns.len(), 1);
    }
}
