//! What a consumer needs of its stream.

use roaring::RoaringTreemap;

use super::codec::{ConsumerFormatError, Reader, put_bytes, put_set, put_u64};
use super::state::ConsumerState;
use crate::ids::Seq;
use crate::limits::POSITION_MAX;

/// Version byte of the stored form.
const FORMAT_VERSION: u8 = 1;

/// The messages that a consumer needed at one moment: everything that its filters match, from a
/// position on, and some below it. When the consumer is gone, or wants something else, these are the
/// messages that may have become superfluous, and no others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// Subject filters; empty means every message.
    pub filters: Vec<String>,
    /// Every match from here on.
    pub next: Seq,
    /// Messages below that were listed, unacknowledged, or given up and still stored.
    pub open: RoaringTreemap,
}

impl Claim {
    /// Appends the stored form of some claims.
    pub fn encode_all(claims: &[std::sync::Arc<Claim>], out: &mut Vec<u8>) {
        out.push(FORMAT_VERSION);
        put_u64(out, claims.len() as u64);
        for claim in claims {
            put_u64(out, claim.filters.len() as u64);
            for filter in &claim.filters {
                put_bytes(out, filter.as_bytes());
            }
            put_u64(out, claim.next.0);
            put_set(out, &claim.open);
        }
    }

    /// Reads the stored form. Total: any bytes give claims or an error.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Claim>, ConsumerFormatError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            FORMAT_VERSION => {}
            0 => return Err(ConsumerFormatError::BadValue),
            newer => return Err(ConsumerFormatError::NewerVersion(newer)),
        }
        let mut claims = Vec::new();
        for _ in 0..reader.count()? {
            let mut filters = Vec::new();
            for _ in 0..reader.count()? {
                filters.push(reader.text()?);
            }
            let next = reader.u64()?;
            if next > POSITION_MAX {
                return Err(ConsumerFormatError::BadNumber);
            }
            claims.push(Claim {
                filters,
                next: Seq(next),
                open: reader.set(next)?,
            });
        }
        reader.finish()?;
        Ok(claims)
    }
}

impl ConsumerState {
    /// What this consumer needs now.
    pub fn claim(&self) -> Claim {
        let pending = self.open.pending.iter().map(|(seq, _)| seq);
        let mut open: RoaringTreemap = pending.collect();
        open |= &self.open.exhausted;
        open |= &self.open.listed;
        Claim {
            filters: self.config.filters.clone(),
            next: Seq(self.next),
            open,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn claims_come_back(
            claims in proptest::collection::vec(
                (proptest::collection::vec(".{0,8}", 0..3), 1u64..5000,
                 proptest::collection::btree_set(0u64..5000, 0..20)), 0..4)
        ) {
            let claims: Vec<Arc<Claim>> = claims
                .into_iter()
                .map(|(filters, next, open)| Arc::new(Claim {
                    filters,
                    next: Seq(next),
                    open: open.into_iter().filter(|seq| *seq < next).collect(),
                }))
                .collect();
            let mut bytes = Vec::new();
            Claim::encode_all(&claims, &mut bytes);
            let back = Claim::decode_all(&bytes).map(|all| all.into_iter().map(Arc::new).collect());
            prop_assert_eq!(back, Ok(claims));
            for end in 0..bytes.len() {
                prop_assert!(Claim::decode_all(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn decoding_is_total(bytes: Vec<u8>) {
            let _ = Claim::decode_all(&bytes);
        }
    }
}
