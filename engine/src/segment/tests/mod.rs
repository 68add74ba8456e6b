//! Tests of sealed segments, by promise.

mod damage;
mod encryption;
mod faults;
pub mod memory;
mod reading;
mod timers;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Codec, SealedSegment, Segment, SegmentWriter};
use crate::cache::Cache;
use crate::format::key_ring::{Key, KeyRing};
use crate::format::record::{Record, flag};
use crate::ids::{SegmentId, Seq, StreamId, TimestampNs};
use crate::io::Env;
use crate::message::Message;
use memory::MemoryIo;

pub const UUID: u128 = 0x1234_5678_9abc;
pub const ID: SegmentId = SegmentId(7);

/// A message to be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub stream: StreamId,
    pub seq: Seq,
    pub ts: TimestampNs,
    pub flags: u8,
    pub subject: Vec<u8>,
    pub headers: Vec<u8>,
    pub payload: Vec<u8>,
    pub msg_id: Vec<u8>,
}

impl Sample {
    pub fn new(stream: u64, seq: u64) -> Sample {
        Sample {
            stream: StreamId(stream),
            seq: Seq(seq),
            ts: TimestampNs(1_000_000 * seq as i64),
            flags: 0,
            subject: format!("orders.{}", seq % 7).into_bytes(),
            headers: Vec::new(),
            payload: format!("payload of {seq} in {stream}").into_bytes(),
            msg_id: Vec::new(),
        }
    }

    pub fn record(&self) -> Record<'_> {
        let mut record = Record {
            seq: self.seq,
            ts: self.ts,
            subject: &self.subject,
            headers: &self.headers,
            payload: &self.payload,
            msg_id: &self.msg_id,
            flags: self.flags,
            ..Record::default()
        };
        if self.flags & flag::TTL != 0 {
            record.ttl_ns = self.seq.0 % 7 * 1_000;
        }
        if self.flags & flag::NOTIFY != 0 {
            record.notify_at = TimestampNs(self.seq.0 as i64 % 5 * 1_000);
        }
        record.crc = record.computed_crc(self.stream);
        record
    }

    #[track_caller]
    pub fn check(&self, found: &Message) {
        assert_eq!((found.seq, found.ts), (self.seq, self.ts));
        assert_eq!((found.flags, found.crc), (self.flags, self.record().crc));
        assert_eq!(found.as_record(), self.record());
        assert_eq!(found.subject(), self.subject);
        assert_eq!(found.headers(), self.headers);
        assert!(found.payload() == self.payload, "payload differs");
        assert_eq!(found.msg_id(), self.msg_id);
    }
}

/// How a segment is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub codec: Codec,
    pub encrypted: bool,
}

/// Every form.
pub const FORMS: [Form; 4] = [
    Form::plain(Codec::None),
    Form::encrypted(Codec::S2),
    Form::plain(Codec::S2),
    Form::encrypted(Codec::None),
];

impl Form {
    pub const fn plain(codec: Codec) -> Form {
        Form {
            codec,
            encrypted: false,
        }
    }

    pub const fn encrypted(codec: Codec) -> Form {
        Form {
            codec,
            encrypted: true,
        }
    }
}

/// The keys of encrypted segments.
pub fn keys() -> Arc<KeyRing> {
    Arc::new(KeyRing::new(Key::new(&[7; 32])))
}

/// A sealed segment in memory and what went into it.
pub struct Sealed {
    pub io: Arc<MemoryIo>,
    pub env: Env,
    pub path: PathBuf,
    pub sealed: SealedSegment,
    pub samples: Vec<Sample>,
}

impl Sealed {
    /// Seals samples, which must be grouped by stream.
    pub fn new(samples: Vec<Sample>, codec: Codec) -> Sealed {
        Sealed::of_form(samples, Form::plain(codec))
    }

    /// As [`Sealed::new`], in any form.
    pub fn of_form(samples: Vec<Sample>, form: Form) -> Sealed {
        let (io, mut env) = MemoryIo::env();
        env.keys = form.encrypted.then(keys);
        let path = Path::new("/seg").join("7.seg");
        let mut writer = SegmentWriter::new(&env, &path, UUID, ID).unwrap();
        let mut stream = None;
        for sample in &samples {
            if stream != Some(sample.stream) {
                writer.begin_extent(sample.stream, form.codec).unwrap();
                stream = Some(sample.stream);
            }
            writer.push(&sample.record()).unwrap();
        }
        let sealed = writer.finish().unwrap();
        Sealed {
            io,
            env,
            path,
            sealed,
            samples,
        }
    }

    /// Opens it with an empty cache.
    pub fn open(&self) -> Segment {
        self.open_with(Arc::new(Cache::new(1 << 20, 8)))
    }

    pub fn open_with(&self, cache: Arc<Cache>) -> Segment {
        Segment::open(&self.env, &self.path, UUID, self.sealed.manifest, cache)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.io.content(&self.path)
    }

    pub fn set_bytes(&self, bytes: Vec<u8>) {
        self.io.set(&self.path, bytes);
    }

    pub fn streams(&self) -> Vec<StreamId> {
        let mut streams: Vec<StreamId> = self.samples.iter().map(|s| s.stream).collect();
        streams.dedup();
        streams
    }
}
