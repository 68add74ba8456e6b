//! The stored form of a stream configuration: a version byte, then the fields in a fixed order.

use crate::config::{
    Compression, ConfigError, DeleteMarker, Discard, Retention, Storage, StreamConfig,
};
use crate::format::FormatError;
use crate::format::cursor::Cursor;
use crate::format::varint;
use crate::ids::Seq;
use crate::limits::FIRST_SEQ_MAX;

const VERSION: u8 = 1;

impl StreamConfig {
    /// Checks what does not depend on other streams.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.name.is_empty() || self.name.len() > StreamConfig::NAME_BYTES_MAX {
            return Err(ConfigError::Name);
        }
        if self.attachment.len() > StreamConfig::ATTACHMENT_BYTES_MAX {
            return Err(ConfigError::Attachment);
        }
        if self.first_seq.0 > FIRST_SEQ_MAX {
            return Err(ConfigError::Invalid("the first sequence is too large"));
        }
        if self.discard_new_per_subject
            && (self.discard != Discard::New || self.msgs_per_subject_max.is_none())
        {
            return Err(ConfigError::Invalid(
                "discard new per subject needs discard new and a limit per subject",
            ));
        }
        match &self.delete_marker {
            Some(marker) if marker.headers.len() > DeleteMarker::HEADERS_BYTES_MAX => Err(
                ConfigError::Invalid("the headers of the marker are too long"),
            ),
            Some(DeleteMarker { ttl_ns: 0, .. }) => {
                Err(ConfigError::Invalid("a marker has to live for some time"))
            }
            _ => Ok(()),
        }
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_bytes(self.name.as_bytes(), out);
        out.push(match self.storage {
            Storage::File => 0,
            Storage::Memory => 1,
        });
        for limit in [
            self.msgs_max,
            self.bytes_max,
            self.age_max_ns,
            self.msgs_per_subject_max,
        ] {
            put_option(limit, out);
        }
        out.push(match self.discard {
            Discard::Old => 0,
            Discard::New => 1,
        });
        out.push(u8::from(self.discard_new_per_subject));
        out.push(match self.retention {
            Retention::Limits => 0,
            Retention::Interest => 1,
            Retention::WorkQueue => 2,
        });
        varint::encode(self.dedup_window_ns, out);
        out.push(match self.compression {
            Compression::None => 0,
            Compression::S2 => 1,
        });
        varint::encode(self.first_seq.0, out);
        put_option(self.delete_marker.as_ref().map(|marker| marker.ttl_ns), out);
        if let Some(marker) = &self.delete_marker {
            put_bytes(&marker.headers, out);
        }
        put_bytes(&self.attachment, out);
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<StreamConfig, FormatError> {
        let mut input = Cursor::new(bytes);
        match input.u8()? {
            VERSION => {}
            found => {
                return Err(FormatError::UnknownKind {
                    what: "stream configuration",
                    found,
                });
            }
        }
        let name = String::from_utf8(input.sized_bytes()?.to_vec()).map_err(|_| {
            FormatError::OutOfRange {
                what: "stream name",
            }
        })?;
        let storage = pick(input.u8()?, &[Storage::File, Storage::Memory], "storage")?;
        let msgs_max = get_option(&mut input)?;
        let bytes_max = get_option(&mut input)?;
        let age_max_ns = get_option(&mut input)?;
        let msgs_per_subject_max = get_option(&mut input)?;
        let discard = pick(input.u8()?, &[Discard::Old, Discard::New], "discard")?;
        let discard_new_per_subject = pick(input.u8()?, &[false, true], "discard per subject")?;
        let retention = pick(
            input.u8()?,
            &[Retention::Limits, Retention::Interest, Retention::WorkQueue],
            "retention",
        )?;
        let dedup_window_ns = input.varint()?;
        let compression = pick(
            input.u8()?,
            &[Compression::None, Compression::S2],
            "compression",
        )?;
        let first_seq = Seq(input.varint()?);
        let delete_marker = match get_option(&mut input)? {
            Some(ttl_ns) => Some(DeleteMarker {
                ttl_ns,
                headers: input.sized_bytes()?.to_vec(),
            }),
            None => None,
        };
        let attachment = input.sized_bytes()?.to_vec();
        if !input.rest().is_empty() {
            return Err(FormatError::OutOfRange {
                what: "stream configuration length",
            });
        }
        Ok(StreamConfig {
            name,
            storage,
            msgs_max,
            bytes_max,
            age_max_ns,
            delete_marker,
            msgs_per_subject_max,
            discard,
            discard_new_per_subject,
            retention,
            dedup_window_ns,
            compression,
            first_seq,
            attachment,
        })
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint::encode(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_option(value: Option<u64>, out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    varint::encode(value.unwrap_or(0), out);
}

fn get_option(input: &mut Cursor<'_>) -> Result<Option<u64>, FormatError> {
    let present = pick(input.u8()?, &[false, true], "option")?;
    let value = input.varint()?;
    Ok(present.then_some(value))
}

fn pick<T: Copy>(index: u8, values: &[T], what: &'static str) -> Result<T, FormatError> {
    values
        .get(usize::from(index))
        .copied()
        .ok_or(FormatError::UnknownKind { what, found: index })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> impl Strategy<Value = StreamConfig> {
        let limit = || proptest::option::of(any::<u64>());
        (
            (
                "[a-zA-Z0-9/_-]{1,40}",
                any::<bool>(),
                limit(),
                limit(),
                limit(),
                limit(),
            ),
            (
                any::<bool>(),
                0..3u8,
                any::<u64>(),
                any::<bool>(),
                any::<u64>(),
                any::<Vec<u8>>(),
            ),
            proptest::option::of((any::<Vec<u8>>(), any::<u64>())),
        )
            .prop_map(|(a, b, marker)| StreamConfig {
                name: a.0,
                storage: if a.1 { Storage::File } else { Storage::Memory },
                msgs_max: a.2,
                bytes_max: a.3,
                age_max_ns: a.4,
                msgs_per_subject_max: a.5,
                discard: if b.0 { Discard::Old } else { Discard::New },
                discard_new_per_subject: b.0,
                retention: [Retention::Limits, Retention::Interest, Retention::WorkQueue]
                    [usize::from(b.1)],
                dedup_window_ns: b.2,
                compression: if b.3 {
                    Compression::None
                } else {
                    Compression::S2
                },
                first_seq: Seq(b.4),
                delete_marker: marker.map(|(headers, ttl_ns)| DeleteMarker { headers, ttl_ns }),
                attachment: b.5,
            })
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(config in sample(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            config.encode(&mut bytes);
            prop_assert_eq!(StreamConfig::decode(&bytes), Ok(config));
            prop_assert!(StreamConfig::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = StreamConfig::decode(&bytes);
        }
    }
}
