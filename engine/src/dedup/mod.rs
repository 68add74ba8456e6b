//! Message ids, and for how long each is known.
//!
//! An id is independent of the message that carried it: it outlives deletion, purge, acknowledgement
//! and restart until its stream's window has passed. Ids admitted since the last checkpoint are in
//! RAM ([`recent`]) and, with their messages, in the log. A checkpoint writes those of all its streams
//! into one immutable file ([`file`]); files are merged, which drops what has expired ([`merge`]), and
//! removed when nothing in them can be asked for any more. Of each file a filter of 1.5 bytes an id
//! stays in RAM: a new id costs no read, a duplicate a page or two.
//!
//! Ids cannot be derived from anything else (I9). Where a page is damaged, an id that its file's
//! filter does not exclude is refused with an error: taking it for new could store a second message,
//! taking it for a duplicate could lose the first. What the filter excludes is not affected, and the
//! refusals end with the window.

pub(crate) mod file;
pub(crate) mod files;
pub(crate) mod hash;
pub(crate) mod merge;
pub(crate) mod recent;
#[cfg(test)]
mod tests;
pub(crate) mod window;
pub(crate) mod writer;

pub(crate) use file::{IdFile, IdManifest};
pub(crate) use files::{IdAnswer, IdFiles};
pub(crate) use hash::{IdHash, IdKey};
pub(crate) use recent::{FrozenIds, RecentIds};
pub(crate) use window::{IdFloor, IdWindow};
