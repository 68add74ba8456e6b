//! What the operating system knows about a process and a directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{BenchError, BenchResult, Doing};

/// CPU time a process has used so far, user and system, in seconds.
pub fn cpu_seconds(pid: u32) -> BenchResult<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).doing("reading /proc/pid/stat")?;
    parse_cpu_ticks(&stat)
        .map(|ticks| ticks as f64 / ticks_per_second())
        .ok_or_else(|| BenchError::Failed(format!("unreadable /proc/{pid}/stat: {stat}")))
}

/// User and system ticks: fields 14 and 15, counted behind the command name, which may hold spaces.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Clock ticks of /proc per second. Linux fixed it at 100 for user space on all architectures.
fn ticks_per_second() -> f64 {
    100.0
}

/// Largest resident size a process ever had, in bytes.
pub fn peak_rss_bytes(pid: u32) -> BenchResult<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).doing("reading /proc/pid/status")?;
    let kib = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmHWM:")?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let missing = || BenchError::Failed(format!("no VmHWM in /proc/{pid}/status"));
    Ok(kib.ok_or_else(missing)? * 1024)
}

/// Bytes a directory occupies on disk, preallocated space included.
pub fn disk_bytes(dir: &Path) -> BenchResult<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).doing("reading the store directory")? {
        let entry = entry.doing("reading the store directory")?;
        // A file may disappear between the listing and this call.
        let Ok(meta) = entry.metadata() else { continue };
        total += if meta.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            meta.blocks() * 512
        };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::{cpu_seconds, disk_bytes, parse_cpu_ticks, peak_rss_bytes};

    #[test]
    fn the_command_name_may_hold_anything() {
        let stat = "42 (a b) c) R 1 2 3 4 5 6 7 8 9 10 700 21 0 0 20 0 1";
        assert_eq!(parse_cpu_ticks(stat), Some(721));
        assert_eq!(parse_cpu_ticks("42 (x) R 1"), None);
    }

    #[test]
    fn figures_of_this_process_and_a_directory_are_plausible() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).expect("own CPU time") >= 0.0);
        assert!(peak_rss_bytes(pid).expect("own memory") > 100_000);
        let dir = tempfile::tempdir().expect("directory");
        std::fs::create_dir(dir.path().join("sub")).expect("sub directory");
        std::fs::write(dir.path().join("sub/file"), [1; 10_000]).expect("file");
        assert!(disk_bytes(dir.path()).expect("size") >= 10_000);
    }
}
