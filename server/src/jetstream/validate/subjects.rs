//! Subject rules of JetStream configurations (WIRE §6): validity, possible common subjects and
//! subsets. Wildcards count only as whole tokens; `>` only as the last one.

/// Whether `subject` may stand in a configuration: tokens not empty, no blanks, no NUL, `>` last.
/// Text is UTF-8 by its type.
pub fn is_valid(subject: &str) -> bool {
    if subject
        .bytes()
        .any(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0x0c | 0))
    {
        return false;
    }
    let mut closed = false;
    subject.split('.').all(|token| {
        let ok = !token.is_empty() && !closed;
        closed = token == ">";
        ok
    })
}

/// Whether `subject` has no wildcard token.
pub fn is_literal(subject: &str) -> bool {
    !subject.split('.').any(|token| token == "*" || token == ">")
}

/// Whether some literal subject matches both.
pub fn collide(a: &str, b: &str) -> bool {
    let mut left = a.split('.');
    let mut right = b.split('.');
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (None, _) | (_, None) => return false,
            (Some(l), Some(r)) if l == "*" || r == "*" || l == r => {}
            _ => return false,
        }
    }
}

/// Whether everything that matches `inner` also matches `outer`.
pub fn is_subset(inner: &str, outer: &str) -> bool {
    let mut inner = inner.split('.');
    let mut outer = outer.split('.');
    loop {
        match (inner.next(), outer.next()) {
            (None, None) => return true,
            (Some(_), Some(">")) => return true,
            (None, _) | (_, None) | (Some(">"), _) => return false,
            (Some(_), Some("*")) => {}
            (Some(i), Some(o)) if i == o => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        for good in [
            "a", "a.b", "a.*", "*", ">", "a.>", "foo*bar", "a>b.c", "*.>",
        ] {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "a b", "a.>.b", ">.a", "a\0", "a\tb",
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn common_subjects_and_subsets() {
        for (a, b, common, subset) in [
            ("a", "a", true, true),
            ("a.*", "a.b", true, false),
            ("a.b", "a.*", true, true),
            ("a.*.b", "a.c.*", true, false),
            ("a.>", ">", true, true),
            ("a", "a.>", false, false),
            ("a.*", "a.>", true, true),
            ("a.>", "a.*", true, false),
            ("*.b", "a.c", false, false),
            (">", "a.b.c", true, false),
        ] {
            assert_eq!(collide(a, b), common, "{a} {b}");
            assert_eq!(collide(b, a), common, "{b} {a}");
            assert_eq!(is_subset(a, b), subset, "{a} {b}");
        }
    }
}
