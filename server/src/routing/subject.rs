//! Subject rules: validity, wildcards and the relations between two subjects.
//!
//! A subject is one or more non-empty tokens joined by `.`. `*` as a whole token stands for exactly
//! one token, `>` as the whole last token for one or more (CORE-018, CORE-019). Everything here is
//! pure and works on bytes: subjects of the wire need not be UTF-8.

/// Token separator.
pub const SEPARATOR: u8 = b'.';

/// What a token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// `*`: exactly one token.
    Any,
    /// `>`: one or more tokens; only meaningful as the last one.
    Rest,
    /// Anything else, including tokens that merely contain `*` or `>`.
    Literal(&'a [u8]),
}

/// The meaning of one token.
pub fn token(bytes: &[u8]) -> Token<'_> {
    match bytes {
        b"*" => Token::Any,
        b">" => Token::Rest,
        literal => Token::Literal(literal),
    }
}

/// Iterates over the tokens of a subject. An empty subject yields one empty token.
pub fn tokens(subject: &[u8]) -> Tokens<'_> {
    Tokens {
        rest: Some(subject),
    }
}

/// Iterator of [`tokens`].
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        match memchr::memchr(SEPARATOR, rest) {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                Some(&rest[..end])
            }
            None => {
                self.rest = None;
                Some(rest)
            }
        }
    }
}

/// True for a subject one may subscribe to: non-empty tokens, no white space, `>` only last.
pub fn is_valid(subject: &[u8]) -> bool {
    if subject.is_empty() {
        return false;
    }
    let mut rest_seen = false;
    for part in tokens(subject) {
        if part.is_empty() || rest_seen {
            return false;
        }
        match token(part) {
            Token::Rest => rest_seen = true,
            Token::Any => {}
            Token::Literal(literal) => {
                if literal
                    .iter()
                    .any(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c))
                {
                    return false;
                }
            }
        }
    }
    true
}

/// True when no token is a wildcard. Does not check validity.
pub fn is_literal(subject: &[u8]) -> bool {
    // Most subjects contain neither character at all.
    if memchr::memchr2(b'*', b'>', subject).is_none() {
        return true;
    }
    tokens(subject).all(|part| matches!(token(part), Token::Literal(_)))
}

/// True for a valid subject without wildcards: one a message may be published to.
pub fn is_valid_literal(subject: &[u8]) -> bool {
    is_valid(subject) && is_literal(subject)
}

/// True when the literal `subject` is matched by `filter`, which may have wildcards.
pub fn matches(subject: &[u8], filter: &[u8]) -> bool {
    let mut parts = tokens(subject);
    for want in tokens(filter) {
        let Some(have) = parts.next() else {
            return false;
        };
        match token(want) {
            Token::Rest => return true,
            Token::Any => {}
            Token::Literal(literal) => {
                if literal != have {
                    return false;
                }
            }
        }
    }
    parts.next().is_none()
}

/// True when some literal subject is matched by both.
pub fn collide(a: &[u8], b: &[u8]) -> bool {
    let (mut a, mut b) = (tokens(a), tokens(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(x), Some(y)) => match (token(x), token(y)) {
                (Token::Rest, _) | (_, Token::Rest) => return true,
                (Token::Literal(x), Token::Literal(y)) if x != y => return false,
                _ => {}
            },
        }
    }
}

/// True when everything matched by `subset` is also matched by `superset`.
pub fn is_subset(subset: &[u8], superset: &[u8]) -> bool {
    let (mut small, mut large) = (tokens(subset), tokens(superset));
    loop {
        match (small.next(), large.next()) {
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(x), Some(y)) => match (token(x), token(y)) {
                (_, Token::Rest) => return true,
                (Token::Rest, _) => return false,
                (_, Token::Any) => {}
                (Token::Any, Token::Literal(_)) => return false,
                (Token::Literal(x), Token::Literal(y)) => {
                    if x != y {
                        return false;
                    }
                }
            },
        }
    }
}

/// Number of tokens.
pub fn token_count(subject: &[u8]) -> usize {
    tokens(subject).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_follows_the_token_rules() {
        for good in [
            "a",
            "a.b",
            "*",
            ">",
            "a.*",
            "a.>",
            "*.*",
            "foo*bar",
            "a>b",
            "a.b*",
            "$JS.API.>",
            "é",
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a b", "a\tb", "a\r", "a\n", "a\x0cb",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn only_whole_tokens_are_wildcards() {
        for literal in ["a", "foo*bar", "a>b", "a.b*.c", "**", ">>"] {
            assert!(is_literal(literal.as_bytes()), "{literal}");
        }
        for wild in ["*", ">", "a.*", "a.>", "a.*.b"] {
            assert!(!is_literal(wild.as_bytes()), "{wild}");
        }
    }

    #[test]
    fn matching_is_token_by_token() {
        for (subject, filter, want) in [
            ("a.b", "a.b", true),
            ("a.b", "a.*", true),
            ("a.b", "*.*", true),
            ("a.b", "a.>", true),
            ("a.b", ">", true),
            ("a", "a.>", false),
            ("a.b.c", "a.*", false),
            ("a", "a.*", false),
            ("a.b", "a", false),
            ("foo*bar", "foo*bar", true),
            ("fooxbar", "foo*bar", false),
        ] {
            assert_eq!(
                matches(subject.as_bytes(), filter.as_bytes()),
                want,
                "{subject} {filter}"
            );
        }
    }

    #[test]
    fn collisions_and_subsets() {
        for (a, b, collides, subset) in [
            ("a.b", "a.b", true, true),
            ("a.*", "*.b", true, false),
            ("a.*", "a.>", true, true),
            ("a.>", "a.*", true, false),
            ("a", "a.>", false, false),
            ("*.*", ">", true, true),
            (">", "*", true, false),
            ("a.b.c", "a.*", false, false),
            ("a.b", "a.*", true, true),
            ("x.>", "y.>", false, false),
            ("a.>", "a.b.c", true, false),
        ] {
            assert_eq!(collide(a.as_bytes(), b.as_bytes()), collides, "{a} {b}");
            assert_eq!(collide(b.as_bytes(), a.as_bytes()), collides, "{b} {a}");
            assert_eq!(is_subset(a.as_bytes(), b.as_bytes()), subset, "{a} {b}");
        }
    }

    #[test]
    fn a_long_subject_is_no_problem() {
        let long = vec![b"a".as_slice(); 100_000].join(&b'.');
        assert!(is_valid_literal(&long));
        assert_eq!(token_count(&long), 100_000);
        assert!(matches(&long, b">"));
    }
}
