use proptest::prelude::*;

use super::*;

fn queue(name: &str) -> Option<Bytes> {
    (!name.is_empty()).then(|| Bytes::copy_from_slice(name.as_bytes()))
}

/// Plain members and groups of a match, in an order that can be compared.
type Sorted = (Vec<u64>, Vec<(Bytes, Vec<u64>)>);

fn sorted(mut matches: Matches<u64>) -> Sorted {
    matches.plain.sort_unstable();
    let mut groups: Vec<_> = matches
        .groups
        .into_iter()
        .map(|mut group| {
            group.members.sort_unstable();
            (group.queue, group.members)
        })
        .collect();
    groups.sort();
    (matches.plain, groups)
}

fn find(trie: &Trie<u64>, subject: &[u8]) -> Sorted {
    let mut matches = Matches::default();
    trie.collect(subject, &mut matches);
    assert_eq!(trie.has_match(subject), !matches.is_empty());
    sorted(matches)
}

/// The obvious implementation.
fn find_naive(entries: &[(String, String, u64)], subject: &str) -> Sorted {
    let mut plain = Vec::new();
    let mut groups: Vec<(Bytes, Vec<u64>)> = Vec::new();
    if !subject::is_valid(subject.as_bytes()) {
        return (plain, groups);
    }
    for (filter, name, id) in entries {
        if !subject::matches(subject.as_bytes(), filter.as_bytes()) {
            continue;
        }
        match queue(name) {
            None => plain.push(*id),
            Some(name) => match groups.iter_mut().find(|(have, _)| *have == name) {
                Some((_, members)) => members.push(*id),
                None => groups.push((name, vec![*id])),
            },
        }
    }
    plain.sort_unstable();
    groups
        .iter_mut()
        .for_each(|(_, members)| members.sort_unstable());
    groups.sort();
    (plain, groups)
}

fn filter() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => "[abc]", 2 => Just("*".to_string()), 1 => Just("a*".to_string())];
    (proptest::collection::vec(part, 1..5), any::<bool>()).prop_map(|(mut parts, rest)| {
        if rest {
            parts.push(">".to_string());
        }
        parts.join(".")
    })
}

fn literal() -> impl Strategy<Value = String> {
    let part = prop_oneof![8 => "[abc]", 1 => Just("a*".to_string()), 1 => Just(String::new())];
    proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join("."))
}

proptest! {
    #[test]
    fn matches_like_the_naive_model(
        steps in proptest::collection::vec((filter(), "[qr]?", any::<bool>()), 1..60),
        subjects in proptest::collection::vec(literal(), 1..20),
    ) {
        let mut trie = Trie::default();
        let mut entries: Vec<(String, String, u64)> = Vec::new();
        for (step, (filter, name, remove)) in steps.into_iter().enumerate() {
            if remove && !entries.is_empty() {
                let (filter, name, id) = entries.swap_remove(step % entries.len());
                prop_assert_eq!(trie.remove(filter.as_bytes(), queue(&name).as_ref(), id), Some(id));
                prop_assert_eq!(trie.remove(filter.as_bytes(), queue(&name).as_ref(), id), None);
            } else {
                let id = step as u64;
                prop_assert_eq!(trie.insert(filter.as_bytes(), queue(&name).as_ref(), id, id), Ok(()));
                entries.push((filter, name, id));
            }
            prop_assert_eq!(trie.len(), entries.len());
            for subject in &subjects {
                prop_assert_eq!(find(&trie, subject.as_bytes()), find_naive(&entries, subject), "{}", subject);
            }
        }
        for (filter, name, id) in entries {
            trie.remove(filter.as_bytes(), queue(&name).as_ref(), id);
        }
        // Nothing is left behind.
        prop_assert!(trie.is_empty());
        prop_assert_eq!(trie.nodes.len(), trie.free.len() + 1);
    }
}

#[test]
fn an_invalid_subject_is_refused() {
    let mut trie = Trie::default();
    for bad in ["", "a..b", ".a", "a.", ">.a", "a b"] {
        assert_eq!(
            trie.insert(bad.as_bytes(), None, 1, 1),
            Err(InvalidSubject),
            "{bad:?}"
        );
    }
    assert_eq!(trie.nodes.len(), 1);
}

#[test]
fn a_published_wildcard_is_matched_as_a_literal() {
    let mut trie = Trie::default();
    for (id, filter) in (0_u64..).zip(["foo.*", "foo.>", "foo.bar", "*.*"]) {
        trie.insert(filter.as_bytes(), None, id, id).unwrap();
    }
    assert_eq!(find(&trie, b"foo.*").0, [0, 1, 3]);
    assert_eq!(find(&trie, b"foo.>").0, [0, 1, 3]);
}

#[test]
fn a_hundred_thousand_tokens_are_inserted_matched_and_removed() {
    let deep = vec![b"a".as_slice(); 100_000].join(&b'.');
    let mut trie = Trie::default();
    trie.insert(&deep, None, 1, 1_u64).unwrap();
    trie.insert(b">", None, 2, 2).unwrap();
    assert_eq!(find(&trie, &deep).0, [1, 2]);
    assert_eq!(trie.remove(&deep, None, 1), Some(1));
    assert_eq!(trie.nodes.len(), trie.free.len() + 2);
    // A deep trie is also dropped without recursion.
    trie.insert(&deep, None, 3, 3).unwrap();
}

#[test]
fn large_bags_and_many_groups_stay_exact() {
    let mut trie = Trie::default();
    for id in 0..1000_u64 {
        trie.insert(b"a.b", None, id, id).unwrap();
        let name = queue(&format!("q{}", id % 40));
        let filter: &[u8] = if id % 2 == 0 { b"a.*" } else { b"a.>" };
        trie.insert(filter, name.as_ref(), id, id).unwrap();
    }
    let (plain, groups) = find(&trie, b"a.b");
    assert_eq!(plain.len(), 1000);
    assert_eq!(groups.len(), 40);
    assert!(groups.iter().all(|(_, members)| members.len() == 25));
    for id in (0..1000_u64).filter(|id| id % 3 != 0) {
        assert_eq!(trie.remove(b"a.b", None, id), Some(id));
    }
    let want: Vec<u64> = (0..1000).filter(|id| id % 3 == 0).collect();
    assert_eq!(find(&trie, b"a.b").0, want);
}

#[test]
fn a_queue_on_overlapping_subjects_is_one_group() {
    // CORE-021, WIRE section 8.
    let mut trie = Trie::default();
    let name = queue("workers");
    for (id, filter) in (0_u64..).zip(["a.b", "a.*", ">"]) {
        trie.insert(filter.as_bytes(), name.as_ref(), id, id)
            .unwrap();
    }
    assert_eq!(
        find(&trie, b"a.b"),
        (
            vec![],
            vec![(Bytes::from_static(b"workers"), vec![0, 1, 2])]
        )
    );
}
