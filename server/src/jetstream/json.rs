//! Reading of request bodies: JSON objects with a fixed set of fields, refused by name when
//! something does not fit (JSAPI-008, T-91).
//!
//! The texts of the errors are those clients already know from the protocol's reference server.
//! `null` leaves a field at its default; field names are compared without regard to ASCII case
//! when no exact one is present; of a repeated field the last one counts.

use std::collections::BTreeMap;

use riverlog_engine::ids::TimestampNs;
use serde_json::{Map, Value};

use super::time::parse_time;

/// Why a body cannot be read; the text goes into the description of `invalid JSON: {err}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError(pub String);

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonError {}

/// What to do with fields that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Refuse the body (the default of the server).
    Refuse,
    /// Ignore them: pull requests, direct gets, and everything with `jetstream { strict: false }`.
    Ignore,
}

/// Where a value stands, for messages.
#[derive(Clone, Debug)]
pub struct Place {
    root: &'static str,
    path: String,
    unknown: UnknownFields,
}

impl Place {
    fn child(&self, name: &str) -> Place {
        Place {
            root: self.root,
            path: format!("{}.{name}", self.path),
            unknown: self.unknown,
        }
    }

    fn mismatch(&self, value: &Value, wanted: &str) -> JsonError {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) if is_integer_type(wanted) => format!("number {n}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        if self.path.is_empty() {
            return JsonError(format!(
                "json: cannot unmarshal {found} into Go value of type server.{}",
                self.root
            ));
        }
        JsonError(format!(
            "json: cannot unmarshal {found} into Go struct field {}{} of type {wanted}",
            self.root, self.path
        ))
    }
}

fn is_integer_type(name: &str) -> bool {
    name.starts_with("int") || name.starts_with("uint") || name == "time.Duration"
}

/// A value that can be read from JSON.
pub trait FromJson: Sized {
    /// Reads `value`; `null` never gets here.
    fn from_json(value: Value, place: &Place) -> Result<Self, JsonError>;
}

/// The fields of one JSON object, taken one after the other.
pub struct Fields {
    map: Map<String, Value>,
    place: Place,
}

impl Fields {
    /// Parses a whole body. An empty body or `null` has no fields. `root` names the request type
    /// in messages.
    pub fn parse(
        body: &[u8],
        root: &'static str,
        unknown: UnknownFields,
    ) -> Result<Fields, JsonError> {
        let place = Place {
            root,
            path: String::new(),
            unknown,
        };
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Fields {
                map: Map::new(),
                place,
            });
        }
        let value: Value = serde_json::from_slice(body).map_err(|e| syntax_error(body, &e))?;
        Fields::of(value, place)
    }

    fn of(value: Value, place: Place) -> Result<Fields, JsonError> {
        match value {
            Value::Object(map) => Ok(Fields { map, place }),
            Value::Null => Ok(Fields {
                map: Map::new(),
                place,
            }),
            other => {
                let wanted = format!("server.{}", place.root);
                Err(place.mismatch(&other, &wanted))
            }
        }
    }

    /// Reads field `name` into `into` if it is present and not `null`.
    pub fn read<T: FromJson>(&mut self, name: &str, into: &mut T) -> Result<(), JsonError> {
        if let Some(value) = self.take(name) {
            *into = T::from_json(value, &self.place.child(name))?;
        }
        Ok(())
    }

    /// Reads field `name` if it is present and not `null`.
    pub fn optional<T: FromJson>(&mut self, name: &str) -> Result<Option<T>, JsonError> {
        match self.take(name) {
            Some(value) => T::from_json(value, &self.place.child(name)).map(Some),
            None => Ok(None),
        }
    }

    /// Takes a field; the exact name counts before other spellings of it.
    fn take(&mut self, name: &str) -> Option<Value> {
        let mut value = self.map.remove(name);
        let others = |key: &&String| key.eq_ignore_ascii_case(name);
        while let Some(key) = self.map.keys().find(others).cloned() {
            let other = self.map.remove(&key);
            value = value.or(other);
        }
        value.filter(|value| !value.is_null())
    }

    /// All known fields were read: what is left is unknown.
    pub fn finish(self) -> Result<(), JsonError> {
        match self.map.keys().next() {
            Some(name) if self.place.unknown == UnknownFields::Refuse => {
                Err(JsonError(format!("json: unknown field {name:?}")))
            }
            Some(name) => {
                tracing::debug!(field = %name, request = self.place.root, "unknown field ignored");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A JSON object with its own set of fields inside a request.
pub trait ObjectFromJson: Sized {
    /// Reads the known fields. The caller checks for unknown ones.
    fn read_fields(fields: &mut Fields) -> Result<Self, JsonError>;
}

impl<T: ObjectFromJson> FromJson for T {
    fn from_json(value: Value, place: &Place) -> Result<T, JsonError> {
        match value {
            Value::Object(map) => {
                let mut fields = Fields {
                    map,
                    place: place.clone(),
                };
                let object = T::read_fields(&mut fields)?;
                fields.finish()?;
                Ok(object)
            }
            other => Err(place.mismatch(&other, "object")),
        }
    }
}

/// Parses a body that is one object of type `T`.
pub fn parse_object<T: ObjectFromJson>(
    body: &[u8],
    root: &'static str,
    unknown: UnknownFields,
) -> Result<T, JsonError> {
    let mut fields = Fields::parse(body, root, unknown)?;
    let object = T::read_fields(&mut fields)?;
    fields.finish()?;
    Ok(object)
}

fn syntax_error(body: &[u8], error: &serde_json::Error) -> JsonError {
    if error.is_eof() {
        return JsonError("unexpected EOF".to_owned());
    }
    let offset = offset_of(body, error.line(), error.column());
    match offset.checked_sub(1).and_then(|at| body.get(at)) {
        Some(byte) => JsonError(format!(
            "invalid character {:?} looking for beginning of value at offset {offset}",
            char::from(*byte)
        )),
        None => JsonError("invalid character".to_owned()),
    }
}

fn offset_of(body: &[u8], line: usize, column: usize) -> usize {
    let before: usize = body
        .split(|b| *b == b'\n')
        .take(line.saturating_sub(1))
        .map(|l| l.len() + 1)
        .sum();
    before + column
}

macro_rules! scalar {
    ($type:ty, $name:literal, $value:ident => $read:expr) => {
        impl FromJson for $type {
            fn from_json($value: Value, place: &Place) -> Result<$type, JsonError> {
                let read: Option<$type> = $read;
                read.ok_or_else(|| place.mismatch(&$value, $name))
            }
        }
    };
}

scalar!(bool, "bool", value => value.as_bool());
scalar!(i64, "int64", value => value.as_i64());
scalar!(u64, "uint64", value => value.as_u64());
scalar!(i32, "int32", value => value.as_i64().and_then(|n| i32::try_from(n).ok()));
scalar!(String, "string", value => value.as_str().map(str::to_owned));

/// Nanoseconds as an integer.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct DurationNs(pub i64);

impl FromJson for DurationNs {
    fn from_json(value: Value, place: &Place) -> Result<DurationNs, JsonError> {
        value
            .as_i64()
            .map(DurationNs)
            .ok_or_else(|| place.mismatch(&value, "time.Duration"))
    }
}

impl FromJson for Option<TimestampNs> {
    /// `None` is the protocol's zero time.
    fn from_json(value: Value, place: &Place) -> Result<Option<TimestampNs>, JsonError> {
        let Some(text) = value.as_str() else {
            return Err(place.mismatch(&value, "time.Time"));
        };
        parse_time(text).ok_or_else(|| {
            JsonError(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            ))
        })
    }
}

impl<T: ListItem> FromJson for Vec<T> {
    fn from_json(value: Value, place: &Place) -> Result<Vec<T>, JsonError> {
        let Value::Array(items) = value else {
            return Err(place.mismatch(&value, T::LIST_NAME));
        };
        items
            .into_iter()
            .enumerate()
            .map(|(i, item)| T::from_json(item, &place.child(&i.to_string())))
            .collect()
    }
}

/// Types that occur in lists, with the name of the list type in messages.
pub trait ListItem: FromJson {
    /// Name of the list type in messages.
    const LIST_NAME: &'static str;
}

impl ListItem for String {
    const LIST_NAME: &'static str = "[]string";
}

impl ListItem for DurationNs {
    const LIST_NAME: &'static str = "[]time.Duration";
}

impl FromJson for BTreeMap<String, String> {
    fn from_json(value: Value, place: &Place) -> Result<Self, JsonError> {
        let Value::Object(map) = value else {
            return Err(place.mismatch(&value, "map[string]string"));
        };
        map.into_iter()
            .map(|(key, value)| {
                let text = match value {
                    Value::Null => String::new(),
                    other => String::from_json(other, &place.child(&key))?,
                };
                Ok((key, text))
            })
            .collect()
    }
}

/// The body of a request that takes none: empty, blanks, `null` or `{}` (JSAPI-010).
pub fn is_empty_body(body: &[u8]) -> bool {
    let text = body.trim_ascii();
    if text.is_empty() || text == b"null" {
        return true;
    }
    matches!(serde_json::from_slice::<Map<String, Value>>(text), Ok(map) if map.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq)]
    struct Sample {
        name: String,
        count: i64,
        size: i32,
        list: Vec<String>,
        on: bool,
        at: Option<TimestampNs>,
        wait: DurationNs,
    }

    impl ObjectFromJson for Sample {
        fn read_fields(fields: &mut Fields) -> Result<Sample, JsonError> {
            let mut s = Sample::default();
            fields.read("name", &mut s.name)?;
            fields.read("count", &mut s.count)?;
            fields.read("size", &mut s.size)?;
            fields.read("list", &mut s.list)?;
            fields.read("on", &mut s.on)?;
            fields.read("at", &mut s.at)?;
            fields.read("wait", &mut s.wait)?;
            Ok(s)
        }
    }

    fn parse(body: &str) -> Result<Sample, String> {
        parse_object(body.as_bytes(), "Sample", UnknownFields::Refuse).map_err(|e| e.0)
    }

    #[test]
    fn known_fields_are_read_and_null_is_the_default() {
        let s = parse(r#"{"name":"a","count":null,"SIZE":3,"list":["x"],"on":true}"#).unwrap();
        assert_eq!((s.name.as_str(), s.count, s.size, s.on), ("a", 0, 3, true));
        assert_eq!(parse("").unwrap(), Sample::default());
        assert_eq!(parse(" null ").unwrap(), Sample::default());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_known_text() {
        for (body, text) in [
            (r#"{"foo":1}"#, r#"json: unknown field "foo""#),
            (
                r#"{"name":5}"#,
                "json: cannot unmarshal number into Go struct field Sample.name of type string",
            ),
            (
                r#"{"count":1.5}"#,
                "json: cannot unmarshal number 1.5 into Go struct field Sample.count of type int64",
            ),
            (
                r#"{"count":"x"}"#,
                "json: cannot unmarshal string into Go struct field Sample.count of type int64",
            ),
            (
                r#"{"size":8589934592}"#,
                "json: cannot unmarshal number 8589934592 into Go struct field Sample.size of type int32",
            ),
            (
                r#"{"list":"x"}"#,
                "json: cannot unmarshal string into Go struct field Sample.list of type []string",
            ),
            (
                r#"{"wait":1.5}"#,
                "json: cannot unmarshal number 1.5 into Go struct field Sample.wait of type time.Duration",
            ),
            (r#"{"name":"#, "unexpected EOF"),
            (
                "[]",
                "json: cannot unmarshal array into Go value of type server.Sample",
            ),
            (
                "xx",
                "invalid character 'x' looking for beginning of value at offset 1",
            ),
            (
                r#"{"at":"bad"}"#,
                r#"parsing time "bad" as "2006-01-02T15:04:05Z07:00": cannot parse "bad" as "2006""#,
            ),
        ] {
            assert_eq!(parse(body).unwrap_err(), text, "{body}");
        }
    }

    #[test]
    fn unknown_fields_can_be_ignored() {
        let got: Sample =
            parse_object(br#"{"foo":1,"name":"a"}"#, "Sample", UnknownFields::Ignore).unwrap();
        assert_eq!(got.name, "a");
    }

    #[test]
    fn empty_bodies() {
        for body in ["", "  ", "{}", "null", " {  } "] {
            assert!(is_empty_body(body.as_bytes()), "{body:?}");
        }
        for body in ["x", "[]", "{\"a\":1}", "0"] {
            assert!(!is_empty_body(body.as_bytes()), "{body:?}");
        }
    }
}
