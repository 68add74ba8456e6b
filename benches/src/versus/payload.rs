//! Payloads that say who sent them and can be checked without storing them.
//!
//! The first bytes are the connection and the number of the message; the rest is a window into a block
//! of noise, chosen by the number. Writing is a copy, checking a comparison.

/// Bytes of the connection index and the message number.
pub const HEAD_BYTES: usize = 12;
const NOISE_BYTES: usize = 64 * 1024;

/// Makes and checks payloads of one size.
pub struct Payloads {
    noise: Vec<u8>,
    size_bytes: usize,
}

impl Payloads {
    /// Payloads of `size_bytes` each, at least [`HEAD_BYTES`].
    pub fn new(size_bytes: usize) -> Self {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        });
        Self {
            noise: noise.take(NOISE_BYTES + size_bytes).collect(),
            size_bytes: size_bytes.max(HEAD_BYTES),
        }
    }

    /// Bytes of each payload.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Appends the payload of a message.
    pub fn append(&self, out: &mut Vec<u8>, connection: u32, number: u64) {
        out.extend_from_slice(&connection.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(self.rest(connection, number));
    }

    /// The connection and number of a payload, if every byte is as it was sent.
    pub fn check(&self, payload: &[u8]) -> Option<(u32, u64)> {
        let (connection, rest) = payload.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (connection, number) = (u32::from_le_bytes(*connection), u64::from_le_bytes(*number));
        (rest == self.rest(connection, number)).then_some((connection, number))
    }

    fn rest(&self, connection: u32, number: u64) -> &[u8] {
        let mixed = (number ^ (u64::from(connection) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let start = (mixed >> 32) as usize % NOISE_BYTES;
        &self.noise[start..start + self.size_bytes - HEAD_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::Payloads;

    #[test]
    fn a_payload_is_recognised_and_any_changed_byte_is_noticed() {
        for size in [12, 128, 1024] {
            let payloads = Payloads::new(size);
            let mut bytes = Vec::new();
            payloads.append(&mut bytes, 3, 77_777);
            assert_eq!(bytes.len(), size);
            assert_eq!(payloads.check(&bytes), Some((3, 77_777)));
            for index in 0..size {
                let mut changed = bytes.clone();
                changed[index] ^= 1;
                assert_ne!(
                    payloads.check(&changed),
                    Some((3, 77_777)),
                    "byte {index} of {size}"
                );
            }
            assert_eq!(payloads.check(&bytes[..size - 1]), None);
        }
    }
}
