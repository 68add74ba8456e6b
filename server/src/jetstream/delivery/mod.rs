//! Delivery of messages to clients.
//!
//! A consumer is driven by at most one task at a time, which ends when there is nothing to do. It
//! is started by a pull request, by interest in a deliver subject, by new messages of the stream (one
//! start per commit batch, not per message), by an acknowledgement that makes room, and by the timer.
//!
//! A receiver whose buffer fills up is waited for, so that a large batch does not make its connection
//! one that is closed for being slow.

pub(crate) mod flow;
mod frame;
mod pull;
mod push;
pub(crate) mod replay;

use std::sync::Arc;
use std::time::Duration;

use riverlog_engine::ids::TimestampNs;
use tokio::time::timeout;

use self::pull::PullRound;
use self::push::PushRound;
use super::advisories;
use super::consumer_handle::ConsumerHandle;
use super::removal;
use super::shared::Shared;
use super::types::consumer_config::ConsumerConfig;
use super::types::enums::AckPolicy;
use crate::net::conn::Conn;

/// Time between two looks at a full buffer.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How one slice of work ended.
enum Slice {
    /// There may be more to do at once.
    More,
    /// A receiver does not keep up.
    Behind(Arc<Conn>),
    /// Nothing to do until something happens.
    Idle,
}

/// Drives one consumer until nothing is left to do.
pub(crate) async fn run(shared: Arc<Shared>, consumer: Arc<ConsumerHandle>) {
    loop {
        consumer.begin_run();
        let slice = if consumer.is_deleted() {
            // A request that was being served when the consumer went.
            removal::end_waiting(&shared, &consumer);
            Slice::Idle
        } else if consumer.config().is_push() {
            PushRound::new(&shared, &consumer).run()
        } else {
            PullRound::new(&shared, &consumer).run()
        };
        match slice {
            Slice::More => tokio::task::yield_now().await,
            Slice::Behind(receiver) => let_catch_up(&receiver).await,
            Slice::Idle if consumer.is_deleted() && !consumer.waiting.lock().is_empty() => {}
            Slice::Idle if consumer.end_run() => return,
            Slice::Idle => {}
        }
    }
}

/// A backlog costs a turn, so that the receiver's write loop runs; a buffer that is nearly full is
/// waited for. A receiver that never reads is closed by its own deadline, which ends this.
async fn let_catch_up(receiver: &Conn) {
    tokio::task::yield_now().await;
    while receiver.outbound().is_stalled() {
        // The write loop may have told somebody else; looking again is cheap.
        let _ = timeout(LOOK_AGAIN, receiver.outbound().drained()).await;
    }
}

/// What every slice ends with: advisories, and deliveries marked in the log.
fn settle(shared: &Arc<Shared>, consumer: &Arc<ConsumerHandle>, now: TimestampNs) {
    consumer.engine.expire(now);
    advisories::publish_notices(shared, consumer);
}

/// Nothing to do now: what was delivered goes to the log soon, and the timer is set.
fn rest(
    shared: &Arc<Shared>,
    consumer: &Arc<ConsumerHandle>,
    config: &ConsumerConfig,
    now: TimestampNs,
) {
    if consumer.take_flush(now) {
        if let Err(error) = consumer.engine.flush() {
            tracing::debug!(consumer = %consumer.name, %error, "delivery marks not logged");
        }
    } else {
        consumer.arm_flush(shared);
    }
    if config.ack_policy != AckPolicy::None || config.pause_until.is_some() {
        consumer.arm(shared, consumer.engine.next_deadline());
    }
    removal::check_inactivity(shared, consumer);
}

#[cfg(test)]
mod tests {
    use super::flow::FlowControl;

    #[test]
    fn the_window_doubles_with_every_answer() {
        // T-107: the first request comes after more than 1 MiB.
        let mut flow = FlowControl::default();
        assert!(!flow.sent(1 << 20));
        assert!(flow.sent(1));
        flow.requested("a".into());
        assert!(!flow.is_full());
        assert!(!flow.sent(1 << 20));
        assert!(flow.is_full());
        assert!(!flow.answered(b"b"));
        assert!(flow.answered(b"a"));
        assert!(!flow.is_full());
        // 1 MiB is still out; the window is 4 MiB now, a request is due above 2 MiB.
        assert!(!flow.sent(1 << 20));
        assert!(flow.sent(1));
    }
}
