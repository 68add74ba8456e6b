//! Medians and the table.

use super::round::Figures;

/// All runs of one contender with one load.
pub struct Results {
    /// Name of the contender.
    pub name: String,
    /// One entry per round.
    pub rounds: Vec<Figures>,
    /// Syncs per thousand messages counted by strace, if asked for.
    pub traced_syncs: Option<f64>,
}

/// A line of the table: what, of a run, and how it is written.
struct Line {
    label: &'static str,
    value: fn(&Figures) -> Option<f64>,
    decimals: usize,
}

const LINES: [Line; 10] = [
    Line {
        label: "publish, msgs/s",
        value: |f| Some(f.publish_per_second),
        decimals: 0,
    },
    Line {
        label: "ack latency p50, us",
        value: |f| Some(f.ack_p50_us),
        decimals: 0,
    },
    Line {
        label: "ack latency p99, us",
        value: |f| Some(f.ack_p99_us),
        decimals: 0,
    },
    Line {
        label: "publish, server CPU s per 1M",
        value: |f| Some(f.publish_cpu_seconds),
        decimals: 2,
    },
    Line {
        label: "publish, load CPU s per 1M",
        value: |f| Some(f.load_cpu_seconds),
        decimals: 2,
    },
    Line {
        label: "consume + ack, msgs/s",
        value: |f| Some(f.consume_per_second),
        decimals: 0,
    },
    Line {
        label: "consume, server CPU s per 1M",
        value: |f| Some(f.consume_cpu_seconds),
        decimals: 2,
    },
    Line {
        label: "peak RSS, MiB",
        value: |f| Some(f.peak_rss_mib),
        decimals: 1,
    },
    Line {
        label: "disk bytes per payload byte",
        value: |f| Some(f.disk_per_payload),
        decimals: 2,
    },
    Line {
        label: "syncs per 1,000 (own counter)",
        value: |f| f.syncs_per_thousand,
        decimals: 2,
    },
];

/// Median of some numbers; none of none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// A table in Markdown: one column per contender, and the ratio of the first one to each other.
///
/// The ratio is the median over the rounds of the pairwise ratios: both sides of a pair ran right
/// after each other, so a slow phase of the machine hits both.
pub fn table(title: &str, results: &[Results]) -> String {
    let mut text = format!("\n### {title}\n\n| |");
    let Some((first, others)) = results.split_first() else {
        return text;
    };
    for result in results {
        text.push_str(&format!(" {} |", result.name));
    }
    for other in others {
        text.push_str(&format!(" {} / {} |", first.name, other.name));
    }
    text.push_str(&format!(
        "\n|---|{}\n",
        "---:|".repeat(results.len() + others.len())
    ));
    for line in &LINES {
        let values = |result: &Results| -> Vec<f64> {
            result.rounds.iter().filter_map(line.value).collect()
        };
        if results.iter().all(|result| values(result).is_empty()) {
            continue;
        }
        text.push_str(&format!("| {} |", line.label));
        for result in results {
            text.push_str(&cell(median(values(result)), line.decimals));
        }
        for other in others {
            let pairs = values(first).into_iter().zip(values(other));
            let ratios = pairs
                .filter(|(_, peer)| *peer > 0.0)
                .map(|(own, peer)| own / peer);
            text.push_str(&cell(median(ratios.collect()), 2));
        }
        text.push('\n');
    }
    if results.iter().any(|result| result.traced_syncs.is_some()) {
        text.push_str("| syncs per 1,000 (strace) |");
        for result in results {
            text.push_str(&cell(result.traced_syncs, 2));
        }
        for other in others {
            let ratio = first
                .traced_syncs
                .zip(other.traced_syncs)
                .map(|(own, peer)| own / peer);
            text.push_str(&cell(ratio.filter(|ratio| ratio.is_finite()), 4));
        }
        text.push('\n');
    }
    text
}

fn cell(value: Option<f64>, decimals: usize) -> String {
    match value {
        Some(value) => format!(" {value:.decimals$} |"),
        None => " - |".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, Results, median, table};

    fn results(name: &str, rates: &[f64]) -> Results {
        let rounds = rates.iter().map(|rate| Figures {
            publish_per_second: *rate,
            ..Figures::default()
        });
        Results {
            name: name.into(),
            rounds: rounds.collect(),
            traced_syncs: None,
        }
    }

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn the_ratio_is_the_median_of_pairs() {
        let text = table(
            "t",
            &[
                results("a", &[10.0, 20.0, 90.0]),
                results("b", &[10.0, 10.0, 10.0]),
            ],
        );
        assert!(
            text.contains("| publish, msgs/s | 20 | 10 | 2.00 |"),
            "{text}"
        );
        assert!(!text.contains("own counter"), "{text}");
    }
}
