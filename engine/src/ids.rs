//! Newtypes for numbers that must not be swapped.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// Position of a message in its stream. The first message of a stream is 1 unless configured
    /// otherwise; 0 means "none".
    Seq(u64)
}
number! {
    /// Position of an operation in the store's write-ahead log. Dense, starts at 1.
    Lsn(u64)
}
number! {
    /// Identity of a stream inside its store. Never reused, also not after deletion.
    StreamId(u64)
}
number! {
    /// Identity of a consumer inside its store. Never reused, also not after deletion.
    ConsumerId(u64)
}
number! {
    /// Identity of a sealed data file. Never reused.
    SegmentId(u64)
}
number! {
    /// Identity of a file of message ids. Never reused.
    IdFileId(u64)
}
number! {
    /// Nanoseconds since the Unix epoch, UTC.
    TimestampNs(i64)
}

impl TimestampNs {
    /// Later than anything that is ever due.
    pub const FAR: TimestampNs = TimestampNs(i64::MAX);
}

impl Seq {
    /// The sequence after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}
