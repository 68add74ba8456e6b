//! Header blocks: `NATS/1.0[ status[ description]]`, lines `Key: Value`, an empty line (CORE-031).
//!
//! Keys are compared case-sensitively, a key may occur more than once, the order is kept. Reading
//! tolerates anything: what does not parse is not there.

/// First line of a block without a status.
pub const VERSION_LINE: &[u8] = b"NATS/1.0\r\n";
const VERSION: &[u8] = b"NATS/1.0";

/// Iterates over the header lines of a block, in order.
pub fn iter(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(block).skip(1).filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// The first value of `key`.
pub fn first<'a>(block: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    iter(block)
        .find(|(have, _)| *have == key)
        .map(|(_, value)| value)
}

/// Status code and description of the first line, for example `(503, "")`.
pub fn status(block: &[u8]) -> Option<(u16, &[u8])> {
    let rest = lines(block).next()?.strip_prefix(VERSION)?.trim_ascii();
    let end = rest
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(rest.len());
    let code = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((code, rest[end..].trim_ascii()))
}

/// True when the block starts with the version and ends with an empty line.
pub fn is_well_formed(block: &[u8]) -> bool {
    block.starts_with(VERSION) && block.ends_with(b"\r\n\r\n")
}

/// The block with `key: value` added at its end. An empty block becomes one with that line.
pub fn append(block: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len().max(12) + key.len() + value.len() + 4);
    append_to(&mut out, block, key, value);
    out
}

/// [`append`] into a buffer of the caller.
pub fn append_to(out: &mut Vec<u8>, block: &[u8], key: &[u8], value: &[u8]) {
    if block.is_empty() {
        out.extend_from_slice(VERSION_LINE);
    } else {
        out.extend_from_slice(block.strip_suffix(b"\r\n").unwrap_or(block));
    }
    out.extend_from_slice(key);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n\r\n");
}

/// The block without any line of `key`; none when no other line is left.
pub fn remove(block: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    rebuild(block, lines(block).next().unwrap_or(VERSION), |have| {
        have != key
    })
}

/// The block without the status of its first line; none when there are no other lines.
pub fn strip_status(block: &[u8]) -> Option<Vec<u8>> {
    rebuild(block, VERSION, |_| true)
}

fn rebuild(block: &[u8], first: &[u8], keep: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len());
    out.extend_from_slice(first);
    out.extend_from_slice(b"\r\n");
    let bare = out.len();
    for line in lines(block).skip(1) {
        let key = memchr::memchr(b':', line).map_or(line, |colon| &line[..colon]);
        if keep(key) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    let has_lines = out.len() > bare;
    out.extend_from_slice(b"\r\n");
    has_lines.then_some(out)
}

/// Lines up to the empty one, without their ends.
fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        (!line.is_empty()).then_some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] = b"NATS/1.0\r\nA: 1\r\nb:2\r\nA:  3 \r\nEmpty:\r\n\r\n";

    #[test]
    fn reading() {
        let all: Vec<_> = iter(BLOCK).collect();
        assert_eq!(
            all,
            [
                (&b"A"[..], &b"1"[..]),
                (b"b", b"2"),
                (b"A", b"3"),
                (b"Empty", b"")
            ]
        );
        assert_eq!(first(BLOCK, b"A"), Some(&b"1"[..]));
        assert_eq!(first(BLOCK, b"a"), None);
        assert_eq!(first(BLOCK, b"Empty"), Some(&b""[..]));
        assert_eq!(status(BLOCK), None);
        assert_eq!(status(b"NATS/1.0 503\r\n\r\n"), Some((503, &b""[..])));
        assert_eq!(
            status(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"),
            Some((100, &b"Idle Heartbeat"[..]))
        );
        assert!(is_well_formed(BLOCK));
    }

    #[test]
    fn damaged_blocks_have_no_values() {
        for bad in [
            &b""[..],
            b"x",
            b"NATS/1.0",
            b"NATS/1.0\r\n",
            b"\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
        ] {
            assert_eq!(iter(bad).count(), 0, "{bad:?}");
            assert_eq!(status(bad), None, "{bad:?}");
        }
        assert!(!is_well_formed(b"NATS/1.0\r\nA: 1\r\n"));
    }

    #[test]
    fn editing() {
        assert_eq!(append(b"", b"K", b"v"), b"NATS/1.0\r\nK: v\r\n\r\n");
        assert_eq!(
            append(b"NATS/1.0 100 X\r\n\r\n", b"K", b"v"),
            b"NATS/1.0 100 X\r\nK: v\r\n\r\n"
        );
        assert_eq!(
            append(BLOCK, b"A", b"9"),
            b"NATS/1.0\r\nA: 1\r\nb:2\r\nA:  3 \r\nEmpty:\r\nA: 9\r\n\r\n"
        );
        assert_eq!(
            remove(BLOCK, b"A").as_deref(),
            Some(&b"NATS/1.0\r\nb:2\r\nEmpty:\r\n\r\n"[..])
        );
        assert_eq!(remove(b"NATS/1.0\r\nA: 1\r\n\r\n", b"A"), None);
        assert_eq!(
            strip_status(b"NATS/1.0 408 Timeout\r\nA: 1\r\n\r\n").as_deref(),
            Some(&b"NATS/1.0\r\nA: 1\r\n\r\n"[..])
        );
        assert_eq!(strip_status(b"NATS/1.0 408 Timeout\r\n\r\n"), None);
    }
}
