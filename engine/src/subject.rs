//! Subjects, and filters over them.
//!
//! A subject is one or more tokens joined by `.`. In a filter the token `*` stands for exactly one
//! token and a last token `>` for one or more. Inside a longer token both characters are ordinary:
//! `foo*bar` and `a>b` are literal.

use std::fmt;

use bytes::Bytes;

/// Why bytes are not a subject or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubjectError {
    /// There are no bytes.
    Empty,
    /// Two dots meet, or a dot comes first or last.
    EmptyToken,
    /// A space, tab, carriage return, line feed or form feed.
    Whitespace,
    /// A token `>` that is not the last one.
    TailNotLast,
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubjectError::Empty => "the subject is empty",
            SubjectError::EmptyToken => "the subject has an empty token",
            SubjectError::Whitespace => "the subject contains white space",
            SubjectError::TailNotLast => "'>' is only allowed as the last token",
        })
    }
}

impl std::error::Error for SubjectError {}

/// Checks that `subject` is well formed; wildcards are allowed.
pub fn check(subject: &[u8]) -> Result<(), SubjectError> {
    if subject.is_empty() {
        return Err(SubjectError::Empty);
    }
    let mut tail_seen = false;
    for token in tokens(subject) {
        if tail_seen {
            return Err(SubjectError::TailNotLast);
        }
        if token.is_empty() {
            return Err(SubjectError::EmptyToken);
        }
        if token
            .iter()
            .any(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0x0c))
        {
            return Err(SubjectError::Whitespace);
        }
        tail_seen = token == b">";
    }
    Ok(())
}

/// True for a well-formed subject; wildcards are allowed.
pub fn is_valid(subject: &[u8]) -> bool {
    check(subject).is_ok()
}

/// True if no token is a wildcard.
pub fn is_literal(subject: &[u8]) -> bool {
    tokens(subject).all(|token| token != b"*" && token != b">")
}

/// True for a well-formed subject without wildcards.
pub fn is_valid_literal(subject: &[u8]) -> bool {
    is_valid(subject) && is_literal(subject)
}

/// The parts of `subject` between its dots.
pub fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    subject.split(|&b| b == b'.')
}

/// One step of a compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// These bytes, dots included.
    Literal(Box<[u8]>),
    /// Bytes up to the next dot or the end; at least one.
    Star,
    /// All remaining bytes; at least one.
    Tail,
}

/// How a filter is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// Equal to the text.
    Literal,
    /// Longer than the first `n` bytes of the text and starting with them: `>` and `a.b.>`.
    Prefix(usize),
    /// Step by step.
    Parts(Box<[Part]>),
}

/// A compiled filter. Cloning shares the text.
///
/// Subjects that are matched against it are taken literally: the subject `foo.*` is matched by
/// `foo.*` and `foo.>`, but not by `foo.bar`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: Bytes,
    plan: Plan,
}

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    ///
    /// What is wrong with `text` as a subject with wildcards.
    pub fn new(text: &[u8]) -> Result<Filter, SubjectError> {
        check(text)?;
        Ok(Filter {
            plan: plan(text),
            text: Bytes::copy_from_slice(text),
        })
    }

    /// The filter that matches every subject: `>`.
    pub fn all() -> Filter {
        Filter {
            text: Bytes::from_static(b">"),
            plan: Plan::Prefix(0),
        }
    }

    /// The filter as it was written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// As [`Filter::text`], sharing it.
    pub(crate) fn shared_text(&self) -> Bytes {
        self.text.clone()
    }

    /// The only subject this filter matches, if it has no wildcard.
    pub fn literal(&self) -> Option<&[u8]> {
        matches!(self.plan, Plan::Literal).then_some(&self.text[..])
    }

    /// True if every subject matches.
    pub fn is_all(&self) -> bool {
        matches!(self.plan, Plan::Prefix(0))
    }

    /// Bytes with which every matching subject starts: whole tokens and the dot behind them, or
    /// the whole subject of a literal filter.
    pub fn prefix(&self) -> &[u8] {
        match &self.plan {
            Plan::Literal => &self.text,
            Plan::Prefix(len) => &self.text[..*len],
            Plan::Parts(parts) => match parts.first() {
                Some(Part::Literal(bytes)) => bytes,
                _ => b"",
            },
        }
    }

    /// True if `subject`, taken literally, matches.
    pub fn matches(&self, subject: &[u8]) -> bool {
        match &self.plan {
            Plan::Literal => subject == &self.text[..],
            Plan::Prefix(len) => subject.len() > *len && subject[..*len] == self.text[..*len],
            Plan::Parts(parts) => matches_parts(parts, subject),
        }
    }

    /// True if some literal subject matches both filters.
    pub fn collides(&self, other: &Filter) -> bool {
        let mut mine = tokens(&self.text);
        let mut theirs = tokens(&other.text);
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
                (Some(a), Some(b)) if a == b || a == b"*" || b == b"*" => {}
                (Some(_), Some(_)) => return false,
            }
        }
    }

    /// True if every subject that matches `self` also matches `other`.
    pub fn is_subset_of(&self, other: &Filter) -> bool {
        let mut mine = tokens(&self.text);
        let mut theirs = tokens(&other.text);
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return true,
                (Some(_), Some(b">")) => return true,
                (None, Some(_)) | (Some(_), None) | (Some(b">"), Some(_)) => return false,
                (Some(_), Some(b"*")) => {}
                (Some(a), Some(b)) if a == b => {}
                (Some(_), Some(_)) => return false,
            }
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text.escape_ascii())
    }
}

/// Chooses how to evaluate a checked filter.
fn plan(text: &[u8]) -> Plan {
    if is_literal(text) {
        return Plan::Literal;
    }
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    for (i, token) in tokens(text).enumerate() {
        if i > 0 {
            literal.push(b'.');
        }
        let wildcard = match token {
            b"*" => Part::Star,
            b">" => Part::Tail,
            _ => {
                literal.extend_from_slice(token);
                continue;
            }
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal).into()));
        }
        parts.push(wildcard);
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    match parts.as_slice() {
        [Part::Tail] => Plan::Prefix(0),
        [Part::Literal(bytes), Part::Tail] => Plan::Prefix(bytes.len()),
        _ => Plan::Parts(parts.into()),
    }
}

fn matches_parts(parts: &[Part], subject: &[u8]) -> bool {
    let mut rest = subject;
    for part in parts {
        match part {
            Part::Literal(bytes) => match rest.strip_prefix(&**bytes) {
                Some(after) => rest = after,
                None => return false,
            },
            Part::Star => {
                let len = rest.iter().position(|&b| b == b'.').unwrap_or(rest.len());
                if len == 0 {
                    return false;
                }
                rest = &rest[len..];
            }
            Part::Tail => return !rest.is_empty(),
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::new(text.as_bytes()).unwrap()
    }

    /// Token by token, straight from the rules.
    fn matches_naive(filter: &[&str], subject: &[&str]) -> bool {
        match (filter, subject) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            (["*", f @ ..], [_, s @ ..]) => matches_naive(f, s),
            ([a, f @ ..], [b, s @ ..]) => a == b && matches_naive(f, s),
            _ => false,
        }
    }

    #[test]
    fn validity() {
        for (subject, expect) in [
            ("", Err(SubjectError::Empty)),
            ("a", Ok(())),
            ("a.b.c", Ok(())),
            (".", Err(SubjectError::EmptyToken)),
            ("a..b", Err(SubjectError::EmptyToken)),
            (".a", Err(SubjectError::EmptyToken)),
            ("a.", Err(SubjectError::EmptyToken)),
            ("a b", Err(SubjectError::Whitespace)),
            ("a.\tb", Err(SubjectError::Whitespace)),
            ("a.b\r", Err(SubjectError::Whitespace)),
            ("a\n", Err(SubjectError::Whitespace)),
            ("a\u{c}", Err(SubjectError::Whitespace)),
            (">", Ok(())),
            ("a.>", Ok(())),
            (">.a", Err(SubjectError::TailNotLast)),
            ("a.>.b", Err(SubjectError::TailNotLast)),
            ("*.*", Ok(())),
            ("a>b.>c", Ok(())),
        ] {
            assert_eq!(check(subject.as_bytes()), expect, "{subject:?}");
        }
    }

    #[test]
    fn wildcards_inside_a_token_are_literal() {
        for (subject, literal) in [
            ("foo*bar", true),
            ("a>b", true),
            ("**", true),
            ("a.*", false),
            (">", false),
            ("*.a", false),
        ] {
            assert_eq!(is_literal(subject.as_bytes()), literal, "{subject}");
        }
        assert!(filter("foo*bar").matches(b"foo*bar"));
        assert!(!filter("foo*bar").matches(b"fooxbar"));
    }

    #[test]
    fn a_subject_with_wildcards_is_taken_literally() {
        assert!(filter("foo.*").matches(b"foo.*"));
        assert!(filter("foo.>").matches(b"foo.>"));
        assert!(!filter("foo.bar").matches(b"foo.*"));
    }

    #[test]
    fn wildcards_need_a_token() {
        assert!(!filter("a.>").matches(b"a"));
        assert!(!filter("a.>").matches(b"a."));
        assert!(!filter("a.*").matches(b"a."));
        assert!(!filter(">").matches(b""));
        assert!(!filter("a.*.b").matches(b"a..b"));
    }

    #[test]
    fn prefix_covers_the_leading_literal_tokens() {
        for (text, prefix) in [
            (">", ""),
            ("*.a", ""),
            ("a.b", "a.b"),
            ("a.b.>", "a.b."),
            ("a.*.c", "a."),
        ] {
            assert_eq!(filter(text).prefix(), prefix.as_bytes(), "{text}");
        }
        assert!(filter(">").is_all() && !filter("*").is_all());
        assert_eq!(Filter::all(), filter(">"));
    }

    /// Few tokens over a tiny alphabet, so that matches are common.
    fn arb_tokens(words: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(words), 1..5)
    }

    fn arb_filter() -> impl Strategy<Value = Vec<&'static str>> {
        (arb_tokens(&["a", "bb", "*", "a*"]), any::<bool>()).prop_map(|(mut tokens, tail)| {
            if tail {
                tokens.push(">");
            }
            if tokens.len() > 1 && tail && tokens.len().is_multiple_of(2) {
                tokens.remove(0);
            }
            tokens
        })
    }

    /// Every literal subject of one to six tokens over an alphabet that holds each literal token
    /// of the filters and one other.
    fn universe() -> Vec<Vec<&'static str>> {
        let words = ["a", "bb", "a*", "z"];
        let mut all: Vec<Vec<&str>> = vec![vec![]];
        let mut from = 0;
        for _ in 0..6 {
            let to = all.len();
            for i in from..to {
                for word in words {
                    let mut longer = all[i].clone();
                    longer.push(word);
                    all.push(longer);
                }
            }
            from = to;
        }
        all.remove(0);
        all
    }

    proptest! {
        #[test]
        fn matches_equals_the_naive_matcher(
            f in arb_filter(),
            s in arb_tokens(&["a", "bb", "c", "*", ">", "a*"]),
        ) {
            let compiled = filter(&f.join("."));
            let subject = s.join(".");
            prop_assert_eq!(compiled.matches(subject.as_bytes()), matches_naive(&f, &s));
            if compiled.matches(subject.as_bytes()) {
                prop_assert!(subject.as_bytes().starts_with(compiled.prefix()));
            }
        }

        #[test]
        fn any_bytes_never_panic(text: Vec<u8>, subject: Vec<u8>) {
            if let Ok(f) = Filter::new(&text) {
                f.matches(&subject);
                prop_assert_eq!(f.matches(&text) || f.literal().is_none(), true);
            }
        }
    }

    #[test]
    fn collides_and_subset_agree_with_all_subjects() {
        let universe = universe();
        let names = ["a", "bb", "*", "a*"];
        let mut filters: Vec<Vec<&str>> = vec![vec![">"]];
        for a in names {
            filters.push(vec![a]);
            filters.push(vec![a, ">"]);
            for b in names {
                filters.push(vec![a, b]);
                filters.push(vec![a, b, ">"]);
            }
        }
        let compiled: Vec<(Filter, Vec<bool>)> = filters
            .iter()
            .map(|f| {
                let hits = universe.iter().map(|s| matches_naive(f, s)).collect();
                (filter(&f.join(".")), hits)
            })
            .collect();
        for (a, hits_a) in &compiled {
            for (b, hits_b) in &compiled {
                let both = hits_a.iter().zip(hits_b).any(|(x, y)| *x && *y);
                let within = hits_a.iter().zip(hits_b).all(|(x, y)| !*x || *y);
                assert_eq!(a.collides(b), both, "{a} collides with {b}");
                assert_eq!(a.is_subset_of(b), within, "{a} subset of {b}");
            }
        }
    }
}
