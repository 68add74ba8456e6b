//! How much data each scenario takes.

use clap::Args;

/// Sizes; what is not given is the size that the gates are written for, or a small one with
/// `--quick`.
#[derive(Clone, Debug, Default, Args)]
pub struct Sizes {
    /// Small sizes: shows that everything works, in about a minute.
    #[arg(long)]
    pub quick: bool,
    /// subjects: distinct subjects.
    #[arg(long)]
    subjects: Option<u64>,
    /// commit: messages in each round of the pipelined stream.
    #[arg(long)]
    commit_messages: Option<u64>,
    /// filtered: messages.
    #[arg(long)]
    messages: Option<u64>,
    /// reopen: subjects, one message of about 1 KB each.
    #[arg(long)]
    reopen_subjects: Option<u64>,
    /// overwrite: keys of about 1 KB.
    #[arg(long)]
    keys: Option<u64>,
    /// overwrite: bytes to write.
    #[arg(long)]
    overwrite_bytes: Option<u64>,
    /// sparse: sequences, of which one in 1,000 stays.
    #[arg(long)]
    sequences: Option<u64>,
    /// dedup: message ids in the window.
    #[arg(long)]
    ids: Option<u64>,
    /// consumers: durable consumers.
    #[arg(long)]
    consumers: Option<u64>,
    /// streams: streams.
    #[arg(long)]
    streams: Option<u64>,
}

impl Sizes {
    fn pick(&self, given: Option<u64>, full: u64, quick: u64) -> u64 {
        given.unwrap_or(if self.quick { quick } else { full })
    }

    /// Distinct subjects.
    pub fn subjects(&self) -> u64 {
        self.pick(self.subjects, 10_000_000, 500_000)
    }

    /// Messages per round of the pipelined stream.
    pub fn commit_messages(&self) -> u64 {
        self.pick(self.commit_messages, 2_000_000, 300_000)
    }

    /// Messages of the filtered reads.
    pub fn messages(&self) -> u64 {
        self.pick(self.messages, 10_000_000, 1_000_000)
    }

    /// Subjects of the reopened store.
    pub fn reopen_subjects(&self) -> u64 {
        self.pick(self.reopen_subjects, 10_000_000, 300_000)
    }

    /// Keys that are overwritten.
    pub fn keys(&self) -> u64 {
        self.pick(self.keys, 1_000_000, 100_000)
    }

    /// Bytes that overwriting writes.
    pub fn overwrite_bytes(&self) -> u64 {
        self.pick(self.overwrite_bytes, 10_000_000_000, 1_000_000_000)
    }

    /// Sequences of the sparse stream.
    pub fn sequences(&self) -> u64 {
        self.pick(self.sequences, 100_000_000, 3_000_000)
    }

    /// Message ids.
    pub fn ids(&self) -> u64 {
        self.pick(self.ids, 10_000_000, 500_000)
    }

    /// Consumers.
    pub fn consumers(&self) -> u64 {
        self.pick(self.consumers, 100_000, 5_000)
    }

    /// Streams.
    pub fn streams(&self) -> u64 {
        self.pick(self.streams, 100_000, 5_000)
    }
}
