//! Directories of the simulated disk: entries as programs see them, entries on the device, and the
//! changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path};

use super::file::FileNode;

/// Number of a file or directory.
pub(super) type Inode = u64;

pub(super) const ROOT: Inode = 0;

#[derive(Clone)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Default)]
pub(super) struct DirNode {
    pub(super) live: BTreeMap<String, Inode>,
    pub(super) durable: BTreeMap<String, Inode>,
}

/// A creation, rename or removal that no `sync_dir` has made durable yet.
#[derive(Clone)]
pub(super) struct NameChange {
    /// What each entry points to afterwards. All of them survive, or none.
    pub(super) entries: Vec<(Inode, String, Option<Inode>)>,
    /// A moved directory. Moves change which paths exist, so such a change survives only after all
    /// before it, and none after it survives without it.
    pub(super) moves_dir: bool,
}

/// All files and directories.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) nodes: BTreeMap<Inode, Node>,
    /// Oldest first.
    pending: Vec<NameChange>,
    inode_next: Inode,
}

impl Names {
    pub(super) fn new() -> Self {
        let root = Node::Dir(DirNode::default());
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            pending: Vec::new(),
            inode_next: ROOT + 1,
        }
    }

    pub(super) fn file(&self, inode: Inode) -> io::Result<&FileNode> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn dir(&self, inode: Inode) -> io::Result<&DirNode> {
        match self.nodes.get(&inode) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &FileNode> {
        self.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        })
    }

    /// Follows the components of a path through live entries.
    pub(super) fn resolve(&self, parts: &[String]) -> io::Result<Inode> {
        let mut inode = ROOT;
        for part in parts {
            inode = *self.dir(inode)?.live.get(part).ok_or(ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    /// How many leading components of a path exist as directories. A file among them is an error.
    pub(super) fn existing_dirs(&self, parts: &[String]) -> io::Result<usize> {
        let mut dir = self.dir(ROOT)?;
        for (depth, part) in parts.iter().enumerate() {
            match dir.live.get(part) {
                Some(inode) => dir = self.dir(*inode)?,
                None => return Ok(depth),
            }
        }
        Ok(parts.len())
    }

    /// Directory and name that a path denotes; whether the entry exists is not looked at.
    pub(super) fn resolve_entry(&self, parts: &[String]) -> io::Result<(Inode, String)> {
        let (name, parents) = parts.split_last().ok_or(ErrorKind::InvalidInput)?;
        let parent = self.resolve(parents)?;
        self.dir(parent)?;
        Ok((parent, name.clone()))
    }

    pub(super) fn entry(&self, parent: Inode, name: &str) -> io::Result<Option<Inode>> {
        Ok(self.dir(parent)?.live.get(name).copied())
    }

    /// Adds a node under a free name.
    pub(super) fn create(&mut self, parent: Inode, name: String, node: Node) -> Inode {
        let inode = self.inode_next;
        self.inode_next += 1;
        self.nodes.insert(inode, node);
        self.change(vec![(parent, name, Some(inode))], false);
        inode
    }

    /// Applies a change to the live entries and keeps it pending.
    pub(super) fn change(&mut self, entries: Vec<(Inode, String, Option<Inode>)>, moves_dir: bool) {
        for (parent, name, target) in &entries {
            let before = match self.nodes.get_mut(parent) {
                Some(Node::Dir(dir)) => match target {
                    Some(inode) => dir.live.insert(name.clone(), *inode),
                    None => dir.live.remove(name),
                },
                _ => None,
            };
            if let Some(Ok(file)) = before.map(|inode| self.file_mut(inode)) {
                file.links -= 1;
            }
            if let Some(Ok(file)) = target.map(|inode| self.file_mut(inode)) {
                file.links += 1;
            }
        }
        self.pending.push(NameChange { entries, moves_dir });
    }

    /// True if `inode` is `dir` or lies below it.
    pub(super) fn is_within(&self, inode: Inode, dir: Inode) -> bool {
        let mut open = vec![dir];
        while let Some(at) = open.pop() {
            if at == inode {
                return true;
            }
            if let Ok(dir) = self.dir(at) {
                open.extend(dir.live.values());
            }
        }
        false
    }

    /// Makes every change in `dir` durable. A rename between two directories takes all earlier
    /// changes of the other one with it, and the move of a directory all earlier changes, because a
    /// journal would.
    pub(super) fn sync_dir(&mut self, dir: Inode) {
        let (covered, rest) = self.split_covered(dir);
        for change in covered {
            self.apply_durable(&change);
        }
        self.pending = rest;
        self.forget_unreachable();
    }

    /// A failed sync: some changes reached the device, the others never will.
    pub(super) fn fail_sync_dir(&mut self, dir: Inode, keeps: impl FnMut() -> bool) {
        let (covered, rest) = self.split_covered(dir);
        for change in surviving(&covered, keeps) {
            self.apply_durable(change);
        }
        self.pending = rest;
    }

    fn split_covered(&self, dir: Inode) -> (Vec<NameChange>, Vec<NameChange>) {
        let mut dirs = BTreeSet::from([dir]);
        // A directory that replaces an empty one must not become durable before the files of the
        // replaced one have durably moved out.
        let mut dir_moved = false;
        let mut covered = Vec::new();
        let mut rest = Vec::new();
        for change in self.pending.iter().rev() {
            let touches = |(parent, ..): &(Inode, _, _)| dirs.contains(parent);
            if dir_moved || change.entries.iter().any(touches) {
                dir_moved |= change.moves_dir;
                dirs.extend(change.entries.iter().map(|(parent, ..)| *parent));
                covered.push(change.clone());
            } else {
                rest.push(change.clone());
            }
        }
        covered.reverse();
        rest.reverse();
        (covered, rest)
    }

    fn apply_durable(&mut self, change: &NameChange) {
        for (parent, name, target) in &change.entries {
            if let Some(Node::Dir(dir)) = self.nodes.get_mut(parent) {
                set_entry(&mut dir.durable, name, *target);
            }
        }
    }

    /// Frees files that neither programs nor a power cut can bring back.
    fn forget_unreachable(&mut self) {
        if !self.files().any(FileNode::is_gone) {
            return;
        }
        let mut named: BTreeSet<Inode> = BTreeSet::new();
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                named.extend(dir.durable.values());
            }
        }
        for change in &self.pending {
            named.extend(change.entries.iter().filter_map(|(.., target)| *target));
        }
        self.nodes.retain(|inode, node| match node {
            Node::File(file) => !file.is_gone() || named.contains(inode),
            Node::Dir(_) => true,
        });
    }

    /// Names after a power cut: synced entries, and those pending changes that survive. Files keep
    /// their nodes; each that is reachable goes through `file_after_crash`.
    pub(super) fn after_crash(
        &self,
        keeps: impl FnMut() -> bool,
        mut file_after_crash: impl FnMut(&FileNode) -> FileNode,
    ) -> Names {
        let mut dirs: BTreeMap<Inode, BTreeMap<String, Inode>> = BTreeMap::new();
        for (inode, node) in &self.nodes {
            if let Node::Dir(dir) = node {
                dirs.insert(*inode, dir.durable.clone());
            }
        }
        for change in surviving(&self.pending, keeps) {
            for (parent, name, target) in &change.entries {
                if let Some(entries) = dirs.get_mut(parent) {
                    set_entry(entries, name, *target);
                }
            }
        }
        let mut names = Names {
            nodes: BTreeMap::new(),
            pending: Vec::new(),
            inode_next: self.inode_next,
        };
        let mut open = vec![ROOT];
        while let Some(inode) = open.pop() {
            let node = match self.nodes.get(&inode) {
                Some(Node::File(file)) => Node::File(file_after_crash(file)),
                Some(Node::Dir(_)) => {
                    let entries = dirs.remove(&inode).unwrap_or_default();
                    open.extend(entries.values());
                    Node::Dir(DirNode {
                        live: entries.clone(),
                        durable: entries,
                    })
                }
                None => continue,
            };
            names.nodes.insert(inode, node);
        }
        names.count_links();
        names
    }

    fn count_links(&mut self) {
        let mut links: BTreeMap<Inode, u32> = BTreeMap::new();
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                for inode in dir.live.values() {
                    *links.entry(*inode).or_default() += 1;
                }
            }
        }
        for (inode, node) in &mut self.nodes {
            if let Node::File(file) = node {
                file.links = links.get(inode).copied().unwrap_or(0);
            }
        }
    }
}

fn set_entry(entries: &mut BTreeMap<String, Inode>, name: &str, target: Option<Inode>) {
    match target {
        Some(inode) => entries.insert(name.to_owned(), inode),
        None => entries.remove(name),
    };
}

/// The changes that survive: a change does only if all earlier ones of the same names do.
fn surviving(
    changes: &[NameChange],
    mut keeps: impl FnMut() -> bool,
) -> impl Iterator<Item = &NameChange> {
    let mut lost: BTreeSet<(Inode, &str)> = BTreeSet::new();
    let mut move_lost = false;
    changes.iter().filter(move |change| {
        let after_lost = change
            .entries
            .iter()
            .any(|(parent, name, _)| lost.contains(&(*parent, name.as_str())));
        let blocked = move_lost || after_lost || (change.moves_dir && !lost.is_empty());
        let kept = keeps() && !blocked;
        if !kept {
            let names = change
                .entries
                .iter()
                .map(|(parent, name, _)| (*parent, name.as_str()));
            lost.extend(names);
            move_lost |= change.moves_dir;
        }
        kept
    })
}

/// Components of a path. The root and the current directory are the same place; `..` is refused.
pub(super) fn parts(path: &Path) -> io::Result<Vec<String>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                parts.push(name.to_str().ok_or(ErrorKind::InvalidInput)?.to_owned());
            }
            Component::ParentDir | Component::Prefix(_) => {
                return Err(ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(parts)
}
