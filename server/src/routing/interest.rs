//! Telling others when interest in a subject appears or disappears.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::subject;

/// Is told about changes of interest in one literal subject.
pub trait InterestListener: Send + Sync {
    /// Interest in `subject` appeared (`true`) or disappeared (`false`). Runs on the thread that
    /// changed a subscription, usually a read loop, and under a lock: it should only note the change.
    /// It must not block, publish, or add or remove listeners or subscriptions. Calls for one subject
    /// are in the order of the changes.
    fn interest_changed(&self, subject: &Bytes, present: bool);
}

/// Identity of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

struct Watched {
    present: bool,
    listeners: Vec<(ListenerId, Arc<dyn InterestListener>)>,
}

#[derive(Default)]
struct State {
    by_subject: HashMap<Bytes, Watched>,
    last_id: u64,
}

/// Listeners of an account.
#[derive(Default)]
pub struct InterestListeners {
    state: Mutex<State>,
}

impl InterestListeners {
    /// Registers a listener and returns whether there is interest now. `has_interest` is asked under
    /// the lock that also orders the calls, so no change between can be missed.
    pub fn add(
        &self,
        subject: &[u8],
        listener: Arc<dyn InterestListener>,
        has_interest: impl Fn() -> bool,
    ) -> (ListenerId, bool) {
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = ListenerId(state.last_id);
        let key = Bytes::copy_from_slice(subject);
        let watched = state
            .by_subject
            .entry(key.clone())
            .or_insert_with(|| Watched {
                present: false,
                listeners: Vec::new(),
            });
        // Earlier listeners hear of a change that is seen here first.
        watched.update(&key, &|_: &[u8]| has_interest());
        watched.listeners.push((id, listener));
        (id, watched.present)
    }

    /// Removes a registration.
    pub fn remove(&self, subject: &[u8], id: ListenerId) {
        let mut state = self.state.lock();
        if let Some(watched) = state.by_subject.get_mut(subject) {
            watched.listeners.retain(|(have, _)| *have != id);
            if watched.listeners.is_empty() {
                state.by_subject.remove(subject);
            }
        }
    }

    /// Called after a subscription to `changed` (possibly with wildcards) was added or removed.
    pub fn subscription_changed(&self, changed: &[u8], has_interest: impl Fn(&[u8]) -> bool) {
        let mut state = self.state.lock();
        if state.by_subject.is_empty() {
            return;
        }
        if subject::is_literal(changed) {
            if let Some((subject, _)) = state.by_subject.get_key_value(changed) {
                let subject = subject.clone();
                if let Some(watched) = state.by_subject.get_mut(&subject) {
                    watched.update(&subject, &has_interest);
                }
            }
            return;
        }
        for (subject, watched) in &mut state.by_subject {
            if subject::matches(subject, changed) {
                watched.update(subject, &has_interest);
            }
        }
    }
}

impl Watched {
    fn update(&mut self, subject: &Bytes, has_interest: &impl Fn(&[u8]) -> bool) {
        let present = has_interest(subject);
        if present != self.present {
            self.present = present;
            for (_, listener) in &self.listeners {
                listener.interest_changed(subject, present);
            }
        }
    }
}
