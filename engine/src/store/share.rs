//! A stream's share of a checkpoint: taken under the stream's lock, written without it, then made
//! current or put back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::checkpoint::{OWN_FILE_BYTES_MIN, Scope};
use super::shared::StoreShared;
use super::stored::encode_extents;
use crate::consumer::Claim;
use crate::dedup::{FrozenIds, IdWindow};
use crate::ids::{Lsn, SegmentId, Seq};
use crate::stream::core::StreamCore;
use crate::stream::cursor::{ConsumerCore, ConsumerShare};
use crate::stream::extent::Extent;
use crate::stream::snapshot::Positions;
use crate::stream::state::{StreamData, TailRam};
use crate::stream::tail::Tail;

/// A stream's share of a checkpoint.
pub(super) struct Share {
    pub core: Arc<StreamCore>,
    pub applied: Lsn,
    pub positions: Vec<u8>,
    pub config: Option<Vec<u8>>,
    pub tombstones: Vec<(u64, Option<Vec<u8>>)>,
    /// Pending erasures, if they changed.
    pub erasures: Option<Vec<u8>>,
    pub ids: Option<Arc<FrozenIds>>,
    pub id_window: IdWindow,
    /// Claims that are not settled, if they changed; empty when there is none.
    pub claims: Option<Vec<u8>>,
    pub frozen: Option<Arc<Tail>>,
    /// Files in which nothing of the stream is live.
    pub dead: BTreeSet<SegmentId>,
    pub sealed: Option<Extent>,
    pub consumers: Vec<ConsumerShare>,
}

/// Takes a stream's changes; `None` when there are none, or the scope leaves them.
///
/// Consumers are taken before their stream. An operation on both that comes in between is contained
/// in the stream's share alone: replay finds the consumer as it was before.
pub(super) fn freeze(core: &Arc<StreamCore>, scope: Scope) -> Option<Share> {
    match scope {
        Scope::Exactly(id) if id != core.id => return None,
        Scope::Exactly(_) => return freeze_exactly(core),
        Scope::All | Scope::LargeTails => {}
    }
    let consumers_changed = !core.lock_changed_consumers().is_empty();
    let wanted = {
        let data = core.lock();
        let own = data.dirty_since.is_some() || data.config_dirty || data.abandoned_dirty;
        match scope {
            Scope::LargeTails => data.tail_ram().total() >= OWN_FILE_BYTES_MIN,
            Scope::All | Scope::Exactly(_) => own || consumers_changed,
        }
    };
    if !wanted {
        return None;
    }
    let consumers = std::mem::take(&mut *core.lock_changed_consumers());
    let consumers = consumers.iter().filter_map(ConsumerCore::freeze).collect();
    let mut data = core.lock();
    if data.deleted {
        return None;
    }
    Some(freeze_stream(core, &mut data, consumers))
}

/// Takes a stream and its consumers while all of them stand still.
fn freeze_exactly(core: &Arc<StreamCore>) -> Option<Share> {
    let consumers = core.lock_consumers();
    let mut locked: Vec<_> = consumers.values().map(|c| (c, c.lock())).collect();
    // Every one of them is looked at. One that is deleted is in no list any more.
    core.lock_changed_consumers().clear();
    let frozen: Vec<ConsumerShare> = locked
        .iter_mut()
        .filter_map(|(consumer, data)| consumer.freeze_locked(core, data))
        .collect();
    let mut data = core.lock();
    let own = data.dirty_since.is_some() || data.config_dirty || data.abandoned_dirty;
    let changed = own || !frozen.is_empty();
    if data.deleted || !changed {
        return None;
    }
    Some(freeze_stream(core, &mut data, frozen))
}

/// Takes a stream's own changes.
fn freeze_stream(
    core: &Arc<StreamCore>,
    data: &mut StreamData,
    consumers: Vec<ConsumerShare>,
) -> Share {
    debug_assert!(data.frozen.is_none(), "one checkpoint at a time");
    let next = Seq(data.last_seq + 1);
    let frozen = Arc::new(std::mem::replace(&mut data.tail, Tail::starting_at(next)));
    let has_messages = frozen.live() > 0;
    data.frozen = has_messages.then(|| frozen.clone());
    data.layout_epoch += 1;
    data.priors.clear();
    let dead = data
        .extents
        .iter()
        .filter(|extent| data.live_in(extent.first, extent.last) == 0)
        .map(|extent| extent.file.id)
        .collect();
    let config = data.config_dirty.then(|| {
        let mut value = data.created.0.to_le_bytes().to_vec();
        data.config.encode(&mut value);
        value
    });
    data.config_dirty = false;
    let claims = data.abandoned_dirty.then(|| {
        let mut value = Vec::new();
        if !data.abandoned.is_empty() {
            Claim::encode_all(&data.abandoned, &mut value);
        }
        value
    });
    data.abandoned_dirty = false;
    Share {
        core: core.clone(),
        applied: data.last_lsn,
        positions: Positions::of(data).encode(),
        config,
        tombstones: data.tombstones.take_dirty(),
        erasures: data.erasures.take_dirty(),
        ids: data.ids.freeze(),
        id_window: data.id_window(),
        claims,
        frozen: Some(frozen),
        dead,
        sealed: None,
        consumers,
    }
}

impl Share {
    /// The list of extents after this checkpoint.
    pub fn extents_value(&self) -> Vec<u8> {
        let old = self.core.lock().extents.clone();
        let kept = old
            .iter()
            .filter(|extent| !self.dead.contains(&extent.file.id));
        encode_extents(kept.chain(&self.sealed))
    }

    /// Puts everything back after a failure: the tail, and what was marked as saved.
    pub fn thaw(self) {
        let mut data = self.core.lock();
        data.tombstones
            .mark_dirty(self.tombstones.iter().map(|(container, _)| *container));
        data.config_dirty |= self.config.is_some();
        data.abandoned_dirty |= self.claims.is_some();
        if self.erasures.is_some() {
            data.erasures.mark_dirty();
        }
        data.frozen = None;
        let before = self.frozen_ram() + data.tail_ram();
        data.ids.thaw();
        if let Some(frozen) = &self.frozen {
            let live: Vec<bool> = frozen.iter_from(0).map(|m| data.is_live(m.seq.0)).collect();
            data.tail.prepend(frozen, &live);
        }
        let shared = &self.core.shared;
        shared.tail_ram_changed(before, data.tail_ram());
        data.layout_epoch += 1;
        data.priors.clear();
        self.core.drop_tail_of_deleted(&mut data);
        drop(data);
        self.consumers.iter().for_each(ConsumerShare::thaw);
    }

    /// RAM of what was taken.
    fn frozen_ram(&self) -> TailRam {
        TailRam {
            msgs_bytes: self.frozen.as_ref().map_or(0, |frozen| frozen.ram_bytes()),
            ids_bytes: self.ids.as_ref().map_or(0, |ids| ids.ram_bytes()),
        }
    }

    /// Makes the new layout current.
    pub fn install(self, shared: &StoreShared) {
        let frozen_ram = self.frozen_ram();
        let mut data = self.core.lock();
        if !data.deleted && (self.sealed.is_some() || !self.dead.is_empty()) {
            let kept = data
                .extents
                .iter()
                .filter(|e| !self.dead.contains(&e.file.id))
                .cloned();
            let extents = kept.chain(self.sealed).collect();
            data.set_extents(extents);
        }
        data.frozen = None;
        data.ids.drop_frozen();
        data.layout_epoch += 1;
        data.priors.clear();
        let newer = data.last_lsn > self.applied;
        data.dirty_since = newer.then(|| Lsn(self.applied.0 + 1));
        self.core.drop_tail_of_deleted(&mut data);
        drop(data);
        shared.tail_ram_changed(frozen_ram, TailRam::default());
        self.consumers.iter().for_each(ConsumerShare::install);
    }
}
