//! One frame under construction: encoded ops and the streams they touch.

use std::sync::Arc;

use super::gate::StreamGate;
use crate::format::frame::HEAD_BYTES;
use crate::ids::{Lsn, Seq};

/// A buffer that grew larger than this for one large record is not kept for reuse.
const BUFFER_KEPT_BYTES_MAX: usize = 4 << 20;

/// Ops that will share a frame. Reused, so that steady operation allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Room for the frame's head, then the encoded ops.
    pub frame: Vec<u8>,
    /// Lsn of the first op.
    pub first_lsn: Lsn,
    /// Ops in the frame.
    pub ops: u32,
    /// Bytes of the ops, as the queue counted them.
    pub op_bytes: u64,
    /// Streams with appends in this frame, each with its last sequence.
    pub touched: Vec<(Arc<StreamGate>, Seq)>,
    /// Tells batches apart in [`StreamGate`] hints.
    number: u32,
}

impl Batch {
    /// Empties the batch for new ops.
    pub fn reset(&mut self, number: u32, first_lsn: Lsn) {
        self.frame.clear();
        if self.frame.capacity() > BUFFER_KEPT_BYTES_MAX {
            self.frame = Vec::new();
        }
        self.frame.resize(HEAD_BYTES, 0);
        self.first_lsn = first_lsn;
        self.ops = 0;
        self.op_bytes = 0;
        self.touched.clear();
        self.number = number;
    }

    /// Bytes of encoded ops, before the frame is sealed.
    pub fn payload_bytes(&self) -> usize {
        self.frame.len().saturating_sub(HEAD_BYTES)
    }

    /// Lsn of the last op.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.ops) - 1)
    }

    /// Notes that the frame makes `seq` of the gate's stream durable. Constant time: the gate
    /// remembers its place in the batch.
    pub fn touch(&mut self, gate: &Arc<StreamGate>, seq: Seq) {
        let hint = gate.hint();
        let index = (hint & 0xffff_ffff) as usize;
        if (hint >> 32) as u32 == self.number
            && let Some((known, known_seq)) = self.touched.get_mut(index)
            && Arc::ptr_eq(known, gate)
        {
            *known_seq = seq.max(*known_seq);
            return;
        }
        gate.set_hint(u64::from(self.number) << 32 | self.touched.len() as u64);
        self.touched.push((Arc::clone(gate), seq));
    }
}
