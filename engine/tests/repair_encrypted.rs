//! Repair of stores with a key: the same tests as in `repair.rs`.

#[path = "repair.rs"]
mod plain;
