//! Retention decided by consumers: a message leaves when nobody needs it any more.
//!
//! Whether somebody does is asked of the consumers' own state, message by message; floors are not
//! compared. A message is needed by a consumer whose filter matches and that has not delivered it,
//! waits for its acknowledgement, or has given it up and keeps it as a dead letter.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::core::StreamCore;
use super::cursor::ConsumerCore;
use super::release::{Leaving, ReleaseOrder};
use super::state::StreamData;
use crate::config::Retention;
use crate::ids::{ConsumerId, Seq};
use crate::subject::Filter;

/// Which consumers want which subjects. Consumers with the same filter share an entry, and a
/// subject finds the filters without wildcards directly.
#[derive(Default)]
pub(crate) struct Interest {
    /// Consumers without a filter, or with the filter `>`.
    everything: Consumers,
    literal: HashMap<Bytes, Wanted>,
    /// By the filter's text.
    wildcard: BTreeMap<Bytes, Wanted>,
}

/// A filter and who has it.
struct Wanted {
    /// The filter alone, for consumers that have no other: they share it.
    filter: Arc<[Filter]>,
    consumers: Consumers,
}

impl Wanted {
    fn matches(&self, subject: &[u8]) -> bool {
        self.filter.iter().any(|filter| filter.matches(subject))
    }
}

/// In order of their ids.
#[derive(Default)]
struct Consumers(Vec<(ConsumerId, Arc<ConsumerCore>)>);

impl Consumers {
    fn insert(&mut self, consumer: &Arc<ConsumerCore>) {
        let id = consumer.id;
        if let Err(at) = self.0.binary_search_by_key(&id, |(id, _)| *id) {
            if self.0.is_empty() {
                // Most filters are of one consumer.
                self.0.reserve_exact(1);
            }
            self.0.insert(at, (id, consumer.clone()));
        }
    }

    fn remove(&mut self, id: ConsumerId) {
        if let Ok(at) = self.0.binary_search_by_key(&id, |(id, _)| *id) {
            self.0.remove(at);
        }
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest")
            .field("everything", &self.everything.0.len())
            .field("literal", &self.literal.len())
            .field("wildcard", &self.wildcard.len())
            .finish()
    }
}

impl Interest {
    /// The compiled filters of another consumer that has the same single one, or these.
    pub fn shared(&self, filters: Arc<[Filter]>) -> Arc<[Filter]> {
        let [filter] = &filters[..] else {
            return filters;
        };
        let known = match filter.literal() {
            Some(subject) => self.literal.get(subject),
            None => self.wildcard.get(filter.text()),
        };
        known.map_or_else(|| filters.clone(), |wanted| wanted.filter.clone())
    }

    pub fn insert(&mut self, consumer: &Arc<ConsumerCore>, filters: &Arc<[Filter]>) {
        if filters.is_empty() || filters.iter().any(Filter::is_all) {
            return self.everything.insert(consumer);
        }
        for filter in filters.iter() {
            let wanted = || Wanted {
                filter: match filters.len() {
                    1 => filters.clone(),
                    _ => Arc::from([filter.clone()]),
                },
                consumers: Consumers::default(),
            };
            let text = filter.shared_text();
            let wanted = match filter.literal() {
                Some(_) => self.literal.entry(text).or_insert_with(wanted),
                None => self.wildcard.entry(text).or_insert_with(wanted),
            };
            wanted.consumers.insert(consumer);
        }
    }

    pub fn remove(&mut self, id: ConsumerId, filters: &[Filter]) {
        if filters.is_empty() || filters.iter().any(Filter::is_all) {
            return self.everything.remove(id);
        }
        for filter in filters {
            let text = filter.text();
            if filter.literal().is_some() {
                if let Some(wanted) = self.literal.get_mut(text) {
                    wanted.consumers.remove(id);
                    if wanted.consumers.0.is_empty() {
                        self.literal.remove(text);
                    }
                }
            } else if let Some(wanted) = self.wildcard.get_mut(text) {
                wanted.consumers.remove(id);
                if wanted.consumers.0.is_empty() {
                    self.wildcard.remove(text);
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.everything.0.is_empty() && self.literal.is_empty() && self.wildcard.is_empty()
    }

    fn wants(&self, subject: &[u8]) -> bool {
        !self.everything.0.is_empty()
            || self.literal.contains_key(subject)
            || self.wildcard.values().any(|wanted| wanted.matches(subject))
    }

    /// Some of the consumers that want everything.
    pub fn some_of_everything(&self, max: usize) -> Vec<Arc<ConsumerCore>> {
        let consumers = self.everything.0.iter().take(max);
        consumers.map(|(_, consumer)| consumer.clone()).collect()
    }

    /// Every consumer that wants `subject`, some of them more than once; all without a subject.
    fn of(&self, subject: Option<&[u8]>) -> Vec<Arc<ConsumerCore>> {
        let literal: Box<dyn Iterator<Item = &Wanted>> = match subject {
            Some(subject) => Box::new(self.literal.get(subject).into_iter()),
            None => Box::new(self.literal.values()),
        };
        let wildcard = self.wildcard.values();
        let wildcard = wildcard.filter(|wanted| subject.is_none_or(|s| wanted.matches(s)));
        let some = literal.chain(wildcard).map(|wanted| &wanted.consumers);
        [&self.everything]
            .into_iter()
            .chain(some)
            .flat_map(|consumers| &consumers.0)
            .map(|(_, consumer)| consumer.clone())
            .collect()
    }
}

fn wants(filters: &[Filter], subject: &[u8]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.matches(subject))
}

impl StreamData {
    /// Whether a message of `subject` is to be kept at all.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.config.retention != Retention::Interest || self.interest.wants(subject)
    }
}

impl StreamCore {
    /// Whether a consumer other than `except` needs a message. The release lock is held.
    pub(super) fn is_needed(
        &self,
        order: &mut ReleaseOrder,
        message: &Leaving,
        except: Option<ConsumerId>,
    ) -> bool {
        let (seq, subject) = (Seq(message.seq), message.subject.as_deref());
        let needs = |consumer: &Arc<ConsumerCore>| {
            Some(consumer.id) != except && consumer.needs(seq, subject)
        };
        if order.blocker.upgrade().as_ref().is_some_and(needs) {
            return true;
        }
        let consumers = self.lock().interest.of(subject);
        let found = consumers.iter().find(|consumer| needs(consumer));
        if let Some(blocker) = found {
            order.blocker = Arc::downgrade(blocker);
        }
        found.is_some()
    }
}

impl ConsumerCore {
    /// Whether this consumer still needs a message. If nobody can tell its subject, the consumer is
    /// taken to want it.
    fn needs(&self, seq: Seq, subject: Option<&[u8]>) -> bool {
        let data = self.lock();
        !data.deleted
            && subject.is_none_or(|subject| wants(data.filters(), subject))
            && data.state.holds(seq)
    }
}
