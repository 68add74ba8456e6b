//! What a consumer was asked to be, and its stored form.

use super::codec::{ConsumerFormatError, Reader, put_bytes, put_i64, put_option, put_u64};
use crate::ids::{Seq, TimestampNs};

/// Version byte of the stored form.
const FORMAT_VERSION: u8 = 1;

/// Where a new consumer starts (DLV-006..011). The start itself is computed by the stream, which
/// knows its messages; the policy is kept so that a reset can be judged (CAPI-017).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliverPolicy {
    /// From the first stored message.
    #[default]
    All,
    /// From the last (matching) message.
    Last,
    /// Only messages stored after the creation.
    New,
    /// From this sequence on.
    BySeq(Seq),
    /// From the first message stored at or after this time.
    ByTime(TimestampNs),
    /// The last message of every matching subject, then everything after the creation.
    LastPerSubject,
}

/// How deliveries are acknowledged (CCFG-009).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckPolicy {
    /// Delivered counts as acknowledged.
    #[default]
    None,
    /// An acknowledgement covers everything delivered up to it.
    All,
    /// Every message is acknowledged by itself.
    Explicit,
}

/// Settings of a consumer that the engine acts on. Everything else the owner wants to keep with it
/// travels in `attachment`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// Unique within the stream.
    pub name: String,
    /// Whether the owner asked for it to outlive inactivity. Kept for the owner only.
    pub durable: bool,
    /// Subject filters; empty means every message.
    pub filters: Vec<String>,
    /// Where it starts.
    pub deliver: DeliverPolicy,
    /// How deliveries are acknowledged.
    pub ack: AckPolicy,
    /// Nanoseconds until an unacknowledged delivery is due again. 0 means never.
    pub ack_wait_ns: u64,
    /// Nanoseconds to wait after the n-th delivery, the last entry repeating. Overrides
    /// `ack_wait_ns` unless empty (T-57).
    pub backoff_ns: Vec<u64>,
    /// Deliveries after which a message is given up. `None` and 0 mean no limit.
    pub max_deliver: Option<u64>,
    /// Unacknowledged messages at which new deliveries stop. `None` and 0 mean no limit.
    pub max_ack_pending: Option<u64>,
    /// State is kept in memory only: nothing is recorded for a restart.
    pub memory: bool,
    /// Nothing is delivered before this time.
    pub pause_until: Option<TimestampNs>,
    /// Whether the owner wants the original gaps between messages. Kept for the owner only.
    pub replay_original: bool,
    /// Opaque bytes of the owner.
    pub attachment: Vec<u8>,
}

impl ConsumerConfig {
    /// Deliveries after which a message is given up.
    pub fn deliveries_max(&self) -> Option<u64> {
        self.max_deliver.filter(|&max| max > 0)
    }

    /// Unacknowledged messages at which new deliveries stop. Never limits [`AckPolicy::None`],
    /// which has nothing to wait for.
    pub fn ack_pending_max(&self) -> Option<u64> {
        match self.ack {
            AckPolicy::None => None,
            AckPolicy::All | AckPolicy::Explicit => self.max_ack_pending.filter(|&max| max > 0),
        }
    }

    /// Nanoseconds to wait for an acknowledgement after delivery number `deliveries` (1-based)
    /// before the message is due again (T-57). `None` means for ever.
    pub fn wait_ns(&self, deliveries: u32) -> Option<u64> {
        let step = deliveries.saturating_sub(1) as usize;
        let wait_ns = match self.backoff_ns.last() {
            None => self.ack_wait_ns,
            Some(&last) => self.backoff_ns.get(step).copied().unwrap_or(last),
        };
        (wait_ns > 0).then_some(wait_ns)
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT_VERSION);
        put_bytes(out, self.name.as_bytes());
        out.push(u8::from(self.durable));
        put_u64(out, self.filters.len() as u64);
        for filter in &self.filters {
            put_bytes(out, filter.as_bytes());
        }
        match self.deliver {
            DeliverPolicy::All => out.push(0),
            DeliverPolicy::Last => out.push(1),
            DeliverPolicy::New => out.push(2),
            DeliverPolicy::BySeq(seq) => {
                out.push(3);
                put_u64(out, seq.0);
            }
            DeliverPolicy::ByTime(time) => {
                out.push(4);
                put_i64(out, time.0);
            }
            DeliverPolicy::LastPerSubject => out.push(5),
        }
        out.push(match self.ack {
            AckPolicy::None => 0,
            AckPolicy::All => 1,
            AckPolicy::Explicit => 2,
        });
        put_u64(out, self.ack_wait_ns);
        put_u64(out, self.backoff_ns.len() as u64);
        for &step in &self.backoff_ns {
            put_u64(out, step);
        }
        put_option(out, self.max_deliver);
        put_option(out, self.max_ack_pending);
        out.push(u8::from(self.memory));
        out.push(u8::from(self.pause_until.is_some()));
        if let Some(until) = self.pause_until {
            put_i64(out, until.0);
        }
        out.push(u8::from(self.replay_original));
        put_bytes(out, &self.attachment);
    }

    /// Reads the stored form. Total: any bytes give a config or an error.
    pub fn decode(bytes: &[u8]) -> Result<ConsumerConfig, ConsumerFormatError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            FORMAT_VERSION => {}
            0 => return Err(ConsumerFormatError::BadValue),
            newer => return Err(ConsumerFormatError::NewerVersion(newer)),
        }
        let name = reader.text()?;
        let durable = reader.bool()?;
        let mut filters = Vec::new();
        for _ in 0..reader.count()? {
            filters.push(reader.text()?);
        }
        let deliver = match reader.u8()? {
            0 => DeliverPolicy::All,
            1 => DeliverPolicy::Last,
            2 => DeliverPolicy::New,
            3 => DeliverPolicy::BySeq(Seq(reader.u64()?)),
            4 => DeliverPolicy::ByTime(TimestampNs(reader.i64()?)),
            5 => DeliverPolicy::LastPerSubject,
            _ => return Err(ConsumerFormatError::BadValue),
        };
        let ack = match reader.u8()? {
            0 => AckPolicy::None,
            1 => AckPolicy::All,
            2 => AckPolicy::Explicit,
            _ => return Err(ConsumerFormatError::BadValue),
        };
        let ack_wait_ns = reader.u64()?;
        let mut backoff_ns = Vec::new();
        for _ in 0..reader.count()? {
            backoff_ns.push(reader.u64()?);
        }
        let config = ConsumerConfig {
            name,
            durable,
            filters,
            deliver,
            ack,
            ack_wait_ns,
            backoff_ns,
            max_deliver: reader.option()?,
            max_ack_pending: reader.option()?,
            memory: reader.bool()?,
            pause_until: match reader.bool()? {
                true => Some(TimestampNs(reader.i64()?)),
                false => None,
            },
            replay_original: reader.bool()?,
            attachment: reader.bytes()?.to_vec(),
        };
        reader.finish()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn deliver() -> impl Strategy<Value = DeliverPolicy> {
        prop_oneof![
            Just(DeliverPolicy::All),
            Just(DeliverPolicy::Last),
            Just(DeliverPolicy::New),
            Just(DeliverPolicy::LastPerSubject),
            any::<u64>().prop_map(|seq| DeliverPolicy::BySeq(Seq(seq))),
            any::<i64>().prop_map(|time| DeliverPolicy::ByTime(TimestampNs(time))),
        ]
    }

    prop_compose! {
        fn config()(
            name in ".{0,20}", durable: bool, filters in vec(".{0,12}", 0..4), deliver in deliver(),
            ack in prop_oneof![Just(AckPolicy::None), Just(AckPolicy::All), Just(AckPolicy::Explicit)],
            ack_wait_ns: u64, backoff_ns in vec(any::<u64>(), 0..4), limits: (Option<u64>, Option<u64>),
            memory: bool, pause: Option<i64>, replay_original: bool, attachment in vec(any::<u8>(), 0..40),
        ) -> ConsumerConfig {
            ConsumerConfig {
                name, durable, filters, deliver, ack, ack_wait_ns, backoff_ns,
                max_deliver: limits.0, max_ack_pending: limits.1, memory,
                pause_until: pause.map(TimestampNs), replay_original, attachment,
            }
        }
    }

    proptest! {
        #[test]
        fn a_config_comes_back_and_no_prefix_of_it_does(config in config()) {
            let mut bytes = Vec::new();
            config.encode(&mut bytes);
            prop_assert_eq!(ConsumerConfig::decode(&bytes), Ok(config));
            for end in 0..bytes.len() {
                prop_assert!(ConsumerConfig::decode(&bytes[..end]).is_err());
            }
            bytes.push(0);
            prop_assert_eq!(ConsumerConfig::decode(&bytes), Err(ConsumerFormatError::Trailing));
        }

        #[test]
        fn decoding_is_total(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(config) = ConsumerConfig::decode(&bytes) {
                let mut again = Vec::new();
                config.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        assert_eq!(
            ConsumerConfig::decode(&[9, 0]),
            Err(ConsumerFormatError::NewerVersion(9))
        );
    }

    #[test]
    fn backoff_overrides_ack_wait_and_its_last_step_repeats() {
        let mut config = ConsumerConfig {
            ack_wait_ns: 30,
            ..ConsumerConfig::default()
        };
        assert_eq!([1, 2, 9].map(|n| config.wait_ns(n)), [Some(30); 3]);
        config.backoff_ns = vec![2, 6];
        assert_eq!(
            [0, 1, 2, 3, 9].map(|n| config.wait_ns(n)),
            [Some(2), Some(2), Some(6), Some(6), Some(6)]
        );
        config.backoff_ns.clear();
        config.ack_wait_ns = 0;
        assert_eq!(config.wait_ns(1), None);
    }
}
