//! One row per figure, one column per contender.

use std::fmt::Write;

use super::contender::Rival;
use crate::measure::figure::{Figure, number};
use crate::versus::report::median;

/// What everybody measured, in all rounds.
#[derive(Default)]
pub struct Results {
    figures: Vec<(&'static str, Figure)>,
}

impl Results {
    /// Adds a figure of a contender.
    pub fn add(&mut self, rival: &'static str, figure: Figure) {
        self.figures.push((rival, figure));
    }

    /// The table: medians over the rounds, and a dash where a contender has no figure.
    pub fn table(&self, rivals: &[&Rival]) -> String {
        let mut text = String::from("| |");
        for rival in rivals {
            let _ = write!(text, " {} |", rival.name);
        }
        let _ = writeln!(text, "\n|---|{}", "---:|".repeat(rivals.len()));
        let mut rows: Vec<(&str, &str)> = Vec::new();
        for (_, figure) in &self.figures {
            let row = (figure.name.as_str(), figure.unit.as_str());
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        for (name, unit) in rows {
            let comma = if unit.is_empty() { "" } else { ", " };
            let _ = write!(text, "| {name}{comma}{unit} |");
            for rival in rivals {
                let values = self.figures.iter().filter(|(of, figure)| {
                    *of == rival.name && figure.name == name && figure.unit == unit
                });
                match median(values.map(|(_, figure)| figure.value).collect()) {
                    Some(value) => {
                        let _ = write!(text, " {} |", number(value));
                    }
                    None => text.push_str(" - |"),
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Results;
    use crate::measure::figure::Figure;
    use crate::rivals::RIVALS;

    #[test]
    fn a_contender_without_a_figure_has_a_dash() {
        let mut results = Results::default();
        for value in [1.0, 9.0, 2.0] {
            let figure = Figure {
                name: "reopen".into(),
                value,
                unit: "ms".into(),
                gate: None,
            };
            results.add("fjall", figure);
        }
        let rivals: Vec<_> = RIVALS.iter().take(2).collect();
        let table = results.table(&rivals);
        assert_eq!(
            table,
            "| | riverlog | fjall |\n|---|---:|---:|\n| reopen, ms | - | 2.00 |\n"
        );
    }
}
