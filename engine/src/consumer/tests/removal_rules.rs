//! Messages that leave the stream under a consumer.

use super::bench::{Bench, at, explicit};
use crate::consumer::{ConsumerConfig, Notice, Purge, RemovalReason};
use crate::ids::Seq;

fn terminated(seq: u64, consumer_seq: u64, reason: RemovalReason) -> Notice {
    Notice::Terminated {
        seq: Seq(seq),
        consumer_seq,
        deliveries: 1,
        reason,
    }
}

#[test]
fn t01_a_full_purge_finishes_everything() {
    let mut bench = Bench::new(explicit(), 100);
    bench.fetch_n(75, 0);
    bench.ack(1..=50);
    bench.purge_below(101);
    assert_eq!(bench.info(), [(75, 100), (75, 100), (0, 0)]);
    assert_eq!(bench.notices(), []);
    assert_eq!(bench.fetch(5000), None);
    bench.publish(true);
    assert_eq!(bench.fetch(5000), Some((101, 76, 1)));
}

#[test]
fn t02_a_purge_empties_the_redelivery_queue() {
    let mut bench = Bench::new(explicit(), 60);
    bench.fetch_n(50, 0);
    bench.state.expire(at(2000));
    bench.purge_below(61);
    assert_eq!(bench.info(), [(50, 60), (50, 60), (0, 0)]);
    assert_eq!(bench.fetch(5000), None);
}

#[test]
fn t03_a_narrower_purge_takes_only_what_is_gone() {
    let mut bench = Bench::new(explicit(), 6);
    bench.fetch_n(4, 0);
    bench.stored.retain(|seq, _| seq % 2 == 0);
    bench
        .state
        .purged(Purge::Partial { first_seq: Seq(2) }, |seq| seq.0 % 2 == 0);
    assert_eq!(bench.info(), [(4, 4), (3, 1), (2, 0)]);
    assert_eq!(bench.fetch_all(1000), [2, 4, 6]);
    bench.ack([2, 4]);
    assert_eq!(bench.info()[1], (6, 5));
}

#[test]
fn t04_a_covering_purge_moves_to_the_first_remaining_match() {
    let mut bench = Bench::new(explicit(), 20);
    bench.fetch_n(12, 0);
    bench.purge_below(10);
    assert_eq!(bench.info(), [(12, 12), (9, 9), (3, 0)]);
    bench.purge_below(17);
    assert_eq!(bench.info(), [(12, 16), (12, 16), (0, 0)]);
    assert_eq!(bench.fetch(0), Some((17, 13, 1)));
}

#[test]
fn t09_deleting_an_open_message_terminates_it() {
    let mut bench = Bench::new(explicit(), 3);
    bench.fetch_n(3, 0);
    bench.delete(1, RemovalReason::Deleted);
    assert_eq!(bench.notices(), [terminated(1, 1, RemovalReason::Deleted)]);
    assert_eq!(bench.info(), [(3, 3), (1, 1), (2, 0)]);
    assert_eq!(bench.fetch_all(1000), [2, 3]);
    bench.delete(3, RemovalReason::Deleted);
    assert_eq!(
        bench.notices(),
        [terminated(3, 3, RemovalReason::Deleted)],
        "redeliveries count"
    );
}

#[test]
fn t10_deleting_a_message_ahead_changes_only_the_count() {
    let mut bench = Bench::new(explicit(), 3);
    bench.fetch(0);
    bench.delete(2, RemovalReason::Deleted);
    assert_eq!(bench.info(), [(1, 1), (0, 0), (1, 0)]);
    assert_eq!(bench.notices(), []);
    assert_eq!(bench.fetch_all(0), [3]);
}

#[test]
fn t11_limits_terminate_open_messages_and_lift_the_floor() {
    let mut bench = Bench::new(explicit(), 200);
    bench.fetch_n(120, 0);
    bench.ack(1..=30);
    bench.ack(51..=100);
    bench.stored.retain(|&seq, _| seq >= 90);
    bench.state.trimmed(Seq(90));
    let expected: Vec<_> = (31..=50)
        .map(|seq| terminated(seq, seq, RemovalReason::Limits))
        .collect();
    assert_eq!(bench.notices(), expected);
    assert_eq!(bench.info(), [(120, 120), (100, 100), (20, 0)]);
    bench.state.trimmed(Seq(150));
    assert_eq!(bench.info(), [(120, 120), (120, 120), (0, 0)]);
    assert!(bench.state.has_events());
    bench.state.drain_events(&mut Vec::new());
    bench.state.trimmed(Seq(160));
    assert!(!bench.state.has_events(), "nothing open: nothing to record");
    bench.stored.retain(|&seq, _| seq >= 160);
    assert_eq!(bench.fetch(0), Some((160, 121, 1)));
}

#[test]
fn t11_a_floor_held_by_a_given_up_message_follows_the_stream() {
    let mut bench = Bench::new(
        ConsumerConfig {
            max_deliver: Some(1),
            ..explicit()
        },
        100,
    );
    bench.fetch_n(80, 0);
    bench.state.in_progress(Seq(80), at(900));
    bench.state.expire(at(1000));
    assert_eq!(bench.info(), [(80, 80), (0, 0), (1, 0)]);
    bench.state.trimmed(Seq(60));
    assert_eq!(bench.info(), [(80, 80), (79, 79), (1, 0)]);
    assert!(!bench.state.holds(Seq(59)) && bench.state.holds(Seq(60)));
}

#[test]
fn t105_a_reset_starts_over() {
    let mut bench = Bench::new(explicit(), 10);
    bench.fetch_n(6, 0);
    bench.ack([1, 2]);
    bench.state.expire(at(1000));
    let above_floor = bench.state.info().ack_floor.stream_seq.next();
    bench.state.reset(above_floor);
    assert_eq!(bench.info(), [(0, 2), (0, 2), (0, 0)]);
    assert_eq!(bench.fetch(1000), Some((3, 1, 1)));
    bench.state.reset(Seq(9));
    assert_eq!(bench.fetch_all(1000), [9, 10]);
}

#[test]
fn a_listed_message_that_disappears_is_not_delivered() {
    let start = crate::consumer::StartPosition {
        next: Seq(5),
        listed: vec![Seq(2), Seq(4)],
    };
    let mut bench = Bench::new(explicit(), 5);
    bench.state = crate::consumer::ConsumerState::new(explicit(), &start);
    bench.delete(2, RemovalReason::Deleted);
    assert_eq!(bench.state.listed().collect::<Vec<_>>(), [Seq(4)]);
    assert_eq!(bench.fetch_all(0), [4, 5]);
}
