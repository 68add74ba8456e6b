//! Random histories, with restarts at any point, against the model.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::bench::{Bench, MS};
use super::model::{Model, Said};
use crate::consumer::invariants::violated;
use crate::consumer::{
    AckOutcome, AckPolicy, Acked, ConsumerConfig, ConsumerState, Purge, RemovalReason,
    StartPosition,
};
use crate::ids::{Seq, TimestampNs};

/// One step. Sequences are picked relative to the highest delivered one.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        matching: u8,
        other: u8,
    },
    Fetch(u8),
    Ack(u8),
    AckRange(u8, u8),
    Nak(u8),
    NakDelay(u8, u16),
    Term(u8),
    Progress(u8),
    Undeliver,
    Wait(u16),
    Expire,
    Remove(u8),
    Trim(u8),
    PurgeBelow(u8),
    PurgeEvery(u8),
    Reset(u8),
    Update {
        ack_wait_ms: u16,
        max_deliver: u8,
        max_ack_pending: u8,
    },
    Pause(u16),
    Drain,
    RestartFromSnapshot,
    RestartFromEvents,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, 0u8..2).prop_map(|(matching, other)| Step::Publish { matching, other }),
        8 => (1u8..6).prop_map(Step::Fetch),
        6 => (0u8..12).prop_map(Step::Ack),
        2 => (0u8..12, 0u8..8).prop_map(|(back, n)| Step::AckRange(back, n)),
        3 => (0u8..12).prop_map(Step::Nak),
        2 => (0u8..12, 0u16..3000).prop_map(|(back, ms)| Step::NakDelay(back, ms)),
        1 => (0u8..12).prop_map(Step::Term),
        2 => (0u8..12).prop_map(Step::Progress),
        2 => Just(Step::Undeliver),
        5 => (0u16..2500).prop_map(Step::Wait),
        2 => Just(Step::Expire),
        2 => (0u8..16).prop_map(Step::Remove),
        1 => (0u8..16).prop_map(Step::Trim),
        1 => (0u8..16).prop_map(Step::PurgeBelow),
        1 => (2u8..5).prop_map(Step::PurgeEvery),
        1 => (0u8..20).prop_map(Step::Reset),
        1 => (0u16..2000, 0u8..5, 0u8..8).prop_map(|(ack_wait_ms, max_deliver, max_ack_pending)|
            Step::Update { ack_wait_ms, max_deliver, max_ack_pending }),
        1 => (0u16..3000).prop_map(Step::Pause),
        2 => Just(Step::Drain),
        2 => Just(Step::RestartFromSnapshot),
        2 => Just(Step::RestartFromEvents),
    ]
}

prop_compose! {
    fn config()(
        ack in prop_oneof![
            1 => Just(AckPolicy::None), 2 => Just(AckPolicy::All), 5 => Just(AckPolicy::Explicit)
        ],
        ack_wait_ms in 0u64..2000,
        backoff_ms in vec(1u64..2000, 0..3),
        max_deliver in proptest::option::of(1u64..4),
        max_ack_pending in proptest::option::of(1u64..8),
    ) -> ConsumerConfig {
        ConsumerConfig {
            ack,
            ack_wait_ns: ack_wait_ms * MS,
            backoff_ns: backoff_ms.iter().map(|ms| ms * MS).collect(),
            max_deliver,
            max_ack_pending,
            ..ConsumerConfig::default()
        }
    }
}

/// The consumer, the model beside it and what a restart would find.
struct Pair {
    bench: Bench,
    model: Model,
    now_ms: u64,
    /// Snapshot and the batches drained since.
    snapshot: Vec<u8>,
    batches: Vec<Vec<u8>>,
    /// The containers that checkpoints have written, as they are kept.
    kept: BTreeMap<u64, Vec<u8>>,
    latest: (u64, u64),
}

fn said(outcome: AckOutcome) -> Said {
    match outcome {
        AckOutcome::Applied(Acked::Nothing) => Said::Applied(vec![]),
        AckOutcome::Applied(Acked::One(seq)) => Said::Applied(vec![seq.0]),
        AckOutcome::Applied(Acked::Many(seqs)) => Said::Applied(seqs.iter().collect()),
        AckOutcome::AlreadyDone => Said::AlreadyDone,
        AckOutcome::Ignored => Said::Ignored,
    }
}

fn snapshot_of(state: &ConsumerState) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.encode_snapshot(&mut bytes);
    bytes
}

impl Pair {
    /// The stream's first message is `base + 1`.
    fn new(config: ConsumerConfig, base: u64, next: u64, listed: Vec<u64>) -> Pair {
        let next = base + next;
        let listed: Vec<u64> = listed.iter().map(|seq| base + seq).collect();
        let start = StartPosition {
            next: Seq(next),
            listed: listed.iter().copied().map(Seq).collect(),
        };
        let mut bench = Bench::starting(config.clone(), 8, next);
        bench.state = ConsumerState::new(config.clone(), &start);
        bench.stored = (base + 1..=base + 8).map(|seq| (seq, true)).collect();
        bench.last = base + 8;
        let snapshot = snapshot_of(&bench.state);
        let model = Model::new(config, next, listed);
        Pair {
            bench,
            model,
            now_ms: 1000,
            snapshot,
            batches: vec![],
            kept: BTreeMap::new(),
            latest: (0, 0),
        }
    }

    fn now(&self) -> TimestampNs {
        TimestampNs((self.now_ms * MS) as i64)
    }

    /// A sequence around the highest delivered one: two ahead to many behind.
    fn pick(&self, back: u8) -> u64 {
        (self.model.delivered.1 + 2).saturating_sub(u64::from(back))
    }

    fn drain(&mut self) {
        let mut batch = Vec::new();
        if self.bench.state.drain_events(&mut batch) > 0 {
            self.batches.push(batch);
        }
    }

    fn restart(&mut self, from_events: bool) {
        self.drain();
        let config = self.bench.state.config().clone();
        let live = snapshot_of(&self.bench.state);
        let restored = if from_events {
            let mut state =
                ConsumerState::decode_snapshot(config, &self.snapshot).expect("own snapshot");
            for batch in &self.batches {
                state.apply_events(batch).expect("own batch");
                state
                    .apply_events(batch)
                    .expect("a batch once more changes nothing");
            }
            state
        } else {
            self.snapshot.clone_from(&live);
            self.batches.clear();
            self.restored_from_parts(config)
        };
        assert_eq!(snapshot_of(&restored), live);
        let kept = self.bench.state.take_notices();
        assert!(kept.is_empty(), "notices are compared after every step");
        self.bench.state = restored;
        self.model.restart();
    }

    /// What a restart finds that reads a head and the containers kept so far. A checkpoint that
    /// fails comes before the one that is kept.
    fn restored_from_parts(&mut self, config: ConsumerConfig) -> ConsumerState {
        let live = &mut self.bench.state;
        let lost = live.take_changed();
        live.put_back_changed(lost.into_iter().map(|(number, _)| number));
        for (number, container) in live.take_changed() {
            match container {
                Some(container) => self.kept.insert(number, container),
                None => self.kept.remove(&number),
            };
        }
        let mut head = Vec::new();
        live.encode_head(&mut head);
        let mut state = ConsumerState::decode_head(config, &head).expect("own head");
        for (&number, container) in &self.kept {
            state
                .load_container(number, container)
                .expect("own container");
        }
        state.finish_loading().expect("own state");
        state
    }

    fn apply(&mut self, step: &Step) {
        let (now, now_ns) = (self.now(), self.now().0);
        let (state, model) = (&mut self.bench.state, &mut self.model);
        match *step {
            Step::Publish { matching, other } => {
                (0..matching).for_each(|_| _ = self.bench.publish(true));
                (0..other).for_each(|_| _ = self.bench.publish(false));
            }
            Step::Fetch(n) => (0..n).for_each(|_| self.fetch()),
            Step::Ack(back) => self.ack(self.pick(back)),
            Step::AckRange(back, n) => {
                let first = self.pick(back);
                (first..first + u64::from(n)).for_each(|seq| self.ack(seq));
            }
            Step::Nak(back) => self.nak(self.pick(back), None),
            Step::NakDelay(back, ms) => self.nak(self.pick(back), Some(u64::from(ms) * MS)),
            Step::Term(back) => {
                let seq = self.pick(back);
                let outcome = self.bench.state.term(Seq(seq), now);
                assert_eq!(said(outcome), self.model.term(seq));
            }
            Step::Progress(back) => {
                let seq = self.pick(back);
                let outcome = self.bench.state.in_progress(Seq(seq), now);
                assert_eq!(said(outcome), self.model.in_progress(seq, now_ns));
            }
            Step::Undeliver => {
                let (seq, consumer_seq) = self.latest;
                let done = state.undeliver(Seq(seq), consumer_seq);
                assert_eq!(done, model.undeliver(seq, consumer_seq));
            }
            Step::Wait(ms) => self.now_ms += u64::from(ms),
            Step::Expire => {
                state.expire(now);
                model.expire(now_ns);
                assert!(state.next_deadline().is_none_or(|due| due > now));
            }
            Step::Remove(back) => self.remove(self.pick(back)),
            Step::Trim(back) => {
                let first_seq = self.pick(back).min(self.bench.last + 1);
                self.bench.stored.retain(|&seq, _| seq >= first_seq);
                self.bench.state.trimmed(Seq(first_seq));
                self.model.trimmed(first_seq);
            }
            Step::PurgeBelow(back) => self.purge_below(self.pick(back)),
            Step::PurgeEvery(n) => self.purge_every(u64::from(n)),
            Step::Reset(back) => {
                let next = self.pick(back).max(1);
                self.bench.state.reset(Seq(next));
                self.model.reset(next);
                self.latest = (0, 0);
            }
            Step::Update {
                ack_wait_ms,
                max_deliver,
                max_ack_pending,
            } => {
                let limit = |value: u8| (value > 0).then_some(u64::from(value));
                let mut config = state.config().clone();
                config.ack_wait_ns = u64::from(ack_wait_ms) * MS;
                config.max_deliver = limit(max_deliver);
                config.max_ack_pending = limit(max_ack_pending);
                state.update_config(config.clone());
                model.config = config;
            }
            Step::Pause(ms) => {
                let until = Some(TimestampNs(now_ns + (u64::from(ms) * MS) as i64));
                state.pause(until);
                model.config.pause_until = until;
            }
            Step::Drain => self.drain(),
            Step::RestartFromSnapshot => self.restart(false),
            Step::RestartFromEvents => self.restart(true),
        }
    }

    fn fetch(&mut self) {
        let got = self.bench.fetch(self.now_ms);
        let now_ns = self.now().0;
        assert_eq!(
            got,
            self.model
                .fetch(now_ns, &self.bench.stored, self.bench.last)
        );
        if let Some((seq, consumer_seq, _)) = got {
            self.latest = (seq, consumer_seq);
        }
    }

    fn ack(&mut self, seq: u64) {
        let outcome = self.bench.state.ack(Seq(seq), self.now());
        assert_eq!(said(outcome), self.model.ack(seq));
    }

    fn nak(&mut self, seq: u64, delay_ns: Option<u64>) {
        let now = self.now();
        let outcome = self.bench.state.nak(Seq(seq), delay_ns, now);
        assert_eq!(said(outcome), self.model.nak(seq, delay_ns, now.0));
    }

    fn remove(&mut self, seq: u64) {
        if self.bench.stored.contains_key(&seq) {
            self.bench.delete(seq, RemovalReason::Deleted);
            self.model.removed(seq, RemovalReason::Deleted);
        }
    }

    fn purge_below(&mut self, up_to: u64) {
        let end = up_to.clamp(1, self.bench.last + 1);
        let mut ahead = self.bench.stored.range(end..);
        let resume = ahead.find(|&(_, &matches)| matches).map(|(&seq, _)| seq);
        let resume = resume.unwrap_or(self.bench.last + 1);
        self.bench.stored.retain(|&seq, _| seq >= end);
        self.bench.state.purged(
            Purge::Covering {
                resume: Seq(resume),
            },
            |_| true,
        );
        self.model.purged_below(resume);
    }

    fn purge_every(&mut self, n: u64) {
        self.bench.stored.retain(|seq, _| seq % n != 0);
        let last = self.bench.last;
        let first_seq = self.bench.stored.keys().next().copied().unwrap_or(last + 1);
        let stored = &self.bench.stored;
        let exists = |seq: Seq| stored.contains_key(&seq.0);
        self.bench.state.purged(
            Purge::Partial {
                first_seq: Seq(first_seq),
            },
            exists,
        );
        self.model.purged_partly(first_seq, stored);
    }

    fn check(&mut self) {
        let (state, model) = (&self.bench.state, &self.model);
        assert_eq!(violated(state), None);
        let counts = model.counts();
        assert_eq!(self.bench.info(), [model.delivered, model.floor, counts]);
        for seq in model.held() {
            assert!(state.holds(Seq(seq)));
        }
        if let Some(due) = model.next_deadline() {
            assert!(
                state.next_deadline().is_some_and(|at| at.0 <= due),
                "a wake-up is missed"
            );
        }
        assert_eq!(
            self.bench.notices(),
            std::mem::take(&mut self.model.notices)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_consumer_behaves_like_the_model(
        config in config(), next in 1u64..12, listed in vec(any::<bool>(), 0..8),
        // Around the end of a container, too.
        base in prop_oneof![Just(0u64), (1u64 << 16) - 30..1 << 16],
        steps in vec(step(), 1..80),
    ) {
        let listed = listed.iter().zip(1..next).filter(|(listed, _)| **listed);
        let mut pair = Pair::new(config, base, next, listed.map(|(_, seq)| seq).collect());
        for step in &steps {
            pair.apply(step);
            pair.check();
        }
        pair.restart(true);
        pair.check();
    }

    #[test]
    fn stored_bytes_are_decoded_or_refused(
        snapshot in vec(any::<u8>(), 0..120), events in vec(any::<u8>(), 0..120),
        ack in prop_oneof![Just(AckPolicy::None), Just(AckPolicy::Explicit)],
    ) {
        let config = ConsumerConfig { ack, ack_wait_ns: 5, ..ConsumerConfig::default() };
        let _ = ConsumerState::decode_snapshot(config.clone(), &snapshot);
        let mut state = ConsumerState::new(config, &StartPosition::default());
        let mut numbered = vec![1];
        numbered.extend_from_slice(&events);
        if state.apply_events(&numbered).is_ok() {
            state.drain_events(&mut Vec::new());
            snapshot_of(&state);
        }
    }

    /// Well-formed events in an order no consumer would record.
    #[test]
    fn any_sequence_of_events_leaves_a_consistent_state_or_is_refused(
        events in vec((0u8..15, 0u8..4, 0u8..12, 0u8..3), 1..30),
        next in 1u64..8, ack in prop_oneof![Just(AckPolicy::None), Just(AckPolicy::Explicit)],
    ) {
        let config = ConsumerConfig { ack, ack_wait_ns: 5, ..ConsumerConfig::default() };
        let start = StartPosition { next: Seq(next), listed: (1..next).map(Seq).collect() };
        let mut state = ConsumerState::new(config, &start);
        for (number, (kind, count, operand, last)) in events.into_iter().enumerate() {
            let mut batch = vec![number as u8 + 1, kind | count << 4, operand];
            // Kinds with a time and the one with a list of runs need one more number.
            batch.extend([last].iter().take(usize::from(matches!(kind, 0 | 3 | 6 | 7 | 11))));
            batch.extend([1, 1].iter().cycle().take(2 * usize::from(last) * usize::from(kind == 11)));
            if state.apply_events(&batch).is_err() {
                break;
            }
            prop_assert_eq!(violated(&state), None);
        }
    }

    #[test]
    fn damaged_snapshots_and_batches_never_panic(
        config in config(), steps in vec(step(), 1..40),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut pair = Pair::new(config, 0, 1, vec![]);
        for step in &steps {
            pair.apply(step);
            pair.bench.notices();
        }
        pair.drain();
        let config = pair.bench.state.config().clone();
        let mut bytes = snapshot_of(&pair.bench.state);
        for (at, value) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        let stored = BTreeMap::from_iter((1..40).map(|seq| (seq, true)));
        for (snapshot, damaged_batches) in [(bytes, false), (pair.snapshot.clone(), true)] {
            let Ok(mut state) = ConsumerState::decode_snapshot(config.clone(), &snapshot) else {
                continue;
            };
            for batch in &pair.batches {
                let mut batch = batch.clone();
                for (at, value) in &damage {
                    let at = at.index(batch.len());
                    batch[at] = if damaged_batches { *value } else { batch[at] };
                }
                if state.apply_events(&batch).is_err() {
                    break;
                }
            }
            if violated(&state).is_none() {
                let mut bench = Bench { state, stored: stored.clone(), last: 40 };
                for _ in 0..50 {
                    bench.fetch(1 << 40);
                }
            }
        }
    }
}

#[test]
fn a_missing_batch_is_refused() {
    let mut bench = Bench::new(super::bench::explicit(), 3);
    let fresh = bench.state.clone();
    let mut batches = [vec![], vec![]];
    for batch in &mut batches {
        bench.fetch(0);
        assert_eq!(bench.state.drain_events(batch), 1);
    }
    let mut state = fresh;
    assert!(state.apply_events(&batches[1]).is_err());
    assert_eq!(state.apply_events(&batches[0]), Ok(()));
    assert_eq!(state.apply_events(&batches[1]), Ok(()));
    assert_eq!(state.info().delivered.consumer_seq, 2);
}

#[test]
fn an_acknowledgement_is_recorded_in_a_few_bytes() {
    let mut bench = Bench::new(super::bench::explicit(), 1000);
    bench.fetch_all(0);
    bench.state.drain_events(&mut Vec::new());
    bench.ack((1..=1000).step_by(2));
    let mut bytes = Vec::new();
    assert_eq!(bench.state.drain_events(&mut bytes), 500);
    assert!(bytes.len() <= 500 * 3 + 1, "{} bytes", bytes.len());
    bench.ack((2..=1000).step_by(2));
    bytes.clear();
    bench.state.drain_events(&mut bytes);
    bench.fetch_all(0);
    let mut memory = Bench::new(
        ConsumerConfig {
            memory: true,
            ..super::bench::explicit()
        },
        3,
    );
    memory.fetch_all(0);
    assert_eq!(memory.state.drain_events(&mut bytes), 0);
}
