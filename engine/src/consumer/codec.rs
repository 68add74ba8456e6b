//! Byte helpers of the consumer formats: canonical LEB128 numbers and length-prefixed bytes.
//! Every read is checked; a length is compared with the bytes at hand before anything is copied.

use std::fmt;

use roaring::RoaringTreemap;

/// Longest run of consecutive sequences written as one. Bounds what a few damaged bytes can make
/// a reader do.
pub(super) const RUN_MAX: u64 = 4096;

/// Why stored consumer bytes were refused. Nothing of the bytes has been applied unless said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerFormatError {
    /// The bytes end inside a field.
    Short,
    /// A number is not in its shortest form or does not fit its field.
    BadNumber,
    /// A field holds a value that no version of the format writes.
    BadValue,
    /// Text is not UTF-8.
    BadText,
    /// Bytes are left over after the last field.
    Trailing,
    /// Written by a newer version of the software.
    NewerVersion(u8),
    /// An event batch is missing: the state is at batch `have`, the bytes hold batch `found`.
    MissingBatch {
        /// Number of the last batch the state contains.
        have: u64,
        /// Number of the batch that was offered.
        found: u64,
    },
}

impl fmt::Display for ConsumerFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("consumer data ends early"),
            Self::BadNumber => f.write_str("consumer data holds a malformed number"),
            Self::BadValue => f.write_str("consumer data holds an impossible value"),
            Self::BadText => f.write_str("consumer data holds text that is not UTF-8"),
            Self::Trailing => f.write_str("consumer data has trailing bytes"),
            Self::NewerVersion(v) => write!(f, "consumer data has newer format version {v}"),
            Self::MissingBatch { have, found } => {
                write!(
                    f,
                    "consumer event batch {found} does not follow batch {have}"
                )
            }
        }
    }
}

impl std::error::Error for ConsumerFormatError {}

pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A number that may be absent: a byte that tells, then the number.
pub(super) fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put_u64(out, value);
        }
    }
}

/// A set of sequences, as runs.
pub(super) fn put_set(out: &mut Vec<u8>, set: &RoaringTreemap) {
    put_runs(out, set.iter());
}

/// Ascending numbers as runs: distance from the end of the run before, and length. Returns whether
/// there are any.
pub(super) fn put_runs(out: &mut Vec<u8>, numbers: impl Iterator<Item = u64>) -> bool {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for seq in numbers {
        match runs.last_mut() {
            Some((first, len)) if *len < RUN_MAX && *first + *len == seq => *len += 1,
            _ => runs.push((seq, 1)),
        }
    }
    put_u64(out, runs.len() as u64);
    let mut end = 0;
    for &(first, len) in &runs {
        put_u64(out, first - end);
        put_u64(out, len);
        end = first + len;
    }
    !runs.is_empty()
}

/// The sum, with a successor.
pub(super) fn ahead(from: u64, by: u64) -> Result<u64, ConsumerFormatError> {
    match from.checked_add(by) {
        Some(sum) if sum < u64::MAX => Ok(sum),
        _ => Err(ConsumerFormatError::BadNumber),
    }
}

/// Checked reader over stored bytes.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn u8(&mut self) -> Result<u8, ConsumerFormatError> {
        let (&first, rest) = self.rest.split_first().ok_or(ConsumerFormatError::Short)?;
        self.rest = rest;
        Ok(first)
    }

    pub(super) fn bool(&mut self) -> Result<bool, ConsumerFormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ConsumerFormatError::BadValue),
        }
    }

    pub(super) fn u64(&mut self) -> Result<u64, ConsumerFormatError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(ConsumerFormatError::BadNumber);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(ConsumerFormatError::BadNumber);
                }
                return Ok(value);
            }
        }
        Err(ConsumerFormatError::BadNumber)
    }

    pub(super) fn i64(&mut self) -> Result<i64, ConsumerFormatError> {
        let raw = self.u64()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    pub(super) fn option(&mut self) -> Result<Option<u64>, ConsumerFormatError> {
        Ok(if self.bool()? {
            Some(self.u64()?)
        } else {
            None
        })
    }

    /// A count of items that take at least one byte each, so it can never exceed what is left.
    pub(super) fn count(&mut self) -> Result<usize, ConsumerFormatError> {
        let count = self.u64()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(ConsumerFormatError::Short),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], ConsumerFormatError> {
        let len = self.count()?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(ConsumerFormatError::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, ConsumerFormatError> {
        let bytes = self.bytes()?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(ConsumerFormatError::BadText),
        }
    }

    /// A set of sequences below `end_max`.
    pub(super) fn set(&mut self, end_max: u64) -> Result<RoaringTreemap, ConsumerFormatError> {
        self.part(0, end_max)
    }

    /// A set of sequences in `first..end_max`, written as their distances from `first`.
    pub(super) fn part(
        &mut self,
        first: u64,
        end_max: u64,
    ) -> Result<RoaringTreemap, ConsumerFormatError> {
        let mut set = RoaringTreemap::new();
        let mut end = first;
        for _ in 0..self.count()? {
            let first = ahead(end, self.u64()?)?;
            let len = self.u64()?;
            end = ahead(first, len)?;
            if len > RUN_MAX || end > end_max {
                return Err(ConsumerFormatError::BadValue);
            }
            set.insert_range(first..end);
        }
        Ok(set)
    }

    pub(super) fn finish(self) -> Result<(), ConsumerFormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ConsumerFormatError::Trailing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(unsigned: u64, signed: i64) {
            let mut out = Vec::new();
            put_u64(&mut out, unsigned);
            put_i64(&mut out, signed);
            put_option(&mut out, Some(unsigned));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.u64(), Ok(unsigned));
            prop_assert_eq!(reader.i64(), Ok(signed));
            prop_assert_eq!(reader.option(), Ok(Some(unsigned)));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn sets_come_back(runs in proptest::collection::vec((0u64..9000, 1u64..9000), 0..8)) {
            let mut set = RoaringTreemap::new();
            let mut end = 0;
            for (gap, len) in runs {
                set.insert_range(end + gap..end + gap + len);
                end += gap + len;
            }
            let mut out = Vec::new();
            put_set(&mut out, &set);
            prop_assert_eq!(Reader::new(&out).set(end), Ok(set.clone()));
            if end > 0 {
                prop_assert!(Reader::new(&out).set(end - 1).is_err());
            }
        }
    }

    #[test]
    fn a_run_longer_than_ever_written_is_refused_before_it_is_made() {
        let mut out = vec![1, 0];
        put_u64(&mut out, u64::MAX / 4);
        let refused = Reader::new(&out).set(u64::MAX / 2);
        assert_eq!(refused, Err(ConsumerFormatError::BadValue));
    }

    #[test]
    fn overlong_and_oversized_numbers_are_refused() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff; 11][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            assert_eq!(
                Reader::new(bytes).u64(),
                Err(ConsumerFormatError::BadNumber)
            );
        }
        assert_eq!(Reader::new(&[0x80]).u64(), Err(ConsumerFormatError::Short));
        assert_eq!(
            Reader::new(&[5, 1]).bytes(),
            Err(ConsumerFormatError::Short)
        );
    }
}
