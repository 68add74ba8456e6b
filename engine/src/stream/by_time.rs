//! Finding a sequence by time.

use super::core::StreamCore;
use super::layout::Layout;
use crate::error::ReadError;
use crate::ids::TimestampNs;

impl StreamCore {
    /// The first live, durable sequence whose time is at or after `ts`; one past the last visible
    /// sequence when there is none.
    pub fn seq_at(&self, ts: TimestampNs) -> Result<u64, ReadError> {
        loop {
            let visible = self.visible_seq();
            let layout = self.lock().layout();
            if let Some(seq) = self.seq_at_in(&layout, visible, ts)? {
                return Ok(seq);
            }
        }
    }

    /// `None` when a checkpoint moved the tail, or a file was replaced, meanwhile.
    pub(super) fn seq_at_in(
        &self,
        layout: &Layout,
        visible: u64,
        ts: TimestampNs,
    ) -> Result<Option<u64>, ReadError> {
        for extent in layout
            .extents
            .iter()
            .filter(|extent| extent.last_ts >= ts.0)
        {
            match extent.file.segment.first_seq_at_or_after(self.id, ts) {
                Ok(Some(seq)) => {
                    let data = self.lock();
                    let seq = data.tombstones.next_live(seq.0.max(data.first_seq));
                    return Ok(Some(seq.min(visible + 1)));
                }
                Ok(None) => {}
                Err(error) if self.has_file(extent) => return Err(error),
                Err(_) => return Ok(None),
            }
        }
        let data = self.lock();
        if data.layout_epoch != layout.layout_epoch {
            return Ok(None);
        }
        let tails = layout.frozen.as_deref().into_iter().chain([&data.tail]);
        let found = tails
            .flat_map(|tail| tail.iter_from(0))
            .find(|message| message.ts >= ts && data.is_live(message.seq.0));
        Ok(Some(found.map_or(visible + 1, |message| {
            message.seq.0.min(visible + 1)
        })))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::StreamConfig;
    use crate::ids::Seq;
    use crate::io::Env;
    use crate::io::sim::{SimClock, SimDisk};
    use crate::store::{Store, StoreOptions, Threads};
    use crate::stream::{Append, PurgeRequest, Stream};

    /// A store with a stream of three durable messages, one nanosecond apart.
    fn fixture() -> (Store, Stream) {
        let clock = SimClock::new(1_000);
        let env = Env::simulated(&SimDisk::new(1), &clock, 1);
        let options = StoreOptions {
            threads: Threads::Manual,
            ..StoreOptions::default()
        };
        let (store, _) = Store::open_in(env, Path::new("/data"), options).expect("a store");
        let config = StreamConfig {
            name: "S".into(),
            ..StreamConfig::default()
        };
        let (stream, _) = store.create_stream(config).expect("a stream");
        for n in 1..=3 {
            clock.set_ns(1_000 + n);
            let append = Append {
                subject: b"s",
                ..Append::default()
            };
            stream.append_nosync(&append).expect("accepted");
        }
        store.commit();
        (store, stream)
    }

    #[test]
    fn a_time_is_not_looked_up_in_a_tail_that_left() {
        let (store, stream) = fixture();
        let core = &stream.core;
        let before = core.lock().layout();
        store.checkpoint().expect("sealed");
        let found = core.seq_at_in(&before, 3, TimestampNs(1_002));
        assert_eq!(found.expect("readable"), None);
        let now = core.lock().layout();
        let found = core.seq_at_in(&now, 3, TimestampNs(1_002));
        assert_eq!(found.expect("readable"), Some(2));
        // What was removed from the front is not found either.
        let request = PurgeRequest {
            below: Some(Seq(3)),
            ..PurgeRequest::default()
        };
        stream.purge(&request).expect("purged");
        assert_eq!(stream.seq_at(TimestampNs(1)).expect("readable"), Seq(3));
    }
}
