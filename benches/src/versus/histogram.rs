//! Latencies in buckets of about 3 % width: recording is an addition, memory does not grow.

const SUB_BUCKET_BITS: u32 = 5;
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;
/// Up to 2^40 microseconds: twelve days.
const BUCKETS: usize = SUB_BUCKETS * 36;

/// Counts of latencies in microseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }
}

impl Histogram {
    /// Adds `times` messages of one latency.
    pub fn record_us(&mut self, latency_us: u64, times: u64) {
        self.counts[bucket(latency_us)] += times;
        self.total += times;
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// Latency that `percent` of the messages did not exceed; 0 when nothing was recorded.
    pub fn percentile_us(&self, percent: f64) -> u64 {
        let wanted = (self.total as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return upper_bound_us(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - SUB_BUCKET_BITS;
    let index = (shift as usize + 1) * SUB_BUCKETS + (value >> shift) as usize - SUB_BUCKETS;
    index.min(BUCKETS - 1)
}

fn upper_bound_us(index: usize) -> u64 {
    let (group, offset) = (index / SUB_BUCKETS, (index % SUB_BUCKETS) as u64);
    if group == 0 {
        return offset;
    }
    let shift = group - 1;
    ((SUB_BUCKETS as u64 + offset + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, bucket, upper_bound_us};

    #[test]
    fn every_value_lies_below_the_bound_of_its_bucket_by_at_most_four_percent() {
        for value in (0..5000).chain([1 << 20, (1 << 20) + 12_345, 999_999_999]) {
            let bound = upper_bound_us(bucket(value));
            assert!(
                bound >= value && bound <= value + value / 25 + 1,
                "{value} {bound}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_split_the_counts() {
        let mut histogram = Histogram::default();
        histogram.record_us(10, 98);
        histogram.record_us(20, 1);
        let mut other = Histogram::default();
        other.record_us(30, 1);
        histogram.merge(&other);
        assert_eq!(histogram.percentile_us(50.0), 10);
        assert_eq!(histogram.percentile_us(99.0), 20);
        assert_eq!(histogram.percentile_us(100.0), 30);
        assert_eq!(Histogram::default().percentile_us(50.0), 0);
    }
}
