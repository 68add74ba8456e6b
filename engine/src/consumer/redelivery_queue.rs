//! The order in which messages are redelivered (T-56).

use std::collections::VecDeque;

use roaring::RoaringTreemap;

/// Messages that are due again. Messages that expired together leave in stream order; refused ones
/// leave in the order of their refusal, behind everything queued earlier.
#[derive(Clone, Debug, Default)]
pub(super) struct RedeliveryQueue {
    /// What is queued. A sequence in `groups` that is missing here was taken out and is passed
    /// over when its turn comes.
    members: RoaringTreemap,
    groups: VecDeque<Group>,
}

#[derive(Clone, Debug)]
enum Group {
    Expired(RoaringTreemap),
    Arrivals(VecDeque<u64>),
}

impl RedeliveryQueue {
    pub(super) fn contains(&self, seq: u64) -> bool {
        self.members.contains(seq)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.members.len()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let groups = self.groups.iter().map(|group| match group {
            Group::Expired(seqs) => seqs.serialized_size(),
            Group::Arrivals(seqs) => seqs.capacity() * size_of::<u64>(),
        });
        self.members.serialized_size() + groups.sum::<usize>()
    }

    /// Every queued message, in stream order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.iter()
    }

    /// Queues one message behind all others, unless it is queued already.
    pub(super) fn push(&mut self, seq: u64) {
        if !self.members.insert(seq) {
            return;
        }
        if let Some(Group::Arrivals(arrivals)) = self.groups.back_mut() {
            arrivals.push_back(seq);
        } else {
            self.groups
                .push_back(Group::Arrivals(VecDeque::from([seq])));
        }
    }

    /// Queues messages that expired together. They are in ascending order and none is queued.
    pub(super) fn push_expired(&mut self, expired: &[u64]) {
        if expired.is_empty() {
            return;
        }
        let mut group = RoaringTreemap::new();
        for &seq in expired {
            debug_assert!(!self.members.contains(seq));
            self.members.insert(seq);
            group.insert(seq);
        }
        self.groups.push_back(Group::Expired(group));
    }

    /// The message whose turn it is.
    pub(super) fn front(&mut self) -> Option<u64> {
        loop {
            let group = self.groups.front_mut()?;
            let seq = match group {
                Group::Expired(seqs) => seqs.min(),
                Group::Arrivals(seqs) => seqs.front().copied(),
            };
            match seq {
                Some(seq) if self.members.contains(seq) => return Some(seq),
                Some(seq) => group.drop_front(seq),
                None => {
                    self.groups.pop_front();
                }
            }
        }
    }

    /// Takes a message out for good: it is acknowledged or given up and never queued again.
    pub(super) fn forget(&mut self, seq: u64) {
        if self.members.remove(seq) && self.members.is_empty() {
            self.groups.clear();
        }
    }

    /// Takes a message out that may be queued again later.
    pub(super) fn take_out(&mut self, seq: u64) -> bool {
        if !self.members.remove(seq) {
            return false;
        }
        // Its old place must go as well, or it would jump the queue when it comes back. It is
        // nearly always the front.
        for group in &mut self.groups {
            if group.remove(seq) {
                break;
            }
        }
        if self.members.is_empty() {
            self.groups.clear();
        }
        true
    }
}

impl Group {
    fn drop_front(&mut self, seq: u64) {
        match self {
            Group::Expired(seqs) => {
                seqs.remove(seq);
            }
            Group::Arrivals(seqs) => {
                seqs.pop_front();
            }
        }
    }

    fn remove(&mut self, seq: u64) -> bool {
        match self {
            Group::Expired(seqs) => seqs.remove(seq),
            Group::Arrivals(seqs) => match seqs.iter().position(|&queued| queued == seq) {
                Some(at) => {
                    seqs.remove(at);
                    true
                }
                None => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut RedeliveryQueue) -> Vec<u64> {
        std::iter::from_fn(|| {
            let seq = queue.front()?;
            queue.take_out(seq);
            Some(seq)
        })
        .collect()
    }

    #[test]
    fn expired_together_in_stream_order_refused_in_arrival_order() {
        let mut queue = RedeliveryQueue::default();
        queue.push(9);
        queue.push(7);
        queue.push_expired(&[2, 5]);
        queue.push(1);
        queue.push(9);
        assert_eq!(drain(&mut queue), [9, 7, 2, 5, 1]);
    }

    #[test]
    fn a_message_that_left_comes_back_at_the_end() {
        let mut queue = RedeliveryQueue::default();
        queue.push_expired(&[1, 2, 3]);
        queue.push(8);
        queue.push(9);
        assert!(queue.take_out(1) && queue.take_out(8));
        queue.forget(2);
        queue.push(1);
        queue.push(8);
        assert_eq!(drain(&mut queue), [3, 9, 1, 8]);
        assert_eq!(queue.len(), 0);
    }
}
