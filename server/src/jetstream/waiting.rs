//! Pull requests that wait at a consumer. Messages go to them in turn (PULL-020).

use std::collections::VecDeque;

use bytes::Bytes;
use riverlog_engine::ids::TimestampNs;

use super::pull_request::PullRequest;

/// A request in the queue.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Where messages and statuses go.
    pub reply: Bytes,
    /// What is still wanted.
    pub request: PullRequest,
    /// Messages delivered to it so far.
    pub delivered: u64,
    /// When the next heartbeat is due.
    pub heartbeat_at: Option<TimestampNs>,
}

impl Waiting {
    /// A new request.
    pub fn new(reply: Bytes, request: PullRequest, now: TimestampNs) -> Waiting {
        let mut waiting = Waiting {
            reply,
            request,
            delivered: 0,
            heartbeat_at: None,
        };
        waiting.restart_heartbeat(now);
        waiting
    }

    /// The client just heard from the server.
    pub fn restart_heartbeat(&mut self, now: TimestampNs) {
        if self.request.heartbeat_ns > 0 {
            self.heartbeat_at = Some(TimestampNs(now.0.saturating_add(self.request.heartbeat_ns)));
        }
    }

    /// Whether it ended by time.
    pub fn is_expired(&self, now: TimestampNs) -> bool {
        self.request.expires.is_some_and(|at| at <= now)
    }

    /// Books a delivered message of `bytes` size.
    pub fn book(&mut self, bytes: usize) -> Booked {
        self.delivered += 1;
        self.request.batch -= 1;
        let limited = self.request.max_bytes > 0;
        if limited {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.request.max_bytes = (self.request.max_bytes - bytes).max(0);
        }
        match (limited, self.request.max_bytes) {
            (true, 0) => Booked::Done,
            (true, _) if self.request.batch <= 0 => Booked::BatchCompleted,
            _ if self.request.batch <= 0 => Booked::Done,
            _ => Booked::More,
        }
    }
}

/// What a delivery means for the request that got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Booked {
    /// It wants more.
    More,
    /// It is over, without a word (T-74).
    Done,
    /// It is over and has bytes left, which it is told (PULL-017).
    BatchCompleted,
}

/// Requests of one consumer, in turn.
#[derive(Debug, Default)]
pub struct WaitQueue {
    queue: VecDeque<Waiting>,
    /// Taken out for a delivery that is under way.
    serving: usize,
    /// When expired or abandoned requests were last swept because the queue was full.
    swept_at: TimestampNs,
}

impl WaitQueue {
    /// Requests waiting, the one being served included.
    pub fn len(&self) -> usize {
        self.queue.len() + self.serving
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages all requests together still want.
    pub fn outstanding(&self) -> u64 {
        self.queue
            .iter()
            .map(|w| u64::try_from(w.request.batch.max(1)).unwrap_or(1))
            .sum()
    }

    /// Adds a request behind the others.
    pub fn push(&mut self, waiting: Waiting) {
        self.queue.push_back(waiting);
    }

    /// Whether a sweep of a full queue may run; at most once a second (T-73).
    pub fn may_sweep(&mut self, now: TimestampNs) -> bool {
        let due = now.0.saturating_sub(self.swept_at.0) >= 1_000_000_000;
        if due {
            self.swept_at = now;
        }
        due
    }

    /// Takes the request whose turn it is. Must be given back or dropped with [`WaitQueue::served`].
    pub fn take(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.serving += 1;
        Some(waiting)
    }

    /// The request taken is finished, goes behind the others, or keeps its turn.
    pub fn served(&mut self, back: Back) {
        self.serving -= 1;
        match back {
            Back::Finished => {}
            Back::Behind(waiting) => self.queue.push_back(waiting),
            Back::Front(waiting) => self.queue.push_front(waiting),
        }
    }

    /// Takes out every request for which `gone` holds, in order.
    pub fn remove_if(&mut self, mut gone: impl FnMut(&Waiting) -> bool) -> Vec<Waiting> {
        if !self.queue.iter().any(&mut gone) {
            return Vec::new();
        }
        let (out, keep): (Vec<_>, Vec<_>) = self.queue.drain(..).partition(|w| gone(w));
        self.queue.extend(keep);
        out
    }

    /// Every waiting request.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.queue.iter_mut()
    }

    /// Empties the queue.
    pub fn take_all(&mut self) -> Vec<Waiting> {
        self.queue.drain(..).collect()
    }

    /// When the next request expires or wants a heartbeat.
    pub fn next_deadline(&self) -> Option<TimestampNs> {
        self.queue
            .iter()
            .flat_map(|w| [w.request.expires, w.heartbeat_at])
            .flatten()
            .min()
    }
}

/// Where a request goes after its turn.
#[derive(Debug)]
pub enum Back {
    /// Nowhere.
    Finished,
    /// To the end of the queue.
    Behind(Waiting),
    /// It did not get its message: to the front.
    Front(Waiting),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(body: &str, now: i64) -> Waiting {
        let now = TimestampNs(now);
        let request = PullRequest::parse(body.as_bytes(), now).unwrap();
        Waiting::new(Bytes::from_static(b"r"), request, now)
    }

    #[test]
    fn booking_ends_requests_by_count_and_bytes() {
        let mut w = waiting(r#"{"batch":2}"#, 0);
        assert_eq!(w.book(10), Booked::More);
        assert_eq!(w.book(10), Booked::Done);
        let mut w = waiting(r#"{"batch":2,"max_bytes":30}"#, 0);
        assert_eq!(w.book(10), Booked::More);
        assert_eq!(w.book(10), Booked::BatchCompleted);
        assert_eq!((w.request.batch, w.request.max_bytes), (0, 10));
        let mut w = waiting(r#"{"batch":5,"max_bytes":30}"#, 0);
        assert_eq!(w.book(30), Booked::Done);
        // T-75: batch 0 gets one message and ends at -1.
        let mut w = waiting(r#"{"batch":0,"max_bytes":30}"#, 0);
        assert_eq!(w.book(10), Booked::BatchCompleted);
        assert_eq!(w.request.batch, -1);
    }

    #[test]
    fn requests_take_turns() {
        let mut queue = WaitQueue::default();
        queue.push(waiting("1", 0));
        queue.push(waiting("2", 0));
        assert_eq!(queue.outstanding(), 3);
        let first = queue.take().unwrap();
        assert_eq!(first.request.batch, 1);
        assert_eq!(queue.len(), 2);
        queue.served(Back::Behind(first));
        let second = queue.take().unwrap();
        assert_eq!(second.request.batch, 2);
        queue.served(Back::Front(second));
        assert_eq!(queue.take().unwrap().request.batch, 2);
        queue.served(Back::Finished);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn deadlines_and_sweeps() {
        let mut queue = WaitQueue::default();
        assert_eq!(queue.next_deadline(), None);
        queue.push(waiting(r#"{"expires":1000}"#, 0));
        queue.push(waiting(r#"{"expires":900,"idle_heartbeat":400}"#, 0));
        assert_eq!(queue.next_deadline(), Some(TimestampNs(400)));
        let expired = queue.remove_if(|w| w.is_expired(TimestampNs(900)));
        assert_eq!(expired.len(), 1);
        assert_eq!(queue.next_deadline(), Some(TimestampNs(1000)));
        assert!(queue.may_sweep(TimestampNs(1_000_000_000)));
        assert!(!queue.may_sweep(TimestampNs(1_500_000_000)));
        assert!(queue.may_sweep(TimestampNs(2_000_000_000)));
    }
}
