//! What is known about a subject below the active tail.

use std::collections::VecDeque;

/// Knowledge about one subject's sealed and frozen messages, loaded outside the stream's lock and
/// kept until the layout changes. Sequences may have been removed since: liveness is checked at use.
#[derive(Clone, Debug)]
pub(crate) enum Prior {
    /// The newest live sequence and its accounted size, `None` when there is none.
    Last(Option<(u64, u32)>),
    /// All live sequences, ascending, with their accounted sizes.
    All {
        /// The sequences.
        seqs: VecDeque<(u64, u32)>,
        /// Removal epoch of the stream at which `seqs` was exact.
        exact_at: u64,
    },
}
