//! Backups of stores with a key: the same tests as in `backup.rs`.

#[path = "backup.rs"]
mod plain;
