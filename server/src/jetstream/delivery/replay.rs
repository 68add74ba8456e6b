//! Replay with the gaps messages were stored with (DLV-019).

use riverlog_engine::Message;
use riverlog_engine::ids::{Seq, TimestampNs};

/// The last first delivery of a consumer.
#[derive(Clone, Copy, Debug)]
struct Last {
    seq: Seq,
    stored_at: TimestampNs,
    delivered_at: TimestampNs,
}

/// Keeps the gaps of one consumer. After a restart the first message comes at once.
#[derive(Debug, Default)]
pub(crate) struct Replay(Option<Last>);

impl Replay {
    /// When a message may be delivered, if that is later than `now`. Redeliveries never wait.
    pub fn holds(&self, message: &Message, now: TimestampNs) -> Option<TimestampNs> {
        let last = self.0.filter(|last| message.seq > last.seq)?;
        let gap = message.ts.0.saturating_sub(last.stored_at.0).max(0);
        let due = TimestampNs(last.delivered_at.0.saturating_add(gap));
        (due > now).then_some(due)
    }

    /// A message was delivered.
    pub fn delivered(&mut self, message: &Message, now: TimestampNs) {
        if self.0.is_none_or(|last| message.seq > last.seq) {
            self.0 = Some(Last {
                seq: message.seq,
                stored_at: message.ts,
                delivered_at: now,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use riverlog_engine::message::{BodyLayout, MessageTimers};

    use super::*;

    fn message(seq: u64, ts: i64) -> Message {
        let layout = BodyLayout {
            subject: 1,
            headers: 0,
            payload: 0,
        };
        let body = Bytes::from_static(b"s");
        Message::from_body(
            Seq(seq),
            TimestampNs(ts),
            MessageTimers::default(),
            0,
            layout,
            body,
        )
        .unwrap()
    }

    #[test]
    fn gaps_are_kept_and_redeliveries_do_not_wait() {
        let mut replay = Replay::default();
        let now = TimestampNs(1000);
        assert_eq!(replay.holds(&message(1, 10), now), None);
        replay.delivered(&message(1, 10), now);
        assert_eq!(replay.holds(&message(2, 60), now), Some(TimestampNs(1050)));
        assert_eq!(replay.holds(&message(1, 10), now), None);
        replay.delivered(&message(1, 10), TimestampNs(1040));
        assert_eq!(replay.holds(&message(2, 60), TimestampNs(1050)), None);
    }
}
