//! The keys of every block: one table per block, which is the only list of what is accepted.
//! A key that is in no table is refused by name (CONF-004).

mod authorization;
mod jetstream;
mod read;
mod top;
mod unsupported;

use super::grammar::{Entry, Map, Value};
use super::options::ServerConfig;
use super::problems::{Problem, Problems};
use read::Reader;

/// A key of a block that fills a `T`.
struct Key<T: 'static> {
    /// The name used in messages and in the documentation, then its other spellings.
    names: &'static [&'static str],
    action: Action<T>,
}

enum Action<T: 'static> {
    /// Takes the value over.
    Set(fn(&mut T, &Value, &mut Reader<'_>)),
    /// Refused: the named feature does not exist here. Ends in "is" or "are" for the message.
    Unsupported(&'static str),
}

const fn set<T>(
    names: &'static [&'static str],
    action: fn(&mut T, &Value, &mut Reader<'_>),
) -> Key<T> {
    Key {
        names,
        action: Action::Set(action),
    }
}

const fn unsupported<T>(names: &'static [&'static str], feature: &'static str) -> Key<T> {
    Key {
        names,
        action: Action::Unsupported(feature),
    }
}

/// Applies all keys of `map` to `target`, noting every problem.
fn apply<T>(map: &Map, tables: &[&[Key<T>]], target: &mut T, problems: &mut Problems) {
    for entry in map.iter() {
        apply_entry(entry, tables, target, problems);
    }
}

fn apply_entry<T>(entry: &Entry, tables: &[&[Key<T>]], target: &mut T, problems: &mut Problems) {
    let lower = entry.key.to_ascii_lowercase();
    let found = tables
        .iter()
        .flat_map(|table| table.iter())
        .find(|key| key.names.contains(&&*lower));
    match found.map(|key| &key.action) {
        Some(Action::Set(action)) => {
            action(
                target,
                &entry.value,
                &mut Reader {
                    key: &entry.key,
                    problems,
                },
            );
        }
        Some(Action::Unsupported(feature)) => problems.0.push(Problem::UnsupportedKey {
            key: entry.key.clone(),
            feature,
            position: entry.position.clone(),
        }),
        // Any name may be used to define a variable.
        None if entry.is_variable => {}
        None => problems.0.push(Problem::UnknownKey {
            key: entry.key.clone(),
            position: entry.position.clone(),
        }),
    }
}

/// Fills `config` from the configuration file's content.
pub(super) fn apply_file(map: &Map, config: &mut ServerConfig, problems: &mut Problems) {
    apply(map, &[top::KEYS, unsupported::TOP_KEYS], config, problems);
}

/// The accepted keys: block name (empty for the top level) and all spellings of the key.
#[must_use]
pub fn accepted() -> Vec<(&'static str, &'static [&'static str])> {
    fn names<T>(
        block: &'static str,
        table: &'static [Key<T>],
    ) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
        let is_accepted = |key: &&Key<T>| matches!(key.action, Action::Set(_));
        table
            .iter()
            .filter(is_accepted)
            .map(move |key| (block, key.names))
    }
    names("", top::KEYS)
        .chain(names("authorization", authorization::KEYS))
        .chain(names("authorization.users", authorization::USER_KEYS))
        .chain(names("jetstream", jetstream::KEYS))
        .chain(names("jetstream.limits", jetstream::LIMITS_KEYS))
        .collect()
}
