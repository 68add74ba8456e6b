//! Names of streams and consumers (JSAPI-020, ADR-6).

/// Whether `name` can name a stream or consumer: not empty and free of blanks, subject separators,
/// wildcards and path separators.
pub fn is_valid_asset_name(name: &str) -> bool {
    !name.is_empty()
        && !name.bytes().any(|b| {
            matches!(
                b,
                b' ' | b'\t' | b'\r' | b'\n' | 0x0c | b'.' | b'*' | b'>' | b'\\' | b'/' | 0
            )
        })
}

/// Whether `name` holds a character that would be a path separator.
pub fn has_path_separator(name: &str) -> bool {
    name.contains(['/', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asset_names() {
        for good in ["A", "orders-2026_x", "ä", "KV_a=b", "$x"] {
            assert!(is_valid_asset_name(good), "{good}");
        }
        for bad in [
            "", "a b", "a.b", "a*", ">", "a/b", "a\\b", "a\tb", "a\nb", "a\u{c}b", "a\0",
        ] {
            assert!(!is_valid_asset_name(bad), "{bad:?}");
        }
        assert!(has_path_separator("a/b") && has_path_separator("a\\b"));
    }
}
