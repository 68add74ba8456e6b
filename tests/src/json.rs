//! Comparison of JSON replies with expectations.

use serde_json::Value;

/// A string in an expectation that stands for any value, as long as one is there.
const ANY: &str = "<any>";
/// A string in an expectation that stands for an RFC 3339 time in UTC after the year 2000.
const TIME: &str = "<time>";

/// Checks that `actual` is exactly `expected`: same keys, same values. `"<any>"` in the expectation
/// stands for any value, `"<time>"` for a time stamp.
#[track_caller]
pub fn assert_json(actual: &Value, expected: &Value) {
    if let Err(reason) = compare(actual, expected, true, "$") {
        panic!("{reason}\n  got      {actual}\n  expected {expected}");
    }
}

/// Checks that `actual` has everything `expected` names; further keys of objects are allowed.
#[track_caller]
pub fn assert_json_has(actual: &Value, expected: &Value) {
    if let Err(reason) = compare(actual, expected, false, "$") {
        panic!("{reason}\n  got      {actual}\n  expected {expected}");
    }
}

fn compare(actual: &Value, expected: &Value, exact: bool, path: &str) -> Result<(), String> {
    match (actual, expected) {
        (_, Value::String(text)) if text == ANY => Ok(()),
        (Value::String(got), Value::String(text)) if text == TIME => {
            if got.starts_with("20") && got.ends_with('Z') && got.contains('T') {
                Ok(())
            } else {
                Err(format!("{path}: {got:?} is not a time"))
            }
        }
        (Value::Object(got), Value::Object(want)) => {
            for (key, value) in want {
                match got.get(key) {
                    Some(found) => compare(found, value, exact, &format!("{path}.{key}"))?,
                    None => return Err(format!("{path}.{key} is missing")),
                }
            }
            match got.keys().find(|key| exact && !want.contains_key(*key)) {
                Some(key) => Err(format!("{path}.{key} is not expected")),
                None => Ok(()),
            }
        }
        (Value::Array(got), Value::Array(want)) => {
            if got.len() != want.len() {
                return Err(format!(
                    "{path}: {} elements instead of {}",
                    got.len(),
                    want.len()
                ));
            }
            for (index, (found, value)) in got.iter().zip(want).enumerate() {
                compare(found, value, exact, &format!("{path}[{index}]"))?;
            }
            Ok(())
        }
        _ if actual == expected => Ok(()),
        _ => Err(format!("{path}: {actual} instead of {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::compare;
    use serde_json::json;

    #[test]
    fn exact_comparison_refuses_extra_missing_and_different_values() {
        let actual = json!({"a": 1, "b": {"c": [1, 2]}, "t": "2026-01-02T03:04:05Z"});
        let cases = [
            (
                json!({"a": 1, "b": {"c": [1, 2]}, "t": "<time>"}),
                true,
                true,
            ),
            (json!({"a": 1, "b": "<any>"}), true, false),
            (json!({"a": 1, "b": {"c": [1]}, "t": "<any>"}), true, false),
            (json!({"a": 2}), false, false),
            (json!({"a": 1, "z": "<any>"}), false, false),
            (json!({"b": {"c": [1, 3]}}), false, false),
            (json!({"a": "<time>"}), false, false),
        ];
        for (expected, exact, equal) in cases {
            assert_eq!(
                compare(&actual, &expected, exact, "$").is_ok(),
                equal,
                "{expected}"
            );
        }
    }
}
