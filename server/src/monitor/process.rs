//! Memory and processor time of this process, from `/proc`; zero where there is none.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks at the processor time: shorter ones would show noise.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Measures the share of processor time between requests.
#[derive(Default)]
pub(super) struct ProcessUsage {
    last: Mutex<Option<Sample>>,
}

#[derive(Clone, Copy)]
struct Sample {
    taken: Instant,
    cpu_ticks: u64,
    percent: f64,
}

impl ProcessUsage {
    /// Processor time used since the last sample, as percent of one core; since the start of the
    /// process at the first call.
    pub(super) fn cpu_percent(&self) -> f64 {
        let now = Instant::now();
        let Some((cpu_ticks, uptime)) = cpu_ticks_and_uptime() else {
            return 0.0;
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (ticks, elapsed) = match *last {
            Some(sample) => {
                let elapsed = now.duration_since(sample.taken);
                if elapsed < SAMPLE_INTERVAL {
                    return sample.percent;
                }
                (cpu_ticks.saturating_sub(sample.cpu_ticks), elapsed)
            }
            None => (cpu_ticks, uptime),
        };
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        let percent = (seconds / elapsed.as_secs_f64().max(0.01) * 1000.0).round() / 10.0;
        *last = Some(Sample {
            taken: now,
            cpu_ticks,
            percent,
        });
        percent
    }
}

/// User and system time, and the time since the process started.
fn cpu_ticks_and_uptime() -> Option<(u64, Duration)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold anything, but the last parenthesis closes it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let started = field(22)? as f64 / rustix::param::clock_ticks_per_second() as f64;
    let up = std::fs::read_to_string("/proc/uptime").ok()?;
    let machine_up: f64 = up.split_whitespace().next()?.parse().ok()?;
    let uptime = Duration::try_from_secs_f64(machine_up - started).unwrap_or_default();
    Some((field(14)? + field(15)?, uptime))
}

/// Resident memory.
pub(super) fn memory_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        assert!(memory_bytes() > 100_000);
        assert!(cpu_ticks_and_uptime().is_some());
        let usage = ProcessUsage::default();
        let first = usage.cpu_percent();
        assert!(first >= 0.0);
        assert_eq!(first, usage.cpu_percent(), "not sampled again at once");
    }
}
