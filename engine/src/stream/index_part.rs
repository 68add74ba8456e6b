//! Who knows the subjects of which sequences of a stream.
//!
//! Derived from the stream's extents and merged runs: where a merged run covers sequences it
//! answers, elsewhere the runs of the sealed files do. Each part is asked for its own range only.

use std::sync::{Arc, OnceLock};

use super::extent::{Extent, SealedFile};
use super::merged_run::MergedRun;
use crate::error::ReadError;
use crate::ids::SegmentId;
use crate::index::{AnyRun, Run, RunError, SubjectKey};

/// Consecutive sequences of a stream and who knows their subjects.
#[derive(Clone, Debug)]
pub(crate) struct IndexPart {
    pub first: u64,
    pub last: u64,
    pub source: PartSource,
    /// A run that knows every subject of the part, for questions that its filter answers: without a
    /// lock or a counter that threads share. A later run of the same file knows no others.
    whole: OnceLock<Arc<Run>>,
}

/// Where the subjects of a part are.
#[derive(Clone, Debug)]
pub(crate) enum PartSource {
    /// In the run of the file that holds the messages.
    File(Arc<SealedFile>),
    /// In a run merged from several.
    Merged(Arc<MergedRun>),
}

/// A part did not answer.
#[derive(Debug)]
pub(crate) enum PartFailure {
    /// Its index can neither be opened nor made anew.
    Read(ReadError),
    /// Its run is missing or damaged. The open run, unless that failed.
    Run(Option<AnyRun>, RunError),
}

impl IndexPart {
    fn new(first: u64, last: u64, source: PartSource) -> IndexPart {
        IndexPart {
            first,
            last,
            source,
            whole: OnceLock::new(),
        }
    }

    /// The part's run.
    pub fn open(&self) -> Result<AnyRun, PartFailure> {
        let (run, is_partial) = match &self.source {
            PartSource::File(file) => match file.index() {
                Ok(opened) => (opened.run.clone(), opened.is_partial()),
                Err(error) => return Err(PartFailure::Read(error)),
            },
            PartSource::Merged(run) => match run.open() {
                Ok(run) => (AnyRun::File(run), false),
                Err(error) => return Err(PartFailure::Run(None, error)),
            },
        };
        if let AnyRun::File(file) = &run
            && !is_partial
            && self.whole.get().is_none()
        {
            let _ = self.whole.set(file.clone());
        }
        Ok(run)
    }

    /// True if the part is known not to have the subject.
    pub fn excludes(&self, subject: &SubjectKey) -> bool {
        self.whole.get().is_some_and(|run| run.excludes(subject))
    }

    /// The part's run if it is there and whole; nothing is made anew.
    pub fn ready(&self) -> Option<Arc<Run>> {
        match &self.source {
            PartSource::File(file) => file.ready_index(),
            PartSource::Merged(run) => run.open().ok(),
        }
    }

    /// True for a part with the same source.
    pub fn has_source_of(&self, other: &IndexPart) -> bool {
        match (&self.source, &other.source) {
            (PartSource::File(a), PartSource::File(b)) => Arc::ptr_eq(a, b),
            (PartSource::Merged(a), PartSource::Merged(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The parts of a stream with these extents and merged runs, both ascending and without overlap.
pub(crate) fn index_parts(extents: &[Extent], runs: &[Arc<MergedRun>]) -> Vec<IndexPart> {
    let mut parts: Vec<IndexPart> = runs
        .iter()
        .map(|run| IndexPart::new(run.first, run.last, PartSource::Merged(run.clone())))
        .collect();
    for extent in extents {
        let mut add = |first: u64, last: u64| {
            if first <= last {
                let source = PartSource::File(extent.file.clone());
                parts.push(IndexPart::new(first, last, source));
            }
        };
        let mut first = extent.first;
        let at = runs.partition_point(|run| run.last < extent.first);
        for run in runs
            .iter()
            .skip(at)
            .take_while(|run| run.first <= extent.last)
        {
            add(first, run.first.saturating_sub(1));
            first = first.max(run.last.saturating_add(1));
        }
        add(first, extent.last);
    }
    parts.sort_by_key(|part| part.first);
    parts
}

/// Whether the run of a sealed file is asked: merged runs may answer in its place.
pub(crate) fn asks_run_of(parts: &[IndexPart], file: SegmentId) -> bool {
    let asked = |part: &IndexPart| match &part.source {
        PartSource::File(asked) => asked.id == file,
        PartSource::Merged(_) => false,
    };
    parts.iter().any(asked)
}

/// True if merged runs, which ascend without overlap, answer for all of `first..=last`.
pub(crate) fn is_covered(runs: &[Arc<MergedRun>], first: u64, last: u64) -> bool {
    let mut next = first;
    for run in runs.iter().filter(|run| run.last >= first) {
        if run.first > next || next > last {
            break;
        }
        next = run.last.saturating_add(1);
    }
    next > last
}

/// The part that answers for `seq`.
pub(crate) fn part_of(parts: &[IndexPart], seq: u64) -> Option<usize> {
    let at = parts.partition_point(|part| part.last < seq);
    parts.get(at).filter(|part| part.first <= seq).map(|_| at)
}
