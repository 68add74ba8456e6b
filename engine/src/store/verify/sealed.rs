//! Checks a sealed data file and its index run, and compares them with each other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringTreemap;

use crate::cache::Cache;
use crate::error::{Corrupt, ReadError};
use crate::ids::{Seq, StreamId};
use crate::index::{PostingsSum, Run, RunCheck, RunError, RunIdentity};
use crate::io::Env;
use crate::message::Message;
use crate::segment::{Segment, SegmentCheck};
use crate::stream::file_index::accounted_size;

/// What a sealed file holds of a stream.
#[derive(Debug, Default)]
pub(in crate::store) struct Holding {
    /// Sequences of readable messages.
    pub seqs: RoaringTreemap,
    sum: PostingsSum,
}

/// A sealed file, read from end to end.
#[derive(Debug, Default)]
pub(in crate::store) struct Contents {
    pub streams: BTreeMap<StreamId, Holding>,
    pub check: SegmentCheck,
    nothing: RoaringTreemap,
}

impl Contents {
    /// Reads and checks all of a segment; `visit` sees every readable message.
    pub fn read(
        segment: &Segment,
        visit: &mut dyn FnMut(StreamId, &Message),
    ) -> Result<Contents, ReadError> {
        let mut contents = Contents::default();
        while !contents.step(segment, visit)? {}
        Ok(contents)
    }

    /// Reads and checks the next part; true when everything was.
    pub fn step(
        &mut self,
        segment: &Segment,
        visit: &mut dyn FnMut(StreamId, &Message),
    ) -> Result<bool, ReadError> {
        let streams = &mut self.streams;
        self.check.step(segment, &mut |block| {
            let holding = streams.entry(block.stream()).or_default();
            for message in block.iter() {
                holding.seqs.insert(message.seq.0);
                let size = accounted_size(&message);
                holding.sum.add(message.subject(), message.seq, size);
                visit(block.stream(), &message);
            }
        })
    }

    /// Sequences of a stream whose messages are readable.
    pub fn seqs(&self, stream: StreamId) -> &RoaringTreemap {
        let holding = self.streams.get(&stream);
        holding.map_or(&self.nothing, |holding| &holding.seqs)
    }

    /// Why a message that should be in the file is not readable.
    pub fn reason(&self, segment: &Segment, stream: StreamId, seq: u64) -> Corrupt {
        let covers = |lost: &&Corrupt| {
            (lost.stream == stream || lost.stream == StreamId(0))
                && lost.first.0 <= seq
                && seq <= lost.last.0
        };
        let report = &self.check.report;
        let known = report.lost.iter().chain(&report.unreadable).find(covers);
        known.cloned().unwrap_or_else(|| Corrupt {
            stream,
            first: Seq(seq),
            last: Seq(seq),
            file: segment.path().to_path_buf(),
            offset: 0,
            reason: "no block of the file holds this sequence".into(),
        })
    }
}

/// Damage of an index run: offset, where it has one, and what was found.
pub(in crate::store) type RunDamage = Vec<(Option<u64>, String)>;

/// Checks every page of the index run at `path` and that it holds exactly what its segment holds.
/// The first value is the number of bytes read.
pub(in crate::store) fn check_run(
    env: &Env,
    path: &Path,
    store_uuid: u128,
    segment: &Segment,
    contents: &Contents,
) -> Result<(u64, RunDamage), RunError> {
    let source = RunIdentity::OfSegment(*segment.manifest());
    let mut check = RunCheck::default();
    while !check.step(env, path, store_uuid, &source)? {}
    if check.missing {
        return Ok((0, vec![(None, "the index run is missing".into())]));
    }
    let mut damage: RunDamage = Vec::new();
    damage.extend(check.damage.into_iter().map(|(at, what)| (Some(at), what)));
    if damage.is_empty()
        && let Some(what) = compare(env, path, store_uuid, segment, contents)?
    {
        damage.push((None, what));
    }
    Ok((check.bytes, damage))
}

fn compare(
    env: &Env,
    path: &Path,
    store_uuid: u128,
    segment: &Segment,
    contents: &Contents,
) -> Result<Option<String>, RunError> {
    let cache = Arc::new(Cache::new(1 << 20, 2));
    let wanted = RunIdentity::OfSegment(*segment.manifest());
    let run = match Run::open(env, path, store_uuid, &wanted, cache) {
        Ok(run) => run,
        Err(error @ RunError::Io { .. }) => return Err(error),
        Err(error) => return Ok(Some(error.to_string())),
    };
    if run.is_partial() {
        let what = "the index run was made while messages of its segment were unreadable";
        return Ok(Some(what.into()));
    }
    if !contents.check.report.lost.is_empty() || !contents.check.report.unreadable.is_empty() {
        // It knows more than can be read now.
        return Ok(None);
    }
    let mut count = 0;
    for (stream, holding) in &contents.streams {
        let sum = match PostingsSum::of_run(&run, *stream) {
            Ok(sum) => sum,
            Err(error @ RunError::Io { .. }) => return Err(error),
            Err(error) => return Ok(Some(error.to_string())),
        };
        if sum != holding.sum {
            let what = format!("the index run disagrees with its segment about stream {stream}");
            return Ok(Some(what));
        }
        count += sum.count();
    }
    let surplus = run.postings_count() != count;
    Ok(surplus.then(|| {
        let named = run.postings_count();
        format!("the index run names {named} messages, its segment holds {count}")
    }))
}
