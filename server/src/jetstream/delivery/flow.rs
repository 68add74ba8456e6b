//! Flow control of push consumers (CCFG-020, T-107): from time to time the receiver is asked to say
//! that it got this far, and only so many bytes are on their way without an answer.

use bytes::Bytes;

/// Window of a new consumer, in bytes.
const WINDOW_START: usize = 2 << 20;
/// Largest window, in bytes.
const WINDOW_MAX: usize = 32 << 20;

/// State of one consumer.
#[derive(Debug)]
pub(crate) struct FlowControl {
    window: usize,
    /// Bytes sent and not confirmed.
    out: usize,
    /// The open request: its subject and the bytes it confirms.
    request: Option<(Bytes, usize)>,
}

impl Default for FlowControl {
    fn default() -> FlowControl {
        FlowControl {
            window: WINDOW_START,
            out: 0,
            request: None,
        }
    }
}

impl FlowControl {
    /// Books sent bytes. Returns whether a request is due.
    pub fn sent(&mut self, bytes: usize) -> bool {
        self.out += bytes;
        self.request.is_none() && self.out > self.window / 2
    }

    /// A request was sent.
    pub fn requested(&mut self, subject: Bytes) {
        self.request = Some((subject, self.out));
    }

    /// The open request.
    pub fn open_request(&self) -> Option<&Bytes> {
        self.request.as_ref().map(|(subject, _)| subject)
    }

    /// Whether nothing more may be sent.
    pub fn is_full(&self) -> bool {
        self.out >= self.window
    }

    /// An answer came. False when nobody waits for it.
    pub fn answered(&mut self, subject: &[u8]) -> bool {
        match self.request.take_if(|(open, _)| *open == subject) {
            Some((_, bytes)) => {
                self.window = (self.window * 2).min(WINDOW_MAX);
                self.out = self.out.saturating_sub(bytes);
                true
            }
            None => false,
        }
    }

    /// The receiver is a new one.
    pub fn restart(&mut self) {
        *self = FlowControl::default();
    }
}
