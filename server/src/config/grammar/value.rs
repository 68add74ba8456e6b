//! Values of a configuration file, each with the place it was written at.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Where a key or value stands in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Path as given on the command line or in the `include`.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A value and the position of its first character.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// What was written.
    pub kind: ValueKind,
    /// Where it was written. For a value that came through a `$VARIABLE`: where the variable is
    /// referred to, because that is the line a user has to look at.
    pub position: Position,
}

impl Value {
    /// How many values this is, with everything inside.
    #[must_use]
    pub fn values_count(&self) -> usize {
        match &self.kind {
            ValueKind::Array(values) => 1 + values.iter().map(Self::values_count).sum::<usize>(),
            ValueKind::Map(map) => {
                1 + map
                    .iter()
                    .map(|entry| entry.value.values_count())
                    .sum::<usize>()
            }
            _ => 1,
        }
    }
}

/// The kinds of values of the configuration language.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueKind {
    /// `true`, `yes`, `on`, `false`, `no`, `off`, in any case, without quotes.
    Bool(bool),
    /// A whole number; a size suffix (`8KB`) is already multiplied in.
    Int(i64),
    /// A number with a decimal point.
    Float(f64),
    /// Quoted, bare, or `( block )` text.
    String(String),
    /// `[a, b]`
    Array(Vec<Value>),
    /// `{ key: value }`
    Map(Map),
}

impl ValueKind {
    /// The kind's name, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a decimal number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Map(_) => "a block",
        }
    }
}

/// Keys and values in the order they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<Entry>,
    /// Position in `entries` of every key.
    index: HashMap<String, usize>,
}

/// One key of a [`Map`].
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// Where the key is written.
    pub position: Position,
    /// The value.
    pub value: Value,
    /// A `$VARIABLE` referred to this key, so it may be a name the server does not know (CONF-004).
    pub is_variable: bool,
}

impl Map {
    /// Sets `entry.key`; a later definition replaces an earlier one.
    pub fn insert(&mut self, entry: Entry) {
        match self.index.get(&entry.key) {
            Some(&at) => self.entries[at] = entry,
            None => {
                self.index.insert(entry.key.clone(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// The entry with exactly this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|&at| &self.entries[at])
    }

    /// As [`Map::get`], to mark an entry as a variable.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.index.get(key).map(|&at| &mut self.entries[at])
    }

    /// The entries in the order they were written.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
