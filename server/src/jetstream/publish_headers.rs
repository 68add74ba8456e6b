//! The headers of a published message that a stream acts on (PUB rows), read in one pass.

/// Values of the headers a stream knows; the first occurrence of each counts. Header names are
/// case-sensitive.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct PublishHeaders<'a> {
    pub msg_id: Option<&'a [u8]>,
    pub expected_stream: Option<&'a [u8]>,
    pub expected_last_seq: Option<&'a [u8]>,
    pub expected_last_msg_id: Option<&'a [u8]>,
    pub expected_last_subject_seq: Option<&'a [u8]>,
    pub expected_last_subject_seq_subject: Option<&'a [u8]>,
    pub rollup: Option<&'a [u8]>,
    pub ttl: Option<&'a [u8]>,
    pub incr: Option<&'a [u8]>,
    pub schedule: Option<&'a [u8]>,
    pub batch_id: Option<&'a [u8]>,
    pub stream_source: Option<&'a [u8]>,
    pub marker_reason: Option<&'a [u8]>,
    /// `KV-Operation`
    pub kv_operation: Option<&'a [u8]>,
    /// `Nats-Request-Info` is present: not stored (PUB-027).
    pub has_request_info: bool,
    /// The version line carries a status: not stored (PUB-026).
    pub has_status: bool,
}

const VERSION: &[u8] = b"NATS/1.0";

impl<'a> PublishHeaders<'a> {
    /// Reads a header block, from `NATS/1.0` to the empty line.
    pub fn scan(block: &'a [u8]) -> PublishHeaders<'a> {
        let mut found = PublishHeaders::default();
        let mut lines = lines(block);
        if let Some(first) = lines.next() {
            found.has_status = first
                .strip_prefix(VERSION)
                .is_some_and(|rest| !rest.trim_ascii().is_empty());
        }
        for line in lines {
            if line.starts_with(b"Nats-") {
                if let Some((key, value)) = split_line(line) {
                    found.note(&key[5..], value);
                }
            } else if line.starts_with(b"KV-Operation:") && found.kv_operation.is_none() {
                found.kv_operation = split_line(line).map(|(_, value)| value);
            }
        }
        found
    }

    /// When it expires as the last message of its subject, no marker takes its place: it is one, or
    /// says that the key is gone (TTL-008).
    pub fn leaves_no_marker(&self) -> bool {
        self.marker_reason.is_some_and(|reason| !reason.is_empty())
            || self.kv_operation == Some(b"PURGE")
    }

    fn note(&mut self, key: &[u8], value: &'a [u8]) {
        let slot = match key {
            b"Msg-Id" => &mut self.msg_id,
            b"Expected-Stream" => &mut self.expected_stream,
            b"Expected-Last-Sequence" => &mut self.expected_last_seq,
            b"Expected-Last-Msg-Id" => &mut self.expected_last_msg_id,
            b"Expected-Last-Subject-Sequence" => &mut self.expected_last_subject_seq,
            b"Expected-Last-Subject-Sequence-Subject" => {
                &mut self.expected_last_subject_seq_subject
            }
            b"Rollup" => &mut self.rollup,
            b"TTL" => &mut self.ttl,
            b"Incr" => &mut self.incr,
            b"Schedule" => &mut self.schedule,
            b"Batch-Id" => &mut self.batch_id,
            b"Stream-Source" => &mut self.stream_source,
            b"Marker-Reason" => &mut self.marker_reason,
            b"Request-Info" => {
                self.has_request_info = true;
                return;
            }
            _ => return,
        };
        if slot.is_none() {
            *slot = Some(value);
        }
    }
}

fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = match memchr::memchr(b'\n', rest) {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    })
}

fn split_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b':', line)?;
    Some((&line[..at], line[at + 1..].trim_ascii()))
}

/// The block as it is stored: without a status and without `Nats-Request-Info`. `None` when
/// nothing is left of it.
pub fn stored_block(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len());
    out.extend_from_slice(VERSION);
    out.extend_from_slice(b"\r\n");
    let empty = out.len();
    for line in lines(block).skip(1) {
        let dropped = split_line(line).is_some_and(|(key, _)| key == b"Nats-Request-Info");
        if !line.is_empty() && !dropped {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    if out.len() == empty {
        return None;
    }
    out.extend_from_slice(b"\r\n");
    Some(out)
}

/// The block with another value of its first header `key`.
pub fn with_value(block: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + value.len());
    let mut is_done = false;
    for line in block.split_inclusive(|byte| *byte == b'\n') {
        if !is_done && split_line(line).is_some_and(|(found, _)| found == key) {
            out.extend_from_slice(key);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
            is_done = true;
        } else {
            out.extend_from_slice(line);
        }
    }
    out
}

/// A decimal sequence; what is not one counts as a sequence that no stream has (T-27).
pub fn parse_seq(value: &[u8]) -> u64 {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .unwrap_or(u64::MAX)
}

/// The value of header `Nats-Required-Api-Level`: whether it asks for more than this server has
/// (JSAPI-015). Something that is no number is too much as well.
pub fn requires_newer_api(block: Option<&[u8]>) -> bool {
    let Some(block) = block else {
        return false;
    };
    lines(block)
        .skip(1)
        .filter_map(split_line)
        .find(|(key, _)| *key == b"Nats-Required-Api-Level")
        .is_some_and(|(_, value)| {
            let level = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<u32>().ok());
            level.is_none_or(|level| level > super::limits::API_LEVEL)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_headers_are_found_and_the_first_one_counts() {
        let block = b"NATS/1.0\r\nNats-Msg-Id: a\r\nnats-msg-id: x\r\nNats-Msg-Id: b\r\nNats-Rollup:sub\r\nOther: 1\r\nNats-Expected-Last-Sequence: 7\r\n\r\n";
        let found = PublishHeaders::scan(block);
        assert_eq!(found.msg_id, Some(&b"a"[..]));
        assert_eq!(found.rollup, Some(&b"sub"[..]));
        assert_eq!(found.expected_last_seq, Some(&b"7"[..]));
        assert!(!found.has_status && !found.has_request_info);
    }

    #[test]
    fn a_value_is_replaced_in_its_place() {
        let block = b"NATS/1.0\r\nA: b\r\nNats-TTL:5\r\nNats-TTL: 6\r\nC: d\r\n\r\n";
        let expected = b"NATS/1.0\r\nA: b\r\nNats-TTL: 60\r\nNats-TTL: 6\r\nC: d\r\n\r\n";
        assert_eq!(with_value(block, b"Nats-TTL", b"60"), expected);
        assert_eq!(with_value(block, b"Other", b"60"), block);
    }

    #[test]
    fn what_leaves_no_marker() {
        for (line, leaves_none) in [
            ("KV-Operation: PURGE", true),
            ("KV-Operation:PURGE", true),
            ("KV-Operation: DEL", false),
            ("kv-operation: PURGE", false),
            ("Nats-Marker-Reason: MaxAge", true),
            ("Nats-Marker-Reason:", false),
            ("Other: PURGE", false),
        ] {
            let block = format!("NATS/1.0\r\n{line}\r\n\r\n");
            let found = PublishHeaders::scan(block.as_bytes());
            assert_eq!(found.leaves_no_marker(), leaves_none, "{line}");
        }
    }

    #[test]
    fn broken_blocks_are_harmless() {
        for block in [
            &b""[..],
            b"NATS/1.0",
            b"NATS/1.0\r\nNats-\r\n",
            b"NATS/1.0\r\n:\r\n\r\n",
            b"\n\n\n",
        ] {
            assert_eq!(PublishHeaders::scan(block), PublishHeaders::default());
        }
    }

    #[test]
    fn status_and_request_info_are_not_stored() {
        let block = b"NATS/1.0 503 Gone\r\nA: b\r\nNats-Request-Info: {}\r\nC: d\r\n\r\n";
        let found = PublishHeaders::scan(block);
        assert!(found.has_status && found.has_request_info);
        assert_eq!(
            stored_block(block).unwrap(),
            b"NATS/1.0\r\nA: b\r\nC: d\r\n\r\n"
        );
        assert_eq!(stored_block(b"NATS/1.0 503\r\n\r\n"), None);
    }

    #[test]
    fn sequences_that_do_not_parse_match_nothing() {
        assert_eq!(parse_seq(b"7"), 7);
        for bad in [
            &b""[..],
            b"x",
            b"-1",
            b"+1",
            b"99999999999999999999999",
            b"1 ",
        ] {
            assert_eq!(parse_seq(bad), u64::MAX, "{bad:?}");
        }
    }

    #[test]
    fn api_levels() {
        let block = |level: &str| format!("NATS/1.0\r\nNats-Required-Api-Level: {level}\r\n\r\n");
        assert!(!requires_newer_api(None));
        assert!(!requires_newer_api(Some(b"NATS/1.0\r\nA: 9\r\n\r\n")));
        for (level, newer) in [
            ("0", false),
            ("5", false),
            ("6", true),
            ("x", true),
            ("", true),
        ] {
            assert_eq!(
                requires_newer_api(Some(block(level).as_bytes())),
                newer,
                "{level}"
            );
        }
    }
}
