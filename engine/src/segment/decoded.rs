//! Blocks in memory: checked once when they are read, then served without copying.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::format::FormatError;
use crate::format::block::{
    self, BlockBuilder, BlockHead, Codec, HEAD_BYTES, RESTART_INTERVAL, RecordSpan, Restarts,
    unpack,
};
use crate::format::cipher::Opener;
use crate::ids::{Seq, StreamId, TimestampNs};
use crate::message::{BodyLayout, Message, MessageTimers};

/// Some consecutive messages of a stream. Every record was checked against its own checksum.
///
/// Messages are slices of the block's one buffer; a message that is kept keeps the buffer.
#[derive(Debug)]
pub struct DecodedBlock {
    stream: StreamId,
    first: (Seq, TimestampNs),
    last_seq: Seq,
    count: u32,
    raw: Bytes,
    restarts: Restarts,
}

impl DecodedBlock {
    /// Checks the structure and every record of raw block bytes.
    fn check(head: &BlockHead, raw: Bytes) -> Result<DecodedBlock, FormatError> {
        let restarts = Restarts::find(&raw, head.count)?;
        let block = DecodedBlock {
            stream: head.stream,
            first: (head.first_seq, head.first_ts),
            last_seq: head.last_seq,
            count: head.count,
            raw,
            restarts,
        };
        let records = block.records();
        let mut walk = block.walk(0);
        let mut last = None;
        for index in 0..head.count {
            if index % RESTART_INTERVAL == 0 {
                let restart = restarts.get(&block.raw, (index / RESTART_INTERVAL) as usize);
                if restart != Some(walk.at) {
                    return Err(FormatError::OutOfRange {
                        what: "record offset",
                    });
                }
            }
            let span = walk.step(records, block.first)?;
            let record = span.record(records).ok_or(FormatError::Truncated)?;
            record.verify(head.stream)?;
            let ascends = last.is_none_or(|last| last < span.seq);
            if !ascends || (index == 0 && span.seq != head.first_seq) {
                return Err(FormatError::OutOfRange {
                    what: "record sequence",
                });
            }
            last = Some(span.seq);
        }
        if last != Some(head.last_seq) || walk.at != restarts.at {
            return Err(FormatError::OutOfRange {
                what: "end of the records",
            });
        }
        Ok(block)
    }

    fn records(&self) -> &[u8] {
        &self.raw[..self.restarts.at]
    }

    fn walk(&self, restart: usize) -> Walk {
        Walk {
            at: self.restarts.get(&self.raw, restart).unwrap_or(usize::MAX),
            index: restart as u32 * RESTART_INTERVAL,
            from: self.first,
        }
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// First sequence; it is present.
    pub fn first_seq(&self) -> Seq {
        self.first.0
    }

    /// Last sequence; it is present.
    pub fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// Number of messages.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of memory the block holds.
    pub fn ram_bytes(&self) -> u64 {
        (self.raw.len() + HEAD_BYTES + size_of::<DecodedBlock>()) as u64
    }

    /// The message with this sequence, if the block has it.
    pub fn get(&self, seq: Seq) -> Option<Message> {
        let message = self.iter_from(seq).next()?;
        (message.seq == seq).then_some(message)
    }

    /// All messages, ascending.
    pub fn iter(&self) -> Messages<'_> {
        Messages {
            block: self,
            walk: self.walk(0),
        }
    }

    /// The messages at or after `seq`, ascending.
    pub fn iter_from(&self, seq: Seq) -> Messages<'_> {
        Messages {
            block: self,
            walk: self.walk_to(seq),
        }
    }

    /// The position before the first record at or after `seq`.
    fn walk_to(&self, seq: Seq) -> Walk {
        // The last place to start whose record is not behind `seq`; the first one otherwise.
        let (mut low, mut high) = (0, self.restarts.count);
        if self.is_dense() {
            let index = seq.0.saturating_sub(self.first.0.0) / u64::from(RESTART_INTERVAL);
            low = usize::try_from(index).unwrap_or(usize::MAX).min(high - 1);
            high = low + 1;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.walk(middle).step(self.records(), self.first) {
                Ok(span) if span.seq <= seq => low = middle,
                _ => high = middle,
            }
        }
        let mut walk = self.walk(low);
        loop {
            let before = walk;
            match walk.step(self.records(), self.first) {
                Ok(span) if span.seq < seq && walk.index < self.count => {}
                Ok(span) if span.seq < seq => return walk,
                _ => return before,
            }
        }
    }

    /// True if no sequence between the first and the last is missing: then a sequence tells its
    /// position.
    fn is_dense(&self) -> bool {
        self.last_seq.0 - self.first.0.0 == u64::from(self.count) - 1
    }

    /// The subject of a record of this block.
    pub(crate) fn subject(&self, span: &RecordSpan) -> &[u8] {
        let body = self.raw.get(span.body.clone()).unwrap_or_default();
        body.get(..span.subject_len as usize).unwrap_or_default()
    }

    /// A record of this block as a message.
    pub(crate) fn message(&self, span: &RecordSpan) -> Option<Message> {
        Message::from_body(
            span.seq,
            span.ts,
            MessageTimers {
                flags: span.flags,
                ttl_ns: span.ttl_ns,
                notify_at: span.notify_at,
            },
            span.crc,
            BodyLayout {
                subject: span.subject_len,
                headers: span.headers_len,
                payload: span.payload_len,
            },
            self.raw.slice(span.body.clone()),
        )
    }
}

/// A position between two records.
#[derive(Clone, Copy, Debug)]
struct Walk {
    at: usize,
    index: u32,
    from: (Seq, TimestampNs),
}

impl Walk {
    /// Parses the record at the position and moves behind it.
    fn step(
        &mut self,
        records: &[u8],
        block_first: (Seq, TimestampNs),
    ) -> Result<RecordSpan, FormatError> {
        if self.index.is_multiple_of(RESTART_INTERVAL) {
            self.from = block_first;
        }
        let span = RecordSpan::parse(records, self.at, self.from)?;
        self.at = span.body.end;
        self.index += 1;
        self.from = (span.seq, span.ts);
        Ok(span)
    }
}

/// The messages of a block, ascending.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    block: &'a DecodedBlock,
    walk: Walk,
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        if self.walk.index >= self.block.count {
            return None;
        }
        let span = self
            .walk
            .step(self.block.records(), self.block.first)
            .ok()?;
        self.block.message(&span)
    }
}

/// A place in a block for a reader that comes back for messages further on.
#[derive(Clone, Debug)]
pub(crate) struct BlockCursor {
    block: Arc<DecodedBlock>,
    spot: Spot,
}

/// As [`BlockCursor`], but does not keep the block in memory.
#[derive(Clone, Debug)]
pub(crate) struct WeakCursor {
    block: Weak<DecodedBlock>,
    spot: Spot,
}

#[derive(Clone, Copy, Debug)]
struct Spot {
    walk: Walk,
    /// Every record before it lies before the position.
    next: Seq,
}

impl Spot {
    fn before(block: &DecodedBlock, seq: Seq) -> Spot {
        Spot {
            walk: block.walk_to(seq),
            next: seq,
        }
    }
}

impl BlockCursor {
    pub fn new(block: Arc<DecodedBlock>) -> BlockCursor {
        let (walk, next) = (block.walk(0), block.first_seq());
        BlockCursor {
            block,
            spot: Spot { walk, next },
        }
    }

    pub fn block(&self) -> &DecodedBlock {
        &self.block
    }

    /// True if `seq` lies between the block's first and last message.
    pub fn covers(&self, seq: Seq) -> bool {
        self.block.first_seq() <= seq && seq <= self.block.last_seq()
    }

    /// The record with this sequence, if the block has it. The one behind the last answer costs one
    /// step.
    pub fn find(&mut self, seq: Seq) -> Option<RecordSpan> {
        let block = &*self.block;
        let spot = &mut self.spot;
        if seq < spot.next {
            *spot = Spot::before(block, seq);
        }
        let mut steps = 0;
        while spot.walk.index < block.count {
            let before = spot.walk;
            let span = spot.walk.step(block.records(), block.first).ok()?;
            if span.seq > seq {
                spot.walk = before;
                spot.next = seq;
                return None;
            }
            spot.next = span.seq.next();
            if span.seq == seq {
                return Some(span);
            }
            steps += 1;
            if steps == RESTART_INTERVAL {
                *spot = Spot::before(block, seq);
            }
        }
        None
    }

    pub fn downgrade(&self) -> WeakCursor {
        WeakCursor {
            block: Arc::downgrade(&self.block),
            spot: self.spot,
        }
    }
}

impl WeakCursor {
    /// The place, if somebody else still has the block.
    pub fn upgrade(&self) -> Option<BlockCursor> {
        Some(BlockCursor {
            block: self.block.upgrade()?,
            spot: self.spot,
        })
    }
}

/// One part of a block's sequences.
#[derive(Clone, Debug)]
pub enum Stretch {
    /// Readable messages.
    Good(Arc<DecodedBlock>),
    /// Sequences that cannot be answered.
    Lost {
        /// First sequence.
        first: Seq,
        /// Last sequence.
        last: Seq,
        /// What was wrong with the bytes.
        reason: FormatError,
    },
}

impl Stretch {
    /// Last sequence of the part.
    pub fn last_seq(&self) -> Seq {
        match self {
            Stretch::Good(block) => block.last_seq(),
            Stretch::Lost { last, .. } => *last,
        }
    }
}

/// A block as read from disk: as a rule one readable stretch, where bytes are damaged several.
#[derive(Clone, Debug)]
pub struct LoadedBlock(Parts);

#[derive(Clone, Debug)]
enum Parts {
    Intact(Arc<DecodedBlock>),
    Damaged(Arc<[Stretch]>, FormatError),
}

impl LoadedBlock {
    /// Checks and decodes a block read at `offset`; `block` is its head and what follows it.
    ///
    /// Damage in a block that is stored as it is costs only the records it hit: their own
    /// checksums tell which. Damaged compressed or encrypted bytes are never unpacked and cost the
    /// block.
    pub fn decode(
        opener: &Opener,
        offset: u64,
        head: &BlockHead,
        mut block: Vec<u8>,
    ) -> LoadedBlock {
        let behind_head = HEAD_BYTES.min(block.len());
        let opened = block::open(opener, offset, head, &mut block[behind_head..]);
        let disk = Bytes::from(block).slice(behind_head..);
        let unpacked = opened.and_then(|len| {
            let stored = disk.slice(..len);
            Ok(unpack(head, &stored)?.map_or(stored, Bytes::from))
        });
        let (reason, raw) = match unpacked {
            Ok(raw) => match DecodedBlock::check(head, raw.clone()) {
                Ok(block) => return LoadedBlock(Parts::Intact(Arc::new(block))),
                Err(reason) => (reason, raw),
            },
            Err(reason) if head.codec == Codec::None && head.key == 0 => (reason, disk),
            Err(reason) => (reason, Bytes::new()),
        };
        let stretches = salvage(head, &raw, &reason);
        LoadedBlock(Parts::Damaged(stretches.into(), reason))
    }

    /// What is wrong with the stored bytes, also where no message is lost by it.
    pub fn damage(&self) -> Option<&FormatError> {
        match &self.0 {
            Parts::Intact(_) => None,
            Parts::Damaged(_, reason) => Some(reason),
        }
    }

    /// The stretch that holds `seq`, or else the first one behind it.
    pub fn stretch(&self, seq: Seq) -> Option<Stretch> {
        match &self.0 {
            Parts::Intact(block) if seq <= block.last_seq => Some(Stretch::Good(block.clone())),
            Parts::Intact(_) => None,
            Parts::Damaged(stretches, _) => {
                let at = stretches.partition_point(|stretch| stretch.last_seq() < seq);
                stretches.get(at).cloned()
            }
        }
    }

    /// All stretches, ascending.
    pub fn stretches(&self) -> Vec<Stretch> {
        match &self.0 {
            Parts::Intact(block) => vec![Stretch::Good(block.clone())],
            Parts::Damaged(stretches, _) => stretches.to_vec(),
        }
    }

    /// Bytes of memory the block holds.
    pub fn ram_bytes(&self) -> u64 {
        match &self.0 {
            Parts::Intact(block) => block.ram_bytes(),
            Parts::Damaged(stretches, _) => stretches
                .iter()
                .map(|stretch| match stretch {
                    Stretch::Good(block) => block.ram_bytes(),
                    Stretch::Lost { .. } => size_of::<Stretch>() as u64,
                })
                .sum(),
        }
    }
}

/// Divides the sequences of a damaged block into records whose own checksum holds, and the rest.
///
/// A record whose lengths are damaged hides those behind it, up to the next place where reading
/// can start.
fn salvage(head: &BlockHead, raw: &Bytes, reason: &FormatError) -> Vec<Stretch> {
    let mut out = Stretches {
        head,
        next: head.first_seq,
        builder: BlockBuilder::new(head.stream),
        reason,
        done: Vec::new(),
    };
    let Ok(restarts) = Restarts::find(raw, head.count) else {
        return out.finish();
    };
    let records = &raw[..restarts.at];
    let first = (head.first_seq, head.first_ts);
    // Where the next record starts, as long as the one before it is known to be good.
    let mut behind_good = Some(0);
    for group in 0..restarts.count {
        let Some(at) = behind_good.or_else(|| restarts.get(raw, group)) else {
            continue;
        };
        let mut walk = Walk {
            at,
            index: group as u32 * RESTART_INTERVAL,
            from: first,
        };
        let end = (walk.index + RESTART_INTERVAL).min(head.count);
        while walk.index < end {
            let Ok(span) = walk.step(records, first) else {
                behind_good = None;
                break;
            };
            let is_good = out.offer(&span, records, behind_good.is_some());
            behind_good = is_good.then_some(walk.at);
        }
    }
    out.finish()
}

/// Collects the stretches of a damaged block in ascending order.
struct Stretches<'a> {
    head: &'a BlockHead,
    /// First sequence that no stretch covers yet.
    next: Seq,
    builder: BlockBuilder,
    reason: &'a FormatError,
    done: Vec<Stretch>,
}

impl Stretches<'_> {
    /// Takes a record that may be damaged; `adjoins` says that nothing lies between it and the
    /// record taken last. True if the record is good.
    fn offer(&mut self, span: &RecordSpan, records: &[u8], adjoins: bool) -> bool {
        let Some(record) = span.record(records) else {
            return false;
        };
        let in_order = span.seq >= self.next && span.seq <= self.head.last_seq;
        if !in_order || record.verify(self.head.stream).is_err() {
            return false;
        }
        if !adjoins {
            self.close();
            self.lose_until(span.seq);
        }
        if self.builder.push(&record).is_err() {
            return false;
        }
        self.next = Seq(span.seq.0.saturating_add(1));
        true
    }

    fn lose_until(&mut self, next: Seq) {
        if next > self.next {
            self.done.push(Stretch::Lost {
                first: self.next,
                last: Seq(next.0 - 1),
                reason: self.reason.clone(),
            });
            self.next = next;
        }
    }

    /// Makes a block of the records since the last loss. They keep their checksums.
    fn close(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        let block = self.builder.finish(Codec::None);
        let raw = Bytes::copy_from_slice(&block.disk);
        let stretch = match DecodedBlock::check(&block.head, raw) {
            Ok(decoded) => Stretch::Good(Arc::new(decoded)),
            Err(reason) => Stretch::Lost {
                first: block.head.first_seq,
                last: block.head.last_seq,
                reason,
            },
        };
        self.done.push(stretch);
        self.builder.reset(self.head.stream);
    }

    fn finish(mut self) -> Vec<Stretch> {
        self.close();
        self.lose_until(Seq(self.head.last_seq.0.saturating_add(1)));
        self.done
    }
}
