//! Positions, counts and the order of deliveries.

use super::bench::{Bench, MS, at, explicit};
use crate::consumer::{
    AckOutcome, AckPolicy, BlockReason, ConsumerConfig, ConsumerState, Moved, Notice, Plan,
    StartPosition,
};
use crate::ids::Seq;

#[test]
fn t43_the_floor_waits_for_the_lowest_open_message() {
    let mut bench = Bench::new(explicit(), 11);
    assert_eq!(bench.fetch_all(0).len(), 11);
    bench.state.nak(Seq(1), None, at(1));
    bench.ack(2..=10);
    assert_eq!(bench.info(), [(11, 11), (0, 0), (2, 0)]);
    assert_eq!(bench.fetch(2), Some((1, 12, 2)));
    bench.ack([1]);
    assert_eq!(bench.info(), [(12, 11), (10, 10), (1, 0)]);
    bench.ack([11]);
    assert_eq!(bench.info(), [(12, 11), (12, 11), (0, 0)]);
}

#[test]
fn t45_a_message_that_was_read_and_not_committed_is_untouched() {
    let mut bench = Bench::new(explicit(), 1);
    assert_eq!(bench.state.plan(at(0)), Plan::New { from: Seq(1) });
    assert_eq!(bench.state.plan(at(0)), Plan::New { from: Seq(1) });
    assert_eq!(bench.info(), [(0, 0), (0, 0), (0, 0)]);
    assert_eq!(bench.fetch(0), Some((1, 1, 1)));
}

#[test]
fn t46_listed_messages_come_first_and_missing_ones_are_skipped() {
    let start = StartPosition {
        next: Seq(6),
        listed: vec![Seq(2), Seq(3), Seq(5)],
    };
    let mut bench = Bench::new(explicit(), 6);
    bench.state = ConsumerState::new(explicit(), &start);
    assert_eq!(bench.info()[0], (0, 1));
    assert_eq!(
        bench.state.listed().collect::<Vec<_>>(),
        [Seq(2), Seq(3), Seq(5)]
    );
    assert_eq!(bench.fetch(0), Some((2, 1, 1)));
    bench.stored.remove(&3);
    bench.restart();
    assert_eq!(bench.fetch_all(0), [5, 6]);
}

#[test]
fn t49_messages_below_a_start_in_the_future_are_not_delivered() {
    let mut bench = Bench::starting(explicit(), 3, 6);
    assert_eq!(bench.fetch(0), None);
    for _ in 4..=7 {
        bench.publish(true);
    }
    assert_eq!(bench.fetch_all(0), [6, 7]);
}

#[test]
fn t53_new_filters_keep_positions_and_open_messages() {
    let mut bench = Bench::new(explicit(), 4);
    bench.fetch_n(2, 0);
    let changed = ConsumerConfig {
        filters: vec!["b".to_owned()],
        ..explicit()
    };
    bench.state.update_config(changed);
    assert_eq!(bench.info(), [(2, 2), (0, 0), (2, 0)]);
    bench.stored.insert(3, false);
    assert_eq!(bench.fetch_all(1500), [1, 2, 4]);
}

#[test]
fn t54_delivered_is_the_last_delivery_not_the_scan_position() {
    let mut bench = Bench::new(explicit(), 0);
    for matches in [true, false, false] {
        bench.publish(matches);
    }
    assert_eq!(bench.fetch_all(0), [1]);
    assert_eq!((bench.info()[0], bench.state.next_seq()), ((1, 1), Seq(4)));
}

#[test]
fn t55_a_single_delivery_is_given_up_when_its_wait_is_over() {
    let mut bench = Bench::new(
        ConsumerConfig {
            max_deliver: Some(1),
            ..explicit()
        },
        1,
    );
    bench.fetch(0);
    bench.state.expire(at(999));
    assert_eq!(bench.info()[2], (1, 0));
    bench.state.expire(at(1000));
    assert_eq!(bench.info()[2], (0, 0));
    assert_eq!(
        bench.notices(),
        [Notice::MaxDeliveries {
            seq: Seq(1),
            deliveries: 1
        }]
    );
    assert_eq!(bench.fetch(5000), None);
    assert_eq!(bench.notices(), []);
}

#[test]
fn t56_expired_messages_come_in_stream_order_before_refused_and_new_ones() {
    let mut bench = Bench::new(explicit(), 6);
    assert_eq!(bench.fetch_n(3, 0), [1, 2, 3]);
    assert_eq!(bench.fetch_n(2, 100), [4, 5]);
    bench.state.in_progress(Seq(1), at(50));
    bench.state.expire(at(1060));
    bench.state.nak(Seq(5), None, at(1060));
    bench.state.nak(Seq(4), None, at(1060));
    bench.state.nak(Seq(2), None, at(1060));
    assert_eq!(bench.fetch_all(1060), [1, 2, 3, 5, 4, 6]);
    assert_eq!(bench.fetch_all(2060), [1, 2, 3, 4, 5, 6]);
    assert_eq!(bench.fetch_all(3060), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn t57_each_delivery_waits_its_own_backoff_step() {
    let config = ConsumerConfig {
        backoff_ns: vec![100 * MS, 300 * MS],
        ..explicit()
    };
    let mut bench = Bench::new(config, 1);
    assert_eq!(bench.fetch(0), Some((1, 1, 1)));
    assert_eq!((bench.fetch(99), bench.fetch(100)), (None, Some((1, 2, 2))));
    assert_eq!(
        (bench.fetch(399), bench.fetch(400)),
        (None, Some((1, 3, 3)))
    );
    bench.state.nak(Seq(1), None, at(410));
    assert_eq!(bench.fetch(410), Some((1, 4, 4)));
    bench.state.nak(Seq(1), Some(50 * MS), at(420));
    assert_eq!(
        (bench.fetch(469), bench.fetch(470)),
        (None, Some((1, 5, 5)))
    );
    assert_eq!(
        (bench.fetch(769), bench.fetch(770)),
        (None, Some((1, 6, 6)))
    );
}

#[test]
fn t58_the_next_attempt_after_the_last_delivery_gives_the_message_up() {
    let config = ConsumerConfig {
        max_deliver: Some(2),
        max_ack_pending: Some(1),
        ..explicit()
    };
    let mut bench = Bench::new(config, 2);
    bench.fetch(0);
    assert_eq!(bench.fetch(1000), Some((1, 2, 2)));
    bench.state.expire(at(2000));
    assert_eq!((bench.info()[2], bench.notices()), ((1, 1), vec![]));
    assert_eq!(bench.fetch(2000), Some((2, 3, 1)), "the slot is free again");
    assert_eq!(
        bench.notices(),
        [Notice::MaxDeliveries {
            seq: Seq(1),
            deliveries: 2
        }]
    );
    assert_eq!(
        bench.info(),
        [(3, 2), (0, 0), (1, 1)],
        "the reported floor stays"
    );
    bench.ack([2]);
    assert_eq!(bench.info(), [(3, 2), (3, 2), (0, 1)]);
}

#[test]
fn t59_a_given_up_message_is_held_until_it_is_acknowledged_late() {
    let mut bench = Bench::new(
        ConsumerConfig {
            max_deliver: Some(1),
            ..explicit()
        },
        1,
    );
    bench.fetch(0);
    bench.state.expire(at(1000));
    assert!(bench.state.holds(Seq(1)));
    assert!(matches!(
        bench.state.ack(Seq(1), at(1001)),
        AckOutcome::Applied(_)
    ));
    assert!(!bench.state.holds(Seq(1)));
    assert_eq!(
        bench.info()[1],
        (0, 0),
        "only an open message moves the reported floor"
    );
}

#[test]
fn t60_raising_max_deliver_does_not_revive_what_was_given_up() {
    let mut bench = Bench::new(
        ConsumerConfig {
            max_deliver: Some(1),
            ..explicit()
        },
        1,
    );
    bench.fetch(0);
    bench.state.expire(at(1000));
    bench.state.update_config(ConsumerConfig {
        max_deliver: Some(5),
        ..explicit()
    });
    bench.restart();
    assert_eq!(bench.fetch(9000), None);
}

#[test]
fn t67_a_full_window_stops_new_messages_but_not_redeliveries() {
    let mut bench = Bench::new(
        ConsumerConfig {
            max_ack_pending: Some(2),
            ..explicit()
        },
        5,
    );
    assert_eq!(bench.fetch_all(0), [1, 2]);
    assert_eq!(
        bench.state.plan(at(1)),
        Plan::Blocked(BlockReason::AckPendingFull)
    );
    assert_eq!(bench.fetch_all(1000), [1, 2]);
    bench.ack([2]);
    assert_eq!(bench.fetch_all(1001), [3]);
}

#[test]
fn t68_without_acknowledgements_the_floor_is_the_last_delivery() {
    let config = ConsumerConfig {
        ack: AckPolicy::None,
        max_deliver: Some(1),
        ..explicit()
    };
    let mut bench = Bench::new(config, 3);
    assert_eq!(bench.fetch_all(0), [1, 2, 3]);
    assert_eq!(bench.info(), [(3, 3), (3, 3), (0, 0)]);
    assert_eq!(bench.state.next_deadline(), None);
    assert_eq!(bench.fetch(99_999), None);
}

#[test]
fn t69_a_shorter_wait_applies_to_messages_already_delivered() {
    let mut bench = Bench::new(explicit(), 1);
    bench.fetch(0);
    bench.state.update_config(ConsumerConfig {
        ack_wait_ns: 200 * MS,
        ..explicit()
    });
    assert_eq!(bench.state.next_deadline(), Some(at(200)));
    assert_eq!(
        (bench.fetch(199), bench.fetch(200)),
        (None, Some((1, 2, 2)))
    );
}

#[test]
fn t77_a_delivery_that_reached_nobody_is_not_counted() {
    let mut bench = Bench::new(
        ConsumerConfig {
            max_deliver: Some(2),
            ..explicit()
        },
        2,
    );
    assert_eq!(bench.fetch(0), Some((1, 1, 1)));
    assert!(bench.state.undeliver(Seq(1), 1));
    assert_eq!(bench.info()[2], (1, 0));
    assert_eq!(bench.fetch(1), Some((1, 2, 1)));
    assert_eq!(bench.fetch(1001), Some((1, 3, 2)));
    assert!(bench.state.undeliver(Seq(1), 3));
    bench.restart();
    assert_eq!(bench.fetch(1002), Some((1, 4, 2)));
    bench.ack([1]);
    assert!(!bench.state.undeliver(Seq(1), 4));
}

#[test]
fn t77_without_acknowledgements_the_latest_delivery_can_be_taken_back() {
    let config = ConsumerConfig {
        ack: AckPolicy::None,
        ..explicit()
    };
    let mut bench = Bench::new(config, 3);
    bench.fetch_n(2, 0);
    assert!(!bench.state.undeliver(Seq(1), 1));
    assert!(bench.state.undeliver(Seq(2), 2));
    assert_eq!(bench.info(), [(1, 1), (1, 1), (0, 0)]);
    assert_eq!(bench.fetch(0), Some((2, 2, 1)));
    assert_eq!(bench.fetch(0), Some((3, 3, 1)));
}

#[test]
fn t79_a_pause_holds_redeliveries_too_while_waits_keep_running() {
    let mut bench = Bench::new(explicit(), 2);
    bench.fetch(0);
    bench.state.pause(Some(at(3000)));
    assert_eq!(
        bench.state.plan(at(1500)),
        Plan::Blocked(BlockReason::Paused)
    );
    assert_eq!(bench.state.next_deadline(), Some(at(3000)));
    assert_eq!(bench.fetch_all(3000), [1, 2]);
    bench.state.pause(Some(at(9000)));
    bench.state.pause(None);
    assert_eq!(bench.fetch_all(4000), [1, 2]);
}

#[test]
fn t80_a_pause_in_the_past_is_none() {
    let config = ConsumerConfig {
        pause_until: Some(at(10)),
        ..explicit()
    };
    let mut bench = Bench::new(config, 1);
    assert!(!bench.state.is_paused(at(10)));
    assert_eq!(bench.fetch_all(10), [1]);
    let deadline = bench.state.next_deadline();
    assert!(
        deadline > Some(at(1000)),
        "the pause is no deadline any more"
    );
}

#[test]
fn t116_backoff_with_a_delivery_limit() {
    let config = ConsumerConfig {
        backoff_ns: vec![200 * MS, 600 * MS],
        max_deliver: Some(4),
        ..explicit()
    };
    let mut bench = Bench::new(config, 1);
    let times: Vec<u64> = (0..3000)
        .step_by(10)
        .filter(|&ms| bench.fetch(ms).is_some())
        .collect();
    assert_eq!(times, [0, 200, 800, 1400]);
    assert_eq!(
        bench.notices(),
        [Notice::MaxDeliveries {
            seq: Seq(1),
            deliveries: 4
        }]
    );
}

#[test]
fn a_commit_of_an_outdated_plan_is_refused() {
    let mut bench = Bench::new(explicit(), 3);
    assert_eq!(bench.state.deliver_new(Seq(2), Seq(2), at(0)), Err(Moved));
    bench.fetch(0);
    assert_eq!(bench.state.deliver_new(Seq(1), Seq(1), at(0)), Err(Moved));
    assert_eq!(bench.state.skip_to(Seq(1), Seq(9)), Err(Moved));
    assert_eq!(bench.state.redeliver(Seq(1), at(0)), Err(Moved));
    assert_eq!(bench.state.plan(at(1000)), Plan::Redeliver(Seq(1)));
    bench.ack([1]);
    assert_eq!(bench.state.redeliver(Seq(1), at(1000)), Err(Moved));
}

#[test]
fn dlv022_waits_continue_after_a_restart() {
    let mut bench = Bench::new(explicit(), 2);
    bench.fetch(100);
    bench.state.nak(Seq(1), Some(5000 * MS), at(100));
    bench.fetch(200);
    bench.restart();
    assert_eq!(
        (bench.fetch(1199), bench.fetch(1200)),
        (None, Some((2, 3, 2)))
    );
    bench.ack([2]);
    assert_eq!(
        (bench.fetch(5099), bench.fetch(5100)),
        (None, Some((1, 4, 2)))
    );
}
