//! One measured figure, the bound it must keep, and the table of all.

use std::fmt::Write;

use serde_json::{Value, json};

/// What a figure must keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// The figure may be this large.
    AtMost(f64),
    /// The figure must be this large.
    AtLeast(f64),
}

/// A measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// The bound, if there is one.
    pub gate: Option<Gate>,
}

impl Figure {
    /// Whether the bound is kept; `None` without one.
    pub fn passes(&self) -> Option<bool> {
        self.gate.map(|gate| match gate {
            Gate::AtMost(bound) => self.value <= bound,
            Gate::AtLeast(bound) => self.value >= bound,
        })
    }

    /// As a child process writes it.
    pub fn to_json(&self) -> String {
        let gate = match self.gate {
            None => Value::Null,
            Some(Gate::AtMost(bound)) => json!({ "at_most": bound }),
            Some(Gate::AtLeast(bound)) => json!({ "at_least": bound }),
        };
        json!({ "name": self.name, "value": self.value, "unit": self.unit, "gate": gate })
            .to_string()
    }

    /// Reads what [`Figure::to_json`] wrote.
    pub fn from_json(line: &str) -> Option<Figure> {
        let value: Value = serde_json::from_str(line).ok()?;
        let bound = |name: &str| value.get("gate")?.get(name)?.as_f64();
        let gate = bound("at_most")
            .map(Gate::AtMost)
            .or_else(|| bound("at_least").map(Gate::AtLeast));
        Some(Figure {
            name: value.get("name")?.as_str()?.to_string(),
            value: value.get("value")?.as_f64()?,
            unit: value.get("unit")?.as_str()?.to_string(),
            gate,
        })
    }

    /// The bound in words; empty without one.
    pub fn gate_text(&self) -> String {
        match self.gate {
            None => String::new(),
            Some(Gate::AtMost(bound)) => format!("<= {}", number(bound)),
            Some(Gate::AtLeast(bound)) => format!(">= {}", number(bound)),
        }
    }

    /// Whether the bound is kept, in words; empty without one.
    pub fn verdict(&self) -> &'static str {
        match self.passes() {
            None => "",
            Some(true) => "pass",
            Some(false) => "FAIL",
        }
    }

    /// The figure in one line.
    pub fn line(&self) -> String {
        let mut line = format!("{}: {} {}", self.name, number(self.value), self.unit);
        if self.gate.is_some() {
            let _ = write!(line, "  [{}] {}", self.gate_text(), self.verdict());
        }
        line
    }
}

/// A number with as many decimals as it needs, thousands apart.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if value == 0.0 || size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = match text.split_once('.') {
        Some((whole, rest)) => (whole, Some(rest)),
        None => (text.as_str(), None),
    };
    let (sign, digits) = whole
        .strip_prefix('-')
        .map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match rest {
        Some(rest) => format!("{grouped}.{rest}"),
        None => grouped,
    }
}

/// The table of some figures, each with the scenario it belongs to.
pub fn table(rows: &[(String, Figure)]) -> String {
    let mut text =
        String::from("| scenario | figure | value | gate | |\n|---|---|---:|---:|---|\n");
    for (scenario, figure) in rows {
        let _ = writeln!(
            text,
            "| {scenario} | {} | {} {} | {} | {} |",
            figure.name,
            number(figure.value),
            figure.unit,
            figure.gate_text(),
            figure.verdict()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Figure, Gate, number, table};

    fn figure(value: f64, gate: Option<Gate>) -> Figure {
        Figure {
            name: "open, after a kill".into(),
            value,
            unit: "s".into(),
            gate,
        }
    }

    #[test]
    fn bounds_are_inclusive_and_survive_the_way_through_a_pipe() {
        for (gate, passes) in [
            (None, None),
            (Some(Gate::AtMost(3.0)), Some(true)),
            (Some(Gate::AtMost(2.9)), Some(false)),
            (Some(Gate::AtLeast(3.0)), Some(true)),
            (Some(Gate::AtLeast(3.1)), Some(false)),
        ] {
            let figure = figure(3.0, gate);
            assert_eq!(figure.passes(), passes);
            assert_eq!(Figure::from_json(&figure.to_json()), Some(figure));
        }
        assert_eq!(Figure::from_json("{}"), None);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.05, "0.0500"),
            (0.5, "0.50"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_table_says_what_failed() {
        let row = ("reopen".to_string(), figure(4.0, Some(Gate::AtMost(3.0))));
        assert!(table(&[row]).contains("| 4.00 s | <= 3.00 | FAIL |"));
    }
}
