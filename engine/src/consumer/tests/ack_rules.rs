//! What acknowledgements do.

use roaring::RoaringTreemap;

use super::bench::{Bench, MS, at, explicit};
use crate::consumer::{AckOutcome, AckPolicy, Acked, ConsumerConfig, Notice, RemovalReason};
use crate::ids::Seq;

fn ack_all() -> ConsumerConfig {
    ConsumerConfig {
        ack: AckPolicy::All,
        ..explicit()
    }
}

fn many(seqs: &[u64]) -> AckOutcome {
    AckOutcome::Applied(Acked::Many(
        seqs.iter().copied().collect::<RoaringTreemap>(),
    ))
}

#[test]
fn t61_a_delay_counts_from_the_refusal() {
    for delay_ms in [0, 10, 5000] {
        let mut bench = Bench::new(explicit(), 1);
        bench.fetch(0);
        let outcome = bench.state.nak(Seq(1), Some(delay_ms * MS), at(500));
        assert_eq!(outcome, AckOutcome::Applied(Acked::Nothing));
        assert_eq!(bench.info()[2], (1, 0));
        if delay_ms > 0 {
            assert_eq!(bench.fetch(499 + delay_ms), None);
        }
        assert_eq!(bench.fetch(500 + delay_ms), Some((1, 2, 2)));
    }
}

#[test]
fn t62_late_words_about_a_finished_message_are_answered_without_effect() {
    let mut bench = Bench::new(explicit(), 1);
    bench.fetch(0);
    assert_eq!(
        bench.state.ack(Seq(1), at(1)),
        AckOutcome::Applied(Acked::One(Seq(1)))
    );
    assert_eq!(bench.state.ack(Seq(1), at(1)), AckOutcome::AlreadyDone);
    assert_eq!(
        bench.state.nak(Seq(1), None, at(1)),
        AckOutcome::AlreadyDone
    );
    assert_eq!(
        bench.state.in_progress(Seq(1), at(1)),
        AckOutcome::AlreadyDone
    );
    assert_eq!(bench.state.term(Seq(1), at(1)), AckOutcome::AlreadyDone);
    assert_eq!(bench.notices(), []);
    assert_eq!((bench.fetch(9000), bench.info()[1]), (None, (1, 1)));
}

#[test]
fn t63_a_message_that_was_not_delivered_cannot_be_acknowledged() {
    for config in [explicit(), ack_all()] {
        let mut bench = Bench::new(config, 3);
        bench.fetch(0);
        for seq in [0, 2, 99, u64::MAX] {
            assert_eq!(bench.state.ack(Seq(seq), at(1)), AckOutcome::Ignored);
            assert_eq!(bench.state.nak(Seq(seq), None, at(1)), AckOutcome::Ignored);
            assert_eq!(
                bench.state.in_progress(Seq(seq), at(1)),
                AckOutcome::Ignored
            );
        }
        assert_eq!(bench.info(), [(1, 1), (0, 0), (1, 0)]);
    }
}

#[test]
fn t64_ack_all_covers_everything_delivered_below() {
    let mut bench = Bench::new(ack_all(), 9);
    bench.stored.insert(2, false);
    bench.fetch_n(5, 0);
    assert_eq!(bench.state.ack(Seq(4), at(1)), many(&[1, 3, 4]));
    assert_eq!(bench.info(), [(5, 6), (3, 4), (2, 0)]);
    assert_eq!(bench.state.ack(Seq(4), at(1)), AckOutcome::AlreadyDone);
    assert_eq!(bench.state.ack(Seq(1), at(1)), AckOutcome::AlreadyDone);
    assert_eq!(bench.fetch_n(2, 1001), [5, 6]);
    assert_eq!(bench.state.ack(Seq(6), at(1)), many(&[5, 6]));
    assert_eq!(bench.info(), [(7, 6), (7, 6), (0, 0)]);
}

#[test]
fn t65_a_late_ack_cancels_the_redelivery() {
    let mut bench = Bench::new(explicit(), 1);
    bench.fetch(0);
    assert_eq!(bench.fetch(1000), Some((1, 2, 2)));
    bench.ack([1]);
    assert_eq!(bench.info(), [(2, 1), (2, 1), (0, 0)]);
    assert_eq!(bench.fetch(9000), None);
}

#[test]
fn t65_a_late_ack_uses_the_consumer_sequence_of_the_first_delivery() {
    let mut bench = Bench::new(explicit(), 2);
    bench.fetch_n(2, 0);
    bench.fetch_n(2, 1000);
    bench.ack([1]);
    assert_eq!(bench.info(), [(4, 2), (1, 1), (1, 1)]);
}

#[test]
fn ack_none_takes_no_acknowledgements() {
    let mut bench = Bench::new(
        ConsumerConfig {
            ack: AckPolicy::None,
            ..explicit()
        },
        1,
    );
    bench.fetch(0);
    assert_eq!(bench.state.ack(Seq(1), at(1)), AckOutcome::Ignored);
    assert_eq!(bench.state.ack_all(Seq(1), at(1)), AckOutcome::Ignored);
    assert_eq!(bench.state.nak(Seq(1), None, at(1)), AckOutcome::Ignored);
}

#[test]
fn ack004_progress_restarts_the_wait() {
    let mut bench = Bench::new(explicit(), 1);
    bench.fetch(0);
    bench.state.in_progress(Seq(1), at(900));
    assert_eq!(
        (bench.fetch(1899), bench.fetch(1900)),
        (None, Some((1, 2, 2)))
    );
}

#[test]
fn ack005_a_terminated_message_never_comes_back_and_is_announced() {
    let mut bench = Bench::new(explicit(), 1);
    bench.fetch(0);
    bench.fetch(1000);
    assert_eq!(
        bench.state.term(Seq(1), at(1001)),
        AckOutcome::Applied(Acked::One(Seq(1)))
    );
    let notice = Notice::Terminated {
        seq: Seq(1),
        consumer_seq: 1,
        deliveries: 2,
        reason: RemovalReason::Terminated,
    };
    assert_eq!(bench.notices(), [notice]);
    assert_eq!(
        (bench.fetch(9000), bench.info()),
        (None, [(2, 1), (2, 1), (0, 0)])
    );
}

#[test]
fn ack002_a_refusal_is_announced_and_queued_once() {
    let mut bench = Bench::new(explicit(), 2);
    bench.fetch_n(2, 0);
    bench.state.nak(Seq(1), None, at(1));
    bench.state.nak(Seq(1), None, at(1));
    let notice = Notice::Nak {
        seq: Seq(1),
        consumer_seq: 1,
        deliveries: 1,
    };
    assert_eq!(bench.notices(), [notice, notice]);
    assert_eq!(bench.fetch_all(1), [1]);
}

#[test]
fn a_delay_takes_a_queued_message_out_of_the_queue() {
    let mut bench = Bench::new(explicit(), 2);
    bench.fetch_n(2, 0);
    bench.state.nak(Seq(1), None, at(1));
    bench.state.nak(Seq(1), Some(100 * MS), at(1));
    assert_eq!(
        (bench.fetch(100), bench.fetch(101)),
        (None, Some((1, 3, 2)))
    );
}

#[test]
fn notices_are_bounded_and_the_loss_is_counted() {
    let mut bench = Bench::new(explicit(), 1);
    bench.fetch(0);
    for _ in 0..5000 {
        bench.state.nak(Seq(1), None, at(1));
    }
    assert_eq!(
        bench.notices().len() as u64 + bench.state.notices_dropped(),
        5000
    );
    assert!(bench.state.notices_dropped() > 0);
}

#[test]
fn dlv016_the_floor_of_a_filtered_consumer_stops_below_the_next_open_message() {
    let mut bench = Bench::new(explicit(), 0);
    for at in 0..6 {
        bench.publish(at % 2 == 0);
    }
    assert_eq!(bench.fetch_all(0), [1, 3, 5]);
    bench.ack([1]);
    assert_eq!(bench.info(), [(3, 5), (1, 2), (2, 0)]);
    bench.ack([5]);
    assert_eq!(bench.info(), [(3, 5), (1, 2), (1, 0)]);
    bench.ack([3]);
    assert_eq!(bench.info(), [(3, 5), (3, 5), (0, 0)]);
}

#[test]
fn dlv016_redeliveries_in_between_leave_no_gap_in_the_floor() {
    let mut bench = Bench::new(explicit(), 3);
    bench.fetch_n(2, 0);
    assert_eq!(bench.fetch_n(3, 1000), [1, 2, 3]);
    bench.ack([1]);
    assert_eq!(bench.info(), [(5, 3), (1, 1), (2, 1)]);
    bench.ack([2]);
    assert_eq!(bench.info(), [(5, 3), (4, 2), (1, 0)]);
}

#[test]
fn t58_a_given_up_message_acknowledged_late_is_no_longer_counted() {
    let mut bench = Bench::new(
        ConsumerConfig {
            max_deliver: Some(2),
            ..explicit()
        },
        5,
    );
    bench.fetch_n(3, 0);
    bench.fetch_n(3, 1000);
    assert_eq!(bench.fetch_n(2, 2000), [4, 5]);
    assert_eq!(bench.info(), [(8, 5), (0, 0), (2, 3)]);
    assert_eq!(
        bench.state.ack(Seq(2), at(2000)),
        AckOutcome::Applied(Acked::One(Seq(2)))
    );
    assert_eq!(bench.info(), [(8, 5), (0, 0), (2, 2)]);
    assert_eq!(
        bench.state.nak(Seq(1), None, at(2000)),
        AckOutcome::AlreadyDone
    );
    bench.ack([4]);
    assert_eq!(bench.info(), [(8, 5), (7, 4), (1, 2)]);
}

#[test]
fn ack005_terminating_with_ack_all_covers_everything_below() {
    let mut bench = Bench::new(ack_all(), 10);
    bench.fetch_n(5, 0);
    assert_eq!(bench.state.term(Seq(3), at(1)), many(&[1, 2, 3]));
    assert_eq!(bench.info(), [(5, 5), (3, 3), (2, 0)]);
}
