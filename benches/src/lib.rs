//! Benchmarks of Riverlog.
//!
//! [`versus`] runs Riverlog and a peer side by side and compares them; the binary of the same name is
//! its command line. See `benches/README.md`.

pub mod versus;
