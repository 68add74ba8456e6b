//! Digest of a configuration (CONF-022, MON-018): SHA-256 over its canonical JSON, so that
//! comments, layout and the order of keys do not change it, and operators can compare servers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::value::{Map, Value, ValueKind};

/// `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn digest(map: &Map) -> String {
    let mut json = String::new();
    write_map(map, &mut json);
    json.push('\n');
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(json.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn write_map(map: &Map, json: &mut String) {
    let sorted: BTreeMap<&str, &Value> = map
        .iter()
        .map(|entry| (entry.key.as_str(), &entry.value))
        .collect();
    json.push('{');
    for (i, (key, value)) in sorted.into_iter().enumerate() {
        if i > 0 {
            json.push(',');
        }
        write_string(key, json);
        json.push(':');
        write_value(value, json);
    }
    json.push('}');
}

fn write_value(value: &Value, json: &mut String) {
    match &value.kind {
        ValueKind::Bool(value) => json.push_str(if *value { "true" } else { "false" }),
        ValueKind::Int(value) => {
            let _ = write!(json, "{value}");
        }
        ValueKind::Float(value) => {
            let _ = write!(json, "{value}");
        }
        ValueKind::String(text) => write_string(text, json),
        ValueKind::Array(values) => {
            json.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    json.push(',');
                }
                write_value(value, json);
            }
            json.push(']');
        }
        ValueKind::Map(map) => write_map(map, json),
    }
}

/// A JSON string with the characters that are special in HTML escaped too, which is the canonical
/// form of the reference server.
fn write_string(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}
