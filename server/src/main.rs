//! The `riverlog` program.
fn main() {}
