//! The stored forms of consumers.

use crate::consumer::invariants::violated;
use crate::consumer::{AckPolicy, Claim, ConsumerConfig, ConsumerState};
use crate::ids::{Seq, TimestampNs};

/// Takes the input as a configuration, a whole state, claims, a head with a container, and events on
/// top of a state. What is accepted is consistent, works, and is written as it was read.
pub fn fuzz_consumer(data: &[u8]) {
    _ = ConsumerConfig::decode(data);
    if let Ok(claims) = Claim::decode_all(data) {
        let claims: Vec<_> = claims.into_iter().map(std::sync::Arc::new).collect();
        let mut again = Vec::new();
        Claim::encode_all(&claims, &mut again);
        assert_eq!(
            Claim::decode_all(&again).map(|back| back.len()),
            Ok(claims.len())
        );
    }
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let config = ConsumerConfig {
        ack: [AckPolicy::None, AckPolicy::All, AckPolicy::Explicit][usize::from(first) % 3],
        ack_wait_ns: 1_000,
        max_deliver: (first & 4 != 0).then_some(2),
        ..ConsumerConfig::default()
    };
    if let Ok(state) = ConsumerState::decode_snapshot(config.clone(), rest) {
        works(state, &config);
    }
    // A short head, so that the rest reaches the container or the events.
    let head = [1, 1, 9, 90, 0, 0, 100, 0];
    let state = ConsumerState::decode_head(config.clone(), &head).expect("a plain head");
    let mut loaded = state.clone();
    if loaded.load_container(0, rest).is_ok() && loaded.finish_loading().is_ok() {
        works(loaded, &config);
    }
    let mut replayed = state;
    let batch = [&[2], rest].concat();
    if replayed.apply_events(&batch).is_ok() {
        assert_eq!(violated(&replayed), None);
    }
}

fn works(mut state: ConsumerState, config: &ConsumerConfig) {
    assert_eq!(violated(&state), None);
    let mut whole = Vec::new();
    state.encode_snapshot(&mut whole);
    let back = ConsumerState::decode_snapshot(config.clone(), &whole).expect("its own bytes");
    let mut again = Vec::new();
    back.encode_snapshot(&mut again);
    assert_eq!(again, whole, "one encoding per state");
    for step in 0..4 {
        _ = state.plan(TimestampNs(1 << (20 + 4 * step)));
        _ = state.ack(Seq(1 + step), TimestampNs(0));
    }
    assert_eq!(violated(&state), None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers() {
        crate::fuzzing::tests::run(31, 3_000, 60, fuzz_consumer);
    }
}
