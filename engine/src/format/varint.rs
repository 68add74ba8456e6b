//! LEB128 variable-length integers: seven bits a byte, low bits first, canonical (the shortest form
//! is the only valid one, so equal values have equal bytes).

use super::FormatError;

/// Bytes of the longest encoded `u64`.
pub const BYTES_MAX: usize = 10;

/// Appends `value` to `out`.
pub fn encode(mut value: u64, out: &mut Vec<u8>) {
    let mut bytes = [0_u8; BYTES_MAX];
    let mut len = 0;
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        bytes[len] = if value == 0 { low } else { low | 0x80 };
        len += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&bytes[..len]);
}

/// Takes an integer from the front of `input`; returns it and the rest.
#[inline]
pub fn decode(input: &[u8]) -> Result<(u64, &[u8]), FormatError> {
    match input.split_first() {
        Some((&byte, rest)) if byte < 0x80 => Ok((u64::from(byte), rest)),
        _ => decode_long(input),
    }
}

fn decode_long(input: &[u8]) -> Result<(u64, &[u8]), FormatError> {
    let mut value = 0_u64;
    for (i, &byte) in input.iter().take(BYTES_MAX).enumerate() {
        // The tenth byte holds bit 63 alone.
        if i == BYTES_MAX - 1 && byte > 1 {
            return Err(FormatError::VarintInvalid);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            // A last byte of zero could have been left out.
            if byte == 0 && i > 0 {
                return Err(FormatError::VarintInvalid);
            }
            return Ok((value, &input[i + 1..]));
        }
    }
    Err(FormatError::Truncated)
}

/// Bytes that [`encode`] appends for `value`.
pub fn encoded_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Maps small negative and positive numbers to small unsigned ones.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn boundaries_have_the_documented_length() {
        for (value, len) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (u64::MAX >> 1, 9),
            (u64::MAX, BYTES_MAX),
        ] {
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!((out.len(), encoded_len(value)), (len, len), "{value}");
            assert_eq!(decode(&out), Ok((value, &[][..])));
        }
    }

    #[test]
    fn longer_forms_and_overflow_are_rejected() {
        assert_eq!(decode(&[0x80, 0x00]), Err(FormatError::VarintInvalid));
        let mut eleven_bits_too_many = [0xff_u8; 10];
        eleven_bits_too_many[9] = 0x02;
        assert_eq!(
            decode(&eleven_bits_too_many),
            Err(FormatError::VarintInvalid)
        );
        assert_eq!(decode(&[0xff; 20]), Err(FormatError::VarintInvalid));
        assert_eq!(decode(&[0x80; 3]), Err(FormatError::Truncated));
        assert_eq!(decode(&[]), Err(FormatError::Truncated));
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, tail: Vec<u8>) {
            let mut out = Vec::new();
            encode(value, &mut out);
            prop_assert_eq!(out.len(), encoded_len(value));
            out.extend_from_slice(&tail);
            prop_assert_eq!(decode(&out), Ok((value, &tail[..])));
        }

        #[test]
        fn zigzag_round_trip(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn what_decodes_is_canonical(bytes: Vec<u8>) {
            if let Ok((value, rest)) = decode(&bytes) {
                let mut out = Vec::new();
                encode(value, &mut out);
                prop_assert_eq!(&bytes[..bytes.len() - rest.len()], &out[..]);
            }
        }
    }
}
