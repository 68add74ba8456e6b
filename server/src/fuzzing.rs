//! Entry points for fuzzing: no input may make them panic. The targets in `fuzz/` call them with a
//! coverage-guided fuzzer; the tests here call them with seeded random input.

use std::path::{Path, PathBuf};

use bytes::BytesMut;

use crate::config;
use crate::config::grammar::Source;
use crate::protocol::headers;
use crate::protocol::parser::{Frame, Limits, Parser, ProtocolError};

const LIMITS: Limits = Limits {
    max_control_line: 64,
    max_payload: 256,
};

/// Whole input, then how it ended.
type Parsed = (Vec<Frame>, Option<ProtocolError>);

fn parse(pieces: impl Iterator<Item = Vec<u8>>) -> Parsed {
    let mut parser = Parser::new(LIMITS);
    parser.set_headers_enabled(true);
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(&piece);
        loop {
            match parser.next(&mut buf) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// The client protocol. The first byte says how the rest is fragmented, which must not matter:
/// the frames are the same, and an error comes no later than with everything at hand.
pub fn fuzz_protocol(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else {
        return;
    };
    let step = usize::from(*step).max(1);
    let (whole, whole_error) = parse(std::iter::once(bytes.to_vec()));
    let (pieces, pieces_error) = parse(bytes.chunks(step).map(<[u8]>::to_vec));
    assert!(pieces.len() <= whole.len() || whole_error.is_some());
    assert!(whole.starts_with(&pieces) || pieces.starts_with(&whole));
    assert!(whole_error.is_none() || pieces_error.is_some());
    for frame in whole {
        if let Frame::Publish(publish) = frame
            && let Some(block) = &publish.headers
        {
            fuzz_headers(block);
        }
    }
}

/// Reading and editing of header blocks.
pub fn fuzz_headers(block: &[u8]) {
    let _ = headers::status(block);
    let _ = headers::is_well_formed(block);
    let keys: Vec<Vec<u8>> = headers::iter(block).map(|(key, _)| key.to_vec()).collect();
    for key in keys {
        let _ = headers::first(block, &key);
        let _ = headers::remove(block, &key);
    }
    let _ = headers::strip_status(block);
    let _ = headers::append(block, b"Key", b"value");
}

struct OneFile<'a>(&'a str);

impl Source for OneFile<'_> {
    fn read(&self, path: &Path) -> Result<(PathBuf, String), String> {
        match path.file_name().is_some_and(|name| name == "server.conf") {
            true => Ok((path.to_owned(), self.0.to_owned())),
            false => Err("no such file".into()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name.len() < 4).then(|| "7".into())
    }
}

/// The configuration file, from its text to the options.
pub fn fuzz_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(config) = config::load(&OneFile(&text), Path::new("/server.conf")) {
        let _ = config::check(&config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, n: usize) -> usize {
            (self.next() % n as u64) as usize
        }

        /// Words of the language, with random bytes between and inside.
        fn text(&mut self, words: &[&str], length: usize) -> Vec<u8> {
            let mut out = Vec::new();
            for _ in 0..self.below(length) {
                match self.below(8) {
                    0 => out.push(self.next() as u8),
                    _ => out.extend_from_slice(words[self.below(words.len())].as_bytes()),
                }
                if self.below(30) == 0 && !out.is_empty() {
                    let at = self.below(out.len());
                    out[at] ^= 1 << self.below(8);
                }
            }
            out
        }
    }

    #[test]
    fn client_protocol() {
        let words = [
            "PUB ",
            "HPUB ",
            "SUB ",
            "UNSUB ",
            "PING\r\n",
            "PONG\r\n",
            "CONNECT {}\r\n",
            "+OK\r\n",
            "foo.bar ",
            "_INBOX.x ",
            "q ",
            "1 ",
            "0",
            "5\r\n",
            "12 17\r\n",
            "12 12\r\n",
            "999999999",
            "hello\r\n",
            "NATS/1.0\r\n\r\n",
            "NATS/1.0 503\r\nA: b\r\n\r\n",
            "\r\n",
            "\n",
            "-1",
            " ",
            "\t",
        ];
        let mut rng = Rng(1);
        for _ in 0..30_000 {
            let mut data = vec![rng.below(9) as u8 + 1];
            data.extend(rng.text(&words, 24));
            fuzz_protocol(&data);
        }
    }

    #[test]
    fn header_blocks() {
        let words = [
            "NATS/1.0",
            " 503",
            " No Messages",
            "\r\n",
            "\n",
            "Key",
            ":",
            " ",
            "value",
            "é",
        ];
        let mut rng = Rng(2);
        for _ in 0..30_000 {
            fuzz_headers(&rng.text(&words, 20));
        }
    }

    #[test]
    fn configuration_files() {
        let words = [
            "port",
            "listen",
            "jetstream",
            "authorization",
            "{",
            "}",
            "[",
            "]",
            ":",
            "=",
            "\n",
            ",",
            " ",
            "\"",
            "'",
            "#",
            "//",
            "$X",
            "include ",
            "4222",
            "1GB",
            "2m",
            "true",
            "-1",
            "user",
            "a: b\n",
            "(",
            ")",
            "max_payload",
        ];
        let mut rng = Rng(3);
        for _ in 0..10_000 {
            fuzz_config(&rng.text(&words, 40));
        }
    }
}
