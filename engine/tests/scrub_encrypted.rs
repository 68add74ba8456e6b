//! The background check of stores with a key: the same tests as in `scrub.rs`.

#[path = "scrub.rs"]
mod plain;
