//! Everything behind the lock of a simulated disk.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::crash::{Chooser, Persist};
use super::fault::{Fault, Rule};
use super::file::{FileNode, Landing};
use super::image::{PAGE, SECTOR};
use super::names::{DirNode, Inode, Names, Node, ROOT};
use super::ops::{Op, OpKind, OpLog};
use super::rng::SimRng;
use crate::io::{DirEntry, OpenMode};

/// Largest offset or length of a file, as on real systems.
pub(super) const FILE_LEN_MAX: u64 = i64::MAX as u64;

/// An operation that is about to run.
pub(super) struct Call<'a> {
    pub(super) kind: OpKind,
    pub(super) path: &'a Arc<str>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// An operation that runs.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    pub(super) op: u64,
    pub(super) fault: Option<Fault>,
}

pub(super) struct State {
    pub(super) names: Names,
    pub(super) rng: SimRng,
    pub(super) rules: Vec<Rule>,
    pub(super) locks: BTreeSet<Inode>,
    pub(super) log: OpLog,
    /// Operations so far.
    pub(super) ops: u64,
    /// Of these, the ones that change the disk.
    pub(super) changes: u64,
    /// Faults that happened.
    pub(super) faults: u64,
    /// The power goes when `changes` would exceed this.
    pub(super) changes_max: Option<u64>,
    pub(super) is_powered: bool,
    /// Guards that keep syncs from finishing.
    pub(super) sync_holds: usize,
    /// Syncs that wait for them.
    pub(super) syncs_held: usize,
    pub(super) pages_max: u64,
    pages_used: u64,
}

impl State {
    pub(super) fn new(seed: u64, names: Names) -> Self {
        let reachable = names.files().filter(|file| !file.is_gone());
        let pages_used = reachable.map(FileNode::pages_used).sum();
        Self {
            names,
            rng: SimRng::new(seed),
            rules: Vec::new(),
            locks: BTreeSet::new(),
            log: OpLog::default(),
            ops: 0,
            changes: 0,
            faults: 0,
            changes_max: None,
            is_powered: true,
            sync_holds: 0,
            syncs_held: 0,
            pages_max: u64::MAX / PAGE,
            pages_used,
        }
    }

    /// Runs `body` as a numbered, logged operation, unless the power is off.
    pub(super) fn run<T>(
        &mut self,
        call: &Call<'_>,
        body: impl FnOnce(&mut Self, Ticket) -> io::Result<T>,
    ) -> io::Result<T> {
        if call.kind.changes_disk() && self.changes_max.is_some_and(|max| self.changes >= max) {
            self.is_powered = false;
        }
        if !self.is_powered {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "simulated power cut"));
        }
        self.ops += 1;
        self.changes += u64::from(call.kind.changes_disk());
        let ticket = Ticket {
            op: self.ops,
            fault: self.draw_fault(call),
        };
        self.faults += u64::from(ticket.fault.is_some());
        let result = body(self, ticket);
        let error = result.as_ref().err().map(io::Error::kind);
        let op = Op {
            number: ticket.op,
            kind: call.kind,
            path: call.path.clone(),
            offset: call.offset,
            len: call.len,
            fault: ticket.fault,
            error,
        };
        let result = result.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("simulated disk: {error} (operation {op})"),
            )
        });
        self.log.push(op);
        result
    }

    /// The first rule that fires wins; every rule counts the operation.
    fn draw_fault(&mut self, call: &Call<'_>) -> Option<Fault> {
        let mut fault = None;
        for rule in &mut self.rules {
            if rule.fires(self.ops, call.kind, call.path, &mut self.rng) {
                fault = fault.or(Some(rule.fault));
            }
        }
        fault
    }

    pub(super) fn bytes_free(&self) -> u64 {
        self.pages_max
            .saturating_sub(self.pages_used)
            .saturating_mul(PAGE)
    }

    /// Changes a file and keeps the account of used space.
    fn with_file<T>(
        &mut self,
        inode: Inode,
        body: impl FnOnce(&mut FileNode, u64, &mut SimRng) -> io::Result<T>,
    ) -> io::Result<T> {
        let pages_free = self.pages_max.saturating_sub(self.pages_used);
        let file = self.names.file_mut(inode)?;
        let before = file.pages_used();
        let result = body(file, pages_free, &mut self.rng);
        self.pages_used = self.pages_used - before + file.pages_used();
        result
    }

    pub(super) fn create_dir(&mut self, parts: &[String], ticket: Ticket) -> io::Result<()> {
        let (parent, name) = self.names.resolve_entry(parts)?;
        fail_creation(ticket)?;
        if self.names.entry(parent, &name)?.is_none() {
            self.names
                .create(parent, name, Node::Dir(DirNode::default()));
        }
        Ok(())
    }

    pub(super) fn open(
        &mut self,
        parts: &[String],
        mode: OpenMode,
        ticket: Ticket,
    ) -> io::Result<Inode> {
        fail_creation(ticket)?;
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => self.names.resolve(parts)?,
            OpenMode::CreateNew => {
                let (parent, name) = self.names.resolve_entry(parts)?;
                if self.names.entry(parent, &name)?.is_some() {
                    return Err(ErrorKind::AlreadyExists.into());
                }
                self.names
                    .create(parent, name, Node::File(FileNode::default()))
            }
        };
        self.names.file_mut(inode)?.handles += 1;
        Ok(inode)
    }

    pub(super) fn close(&mut self, inode: Inode) {
        if let Ok(file) = self.names.file_mut(inode) {
            file.handles = file.handles.saturating_sub(1);
        }
        self.reclaim(inode);
    }

    /// Gives the space of a file back once nobody can reach it.
    fn reclaim(&mut self, inode: Inode) {
        if let Ok(file) = self.names.file_mut(inode)
            && file.is_gone()
        {
            self.pages_used = self.pages_used.saturating_sub(file.pages_used());
        }
    }

    pub(super) fn rename(
        &mut self,
        from: &[String],
        to: &[String],
        ticket: Ticket,
    ) -> io::Result<()> {
        fail_creation(ticket)?;
        let (from_dir, from_name) = self.names.resolve_entry(from)?;
        let (to_dir, to_name) = self.names.resolve_entry(to)?;
        let moved = self
            .names
            .entry(from_dir, &from_name)?
            .ok_or(ErrorKind::NotFound)?;
        let replaced = self.names.entry(to_dir, &to_name)?;
        let moves_dir = self.names.dir(moved).is_ok();
        if moves_dir && self.names.is_within(to_dir, moved) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if replaced == Some(moved) {
            return Ok(());
        }
        if let Some(target) = replaced {
            match (moves_dir, self.names.dir(target)) {
                _ if self.names.is_within(from_dir, target) => {
                    return Err(ErrorKind::DirectoryNotEmpty.into());
                }
                (false, Ok(_)) => return Err(ErrorKind::IsADirectory.into()),
                (true, Err(_)) => return Err(ErrorKind::NotADirectory.into()),
                (true, Ok(dir)) if !dir.live.is_empty() => {
                    return Err(ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        let entries = vec![(from_dir, from_name, None), (to_dir, to_name, Some(moved))];
        self.names.change(entries, moves_dir);
        if let Some(replaced) = replaced {
            self.reclaim(replaced);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, parts: &[String], ticket: Ticket) -> io::Result<()> {
        fail_creation(ticket)?;
        let (parent, name) = self.names.resolve_entry(parts)?;
        let inode = self
            .names
            .entry(parent, &name)?
            .ok_or(ErrorKind::NotFound)?;
        self.names.file(inode)?;
        self.names.change(vec![(parent, name, None)], false);
        self.reclaim(inode);
        Ok(())
    }

    pub(super) fn list(&self, parts: &[String], ticket: Ticket) -> io::Result<Vec<DirEntry>> {
        fail_creation(ticket)?;
        let dir = self.names.dir(self.names.resolve(parts)?)?;
        let entry = |(name, inode): (&String, &Inode)| match self.names.file(*inode) {
            Ok(file) => DirEntry {
                name: name.clone(),
                is_dir: false,
                len: file.len(),
            },
            Err(_) => DirEntry {
                name: name.clone(),
                is_dir: true,
                len: 0,
            },
        };
        Ok(dir.live.iter().map(entry).collect())
    }

    pub(super) fn sync_dir(&mut self, parts: &[String], ticket: Ticket) -> io::Result<()> {
        let inode = self.names.resolve(parts)?;
        self.names.dir(inode)?;
        match ticket.fault {
            Some(Fault::SyncError) => {
                let chance = [0, 500_000, 900_000][self.rng.below(3) as usize];
                self.names.fail_sync_dir(inode, || self.rng.chance(chance));
                return Err(eio());
            }
            Some(Fault::LyingSync) => {}
            _ => self.names.sync_dir(inode),
        }
        Ok(())
    }

    /// Takes the lock of a file and creates the file if it is missing.
    pub(super) fn lock(&mut self, parts: &[String], ticket: Ticket) -> io::Result<Inode> {
        let inode = match self.names.resolve(parts) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let inode = self.open(parts, OpenMode::CreateNew, ticket)?;
                self.close(inode);
                inode
            }
            found => found?,
        };
        self.names.file(inode)?;
        if !self.locks.insert(inode) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(inode)
    }

    pub(super) fn read(
        &mut self,
        inode: Inode,
        buf: &mut [u8],
        offset: u64,
        ticket: Ticket,
    ) -> io::Result<usize> {
        let file = self.names.file_mut(inode)?;
        let available = file.len().saturating_sub(offset).min(buf.len() as u64);
        match ticket.fault {
            Some(Fault::ReadError) => return Err(eio()),
            Some(Fault::ShortRead) => {
                let n = self.rng.below(available) as usize;
                file.live().read(&mut buf[..n], offset);
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Some(Fault::StaleRead) => return Ok(file.read_stale(buf, offset)),
            Some(Fault::BitFlip) if available > 0 => {
                let bit = self.rng.below(available * 8);
                file.flip(offset + bit / 8, 1 << (bit % 8));
            }
            _ => {}
        }
        Ok(file.live().read(buf, offset))
    }

    pub(super) fn write(
        &mut self,
        inode: Inode,
        data: &[u8],
        offset: u64,
        ticket: Ticket,
    ) -> io::Result<()> {
        if (data.len() as u64) > FILE_LEN_MAX.saturating_sub(offset) {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.with_file(inode, |file, pages_free, rng| {
            let part = |rng: &mut SimRng| rng.below(data.len() as u64) as usize;
            let fits = file.bytes_that_fit(offset, data.len(), pages_free);
            let (landing, fits, error) = match ticket.fault {
                Some(Fault::WriteError) => (Landing::Home, fits.min(part(rng)), Some(eio())),
                Some(Fault::NoSpace) => (Landing::Home, fits.min(part(rng)), Some(full())),
                Some(Fault::LostWrite) => (Landing::Nowhere, fits, None),
                Some(Fault::MisdirectedWrite) => {
                    (Landing::Elsewhere(elsewhere(file, offset, rng)), fits, None)
                }
                _ => (Landing::Home, fits, None),
            };
            file.write(ticket.op, &data[..fits], offset, landing);
            match error {
                Some(error) => Err(error),
                None if fits < data.len() => Err(full()),
                None => Ok(()),
            }
        })
    }

    pub(super) fn sync(&mut self, inode: Inode, up_to: u64, ticket: Ticket) -> io::Result<()> {
        let file = self.names.file_mut(inode)?;
        match ticket.fault {
            Some(Fault::SyncError) => {
                file.fail_sync(up_to, &mut self.rng);
                return Err(eio());
            }
            Some(Fault::LyingSync) => {}
            _ => file.sync(up_to),
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, inode: Inode, len: u64, ticket: Ticket) -> io::Result<()> {
        fail_write(ticket)?;
        if len > FILE_LEN_MAX {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.with_file(inode, |file, _, _| {
            file.set_len(ticket.op, len);
            Ok(())
        })
    }

    pub(super) fn allocate(&mut self, inode: Inode, len: u64, ticket: Ticket) -> io::Result<()> {
        fail_write(ticket)?;
        if len > FILE_LEN_MAX {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.with_file(inode, |file, pages_free, _| {
            if file.pages_to_allocate(len) > pages_free {
                return Err(full());
            }
            file.allocate(ticket.op, len);
            Ok(())
        })
    }

    pub(super) fn drop_cache(&mut self, inode: Inode) -> io::Result<()> {
        self.with_file(inode, |file, _, _| {
            file.drop_cache();
            Ok(())
        })
    }

    /// Changes a file on the device behind the back of everybody; for tests.
    pub(super) fn tamper(
        &mut self,
        parts: &[String],
        body: impl FnOnce(&mut FileNode),
    ) -> io::Result<()> {
        let inode = self.names.resolve(parts)?;
        self.with_file(inode, |file, _, _| {
            body(file);
            Ok(())
        })
    }

    /// Paths of all files and their lengths, sorted.
    pub(super) fn files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = open.pop() {
            match self.names.nodes.get(&inode) {
                Some(Node::Dir(dir)) => open.extend(
                    dir.live
                        .iter()
                        .map(|(name, inode)| (format!("{path}/{name}"), *inode)),
                ),
                Some(Node::File(file)) => files.push((path, file.len())),
                None => {}
            }
        }
        files.sort();
        files
    }

    /// The disk after a power cut.
    pub(super) fn after_crash(&self, persist: Persist) -> Self {
        let writes = self.names.files().flat_map(FileNode::pending);
        let last_write = writes
            .filter(|change| change.is_write())
            .map(|change| change.op)
            .max();
        let mut names_chooser = Chooser::new(persist, last_write);
        let mut chooser = Chooser::new(persist, last_write);
        let names = self.names.after_crash(
            || names_chooser.keeps_name(),
            |file| file.after_crash(&mut chooser),
        );
        self.successor(names)
    }

    /// The disk after the process died, or as it is.
    pub(super) fn after_kill(&self) -> Self {
        let mut names = self.names.clone();
        for node in names.nodes.values_mut() {
            if let Node::File(file) = node {
                *file = file.after_kill();
            }
        }
        self.successor(names)
    }

    fn successor(&self, names: Names) -> Self {
        // The seed moves on, so that probabilistic faults do not repeat from life to life.
        let seed = self.rng.clone().next_u64();
        Self {
            pages_max: self.pages_max,
            ops: self.ops,
            ..Self::new(seed, names)
        }
    }
}

/// Another place in the file, where there is one.
fn elsewhere(file: &FileNode, offset: u64, rng: &mut SimRng) -> u64 {
    let home = offset / SECTOR;
    let other = rng.below((file.len() / SECTOR).max(1));
    (if other == home { home + 1 } else { other }) * SECTOR
}

fn fail_creation(ticket: Ticket) -> io::Result<()> {
    match ticket.fault {
        Some(Fault::NameError) => Err(eio()),
        Some(Fault::NoSpace) => Err(full()),
        _ => Ok(()),
    }
}

fn fail_write(ticket: Ticket) -> io::Result<()> {
    match ticket.fault {
        Some(Fault::WriteError) => Err(eio()),
        Some(Fault::NoSpace) => Err(full()),
        _ => Ok(()),
    }
}

fn eio() -> io::Error {
    io::Error::other("input/output error")
}

fn full() -> io::Error {
    ErrorKind::StorageFull.into()
}
