//! What `scale` and `rivals` share: figures and their gates, child processes, and what the operating
//! system knows about a process and its files.

pub mod child;
pub mod figure;
pub mod latency;
pub mod os;
pub mod random;
