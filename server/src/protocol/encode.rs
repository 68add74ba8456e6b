//! Writers for what the server sends. All append to a buffer of the caller.

/// `PING`
pub const PING: &[u8] = b"PING\r\n";
/// `PONG`
pub const PONG: &[u8] = b"PONG\r\n";
/// `+OK`
pub const OK: &[u8] = b"+OK\r\n";

/// `-ERR 'text'`
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"'\r\n");
}

/// A decimal number.
pub fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// MSG, or HMSG when there are headers (CORE-009, CORE-010). Empty `reply` and `headers` mean none.
pub fn message(
    out: &mut Vec<u8>,
    subject: &[u8],
    sid: &[u8],
    reply: &[u8],
    headers: &[u8],
    payload: &[u8],
) {
    // Verb, blanks, two numbers, line ends: less than 64 bytes.
    out.reserve(subject.len() + sid.len() + reply.len() + headers.len() + payload.len() + 64);
    out.extend_from_slice(if headers.is_empty() {
        b"MSG "
    } else {
        b"HMSG "
    });
    out.extend_from_slice(subject);
    out.push(b' ');
    out.extend_from_slice(sid);
    out.push(b' ');
    if !reply.is_empty() {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    if !headers.is_empty() {
        number(out, headers.len() as u64);
        out.push(b' ');
    }
    number(out, (headers.len() + payload.len()) as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// The answer to a request nobody received (WIRE section 5).
pub fn no_responders(out: &mut Vec<u8>, reply: &[u8], sid: &[u8], subject: &[u8]) {
    let mut block = Vec::with_capacity(subject.len() + 32);
    block.extend_from_slice(b"NATS/1.0 503\r\nNats-Subject: ");
    block.extend_from_slice(subject);
    block.extend_from_slice(b"\r\n\r\n");
    message(out, reply, sid, b"", &block, b"");
}
