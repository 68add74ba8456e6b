//! What is due: the timer section, and the messages themselves where it is damaged.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use super::lookup::Miss;
use super::reader::{ScanItem, Segment};
use super::table::Pages;
use super::writer::timers_of;
use crate::error::ReadError;
use crate::format::FormatError;
use crate::format::block_table::Entry;
use crate::format::footer::Footer;
use crate::format::page::PageKind;
use crate::format::timers::{self, Timer, TimerKey, TimerKind, TimerSeparator};
use crate::ids::{Seq, StreamId, TimestampNs};

/// Section of the timer pages and their separators.
const SECTION: usize = 3;

/// Some timers of one kind of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimersDue {
    /// What is due, ascending by time and sequence.
    pub due: Vec<Timer>,
    /// When the first timer behind these is due; `None` at the end.
    pub next: Option<TimestampNs>,
}

impl Segment {
    /// Up to `max` timers of a stream that are due at `until`, behind `after`. Reads no page on
    /// which nothing is due, except the one that says when the next timer is.
    ///
    /// Timers are derived (A3): where a page is damaged they are made anew from the messages, and
    /// kept in memory until the file is replaced. A message that cannot be read has no timer then.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] if the system failed a read.
    pub fn timers_due(
        &self,
        stream: StreamId,
        kind: TimerKind,
        after: Option<(TimestampNs, Seq)>,
        until: TimestampNs,
        max: usize,
    ) -> Result<TimersDue, ReadError> {
        let (due, seq) = after.unwrap_or((TimestampNs(i64::MIN), Seq(0)));
        let query = Query {
            from: (stream, kind, due, seq),
            is_after: after.is_some(),
            until,
            max,
        };
        if let Some(timers) = self.known_timers() {
            return Ok(query.of_sorted(&timers));
        }
        let table = self.table()?;
        if let Pages::File(footer) = &table.pages {
            match self.timers_from_pages(footer, &query) {
                Ok(found) => return Ok(found),
                Err(Miss::Failed(error)) => return Err(error),
                Err(Miss::TableDamaged(reason)) => tracing::warn!(
                    file = %self.path.display(),
                    %reason,
                    "timers are damaged; reading the messages to make them anew"
                ),
            }
        }
        Ok(query.of_sorted(&self.timers_from_messages()?))
    }

    fn known_timers(&self) -> Option<Arc<[Timer]>> {
        let timers = self.timers.read().unwrap_or_else(PoisonError::into_inner);
        timers.clone()
    }

    fn timers_from_pages(&self, footer: &Footer, query: &Query) -> Result<TimersDue, Miss> {
        let first_page = footer.section_start(SECTION);
        let pages = footer.section_pages[SECTION];
        let separator_pages = timers::separator_pages(pages);
        let timer_pages = pages - separator_pages.min(pages);
        let mut found = TimersDue::default();
        let start = self.timer_page_of(footer, timer_pages, separator_pages, query.from)?;
        for page in start..timer_pages {
            let payload = self.page(footer, PageKind::Timers, first_page + page)?;
            let timers = timers::decode_page(&payload).map_err(Miss::TableDamaged)?;
            if query.take(&timers, &mut found).is_break() {
                break;
            }
        }
        Ok(found)
    }

    /// The last page whose first timer is not behind `key`, or else the first page.
    fn timer_page_of(
        &self,
        footer: &Footer,
        timer_pages: u32,
        separator_pages: u32,
        key: TimerKey,
    ) -> Result<u32, Miss> {
        let first_page = footer.section_start(SECTION) + timer_pages;
        let mut before = 0;
        for page in 0..separator_pages {
            let payload = self.page(footer, PageKind::TimerSeparators, first_page + page)?;
            let count = TimerSeparator::count(&payload);
            let at = TimerSeparator::partition_point(&payload, |separator| separator.0 <= key);
            before += at as u32;
            if at < count {
                break;
            }
        }
        if before > timer_pages {
            return Err(Miss::TableDamaged(FormatError::OutOfRange {
                what: "number of timer separators",
            }));
        }
        Ok(before.saturating_sub(1))
    }

    fn timers_from_messages(&self) -> Result<Arc<[Timer]>, ReadError> {
        let mut timers = Vec::new();
        self.scan(&mut |item| {
            match item {
                ScanItem::Block(block) => {
                    for message in block.iter() {
                        let due = timers_of(block.stream(), &message.as_record());
                        timers.extend(due.into_iter().flatten());
                    }
                }
                ScanItem::Lost(damage) => tracing::error!(
                    stream = %damage.stream,
                    first = %damage.first,
                    last = %damage.last,
                    file = %damage.file.display(),
                    "whether messages that cannot be read are due is unknown"
                ),
            }
            ControlFlow::Continue(())
        })?;
        timers.sort_unstable();
        let timers: Arc<[Timer]> = timers.into();
        *self.timers.write().unwrap_or_else(PoisonError::into_inner) = Some(timers.clone());
        Ok(timers)
    }
}

/// Which timers are wanted.
struct Query {
    from: TimerKey,
    /// The timer at `from` itself is not wanted.
    is_after: bool,
    until: TimestampNs,
    max: usize,
}

impl Query {
    fn of_sorted(&self, timers: &[Timer]) -> TimersDue {
        let mut found = TimersDue::default();
        _ = self.take(timers, &mut found);
        found
    }

    /// Takes what is wanted of ascending timers; breaks when the answer is complete.
    fn take(&self, timers: &[Timer], found: &mut TimersDue) -> ControlFlow<()> {
        let (stream, kind, ..) = self.from;
        let start = timers.partition_point(|timer| match self.is_after {
            true => timer.key() <= self.from,
            false => timer.key() < self.from,
        });
        for timer in &timers[start..] {
            if (timer.stream, timer.kind) != (stream, kind) {
                return ControlFlow::Break(());
            }
            if timer.due > self.until || found.due.len() >= self.max {
                found.next = Some(timer.due);
                return ControlFlow::Break(());
            }
            found.due.push(*timer);
        }
        ControlFlow::Continue(())
    }
}
