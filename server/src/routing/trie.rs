//! Subject trie: from a literal subject to everything subscribed to it.
//!
//! Nodes live in an arena and all walks are loops, so the depth of a subject is bounded only by the
//! length of the line that carried it. A match visits every node at most once: its cost is bounded by
//! the number of tokens when there are no wildcards and by the number of nodes in the worst case.
//!
//! The trie knows nothing about clients or accounts; `T` is whatever a subscriber is.

use std::collections::HashMap;

use bytes::Bytes;

use super::subject::{self, Token};

/// Identity of an entry, unique within the process. Given by the caller.
pub type EntryId = u64;

/// All entries matching one subject.
#[derive(Clone, Debug)]
pub struct Matches<T> {
    /// Every one of these gets the message.
    pub plain: Vec<T>,
    /// One member of each of these groups gets the message (CORE-021).
    pub groups: Vec<Group<T>>,
    /// Position in `groups` by name; only used once there are many of them.
    group_index: HashMap<Bytes, usize>,
}

/// The matching members of one queue group, over all subjects it is subscribed with.
#[derive(Clone, Debug)]
pub struct Group<T> {
    /// Queue name.
    pub queue: Bytes,
    /// Never empty.
    pub members: Vec<T>,
}

/// From this many groups on the groups of a result are found by hash instead of by scanning.
const GROUP_SCAN_MAX: usize = 16;

impl<T> Default for Matches<T> {
    fn default() -> Self {
        Matches {
            plain: Vec::new(),
            groups: Vec::new(),
            group_index: HashMap::new(),
        }
    }
}

impl<T: Clone> Matches<T> {
    /// True when nothing matched.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.groups.clear();
        self.group_index.clear();
    }

    fn add_group(&mut self, queue: &Bytes, members: &Bag<T>) {
        let found = if self.groups.len() < GROUP_SCAN_MAX {
            self.groups.iter().position(|group| group.queue == *queue)
        } else {
            if self.group_index.is_empty() {
                self.group_index = self
                    .groups
                    .iter()
                    .enumerate()
                    .map(|(at, group)| (group.queue.clone(), at))
                    .collect();
            }
            self.group_index.get(queue).copied()
        };
        let at = found.unwrap_or_else(|| {
            self.groups.push(Group {
                queue: queue.clone(),
                members: Vec::new(),
            });
            if !self.group_index.is_empty() {
                self.group_index
                    .insert(queue.clone(), self.groups.len() - 1);
            }
            self.groups.len() - 1
        });
        self.groups[at]
            .members
            .extend(members.items.iter().map(|(_, item)| item.clone()));
    }
}

/// A set of entries that is cheap to iterate and from which removal stays cheap when it is large
/// (many clients on one subject that all disconnect).
#[derive(Debug)]
struct Bag<T> {
    items: Vec<(EntryId, T)>,
    /// Position by id, kept only for large bags.
    #[expect(
        clippy::box_collection,
        reason = "nearly always absent, and there are many bags"
    )]
    index: Option<Box<HashMap<EntryId, usize>>>,
}

/// Bags up to this size are searched by scanning.
const BAG_SCAN_MAX: usize = 32;

impl<T> Default for Bag<T> {
    fn default() -> Self {
        Bag {
            items: Vec::new(),
            index: None,
        }
    }
}

impl<T> Bag<T> {
    fn insert(&mut self, id: EntryId, item: T) {
        self.items.push((id, item));
        if let Some(index) = &mut self.index {
            index.insert(id, self.items.len() - 1);
        } else if self.items.len() > BAG_SCAN_MAX {
            let index = self
                .items
                .iter()
                .enumerate()
                .map(|(at, (id, _))| (*id, at))
                .collect();
            self.index = Some(Box::new(index));
        }
    }

    fn remove(&mut self, id: EntryId) -> Option<T> {
        let at = match &mut self.index {
            Some(index) => index.remove(&id)?,
            None => self.items.iter().position(|(have, _)| *have == id)?,
        };
        let (_, item) = self.items.swap_remove(at);
        if let (Some(index), Some((moved, _))) = (&mut self.index, self.items.get(at)) {
            index.insert(*moved, at);
        }
        if self.items.is_empty() {
            self.index = None;
        }
        Some(item)
    }
}

type NodeId = u32;
const ROOT: NodeId = 0;

#[derive(Debug)]
struct Node<T> {
    literal: HashMap<Box<[u8]>, NodeId>,
    any: Option<NodeId>,
    rest: Option<NodeId>,
    plain: Bag<T>,
    groups: Vec<(Bytes, Bag<T>)>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node {
            literal: HashMap::new(),
            any: None,
            rest: None,
            plain: Bag::default(),
            groups: Vec::new(),
        }
    }
}

impl<T> Node<T> {
    fn has_entries(&self) -> bool {
        !self.plain.items.is_empty() || !self.groups.is_empty()
    }

    fn is_unused(&self) -> bool {
        !self.has_entries() && self.literal.is_empty() && self.any.is_none() && self.rest.is_none()
    }
}

/// The trie. See the module documentation.
#[derive(Debug)]
pub struct Trie<T> {
    nodes: Vec<Node<T>>,
    free: Vec<NodeId>,
    entries: usize,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Trie {
            nodes: vec![Node::default()],
            free: Vec::new(),
            entries: 0,
        }
    }
}

/// The subject of an insertion is not valid (CORE-018).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSubject;

impl<T: Clone> Trie<T> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// True when there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds an entry. `id` must not be in use for the same subject and queue.
    pub fn insert(
        &mut self,
        subject: &[u8],
        queue: Option<&Bytes>,
        id: EntryId,
        item: T,
    ) -> Result<(), InvalidSubject> {
        if !subject::is_valid(subject) {
            return Err(InvalidSubject);
        }
        let mut at = ROOT;
        for part in subject::tokens(subject) {
            at = self.child_or_new(at, part);
        }
        let node = &mut self.nodes[at as usize];
        match queue {
            None => node.plain.insert(id, item),
            Some(queue) => match node.groups.iter_mut().find(|(name, _)| name == queue) {
                Some((_, members)) => members.insert(id, item),
                None => {
                    let mut members = Bag::default();
                    members.insert(id, item);
                    // The name outlives the read buffer it came from.
                    node.groups.push((Bytes::copy_from_slice(queue), members));
                }
            },
        }
        self.entries += 1;
        Ok(())
    }

    /// Removes an entry and every node that only led to it.
    pub fn remove(&mut self, subject: &[u8], queue: Option<&Bytes>, id: EntryId) -> Option<T> {
        let mut path = Vec::new();
        let mut at = ROOT;
        for part in subject::tokens(subject) {
            path.push((at, part));
            at = self.child(at, part)?;
        }
        let node = &mut self.nodes[at as usize];
        let removed = match queue {
            None => node.plain.remove(id)?,
            Some(queue) => {
                let group = node.groups.iter().position(|(name, _)| name == queue)?;
                let removed = node.groups[group].1.remove(id)?;
                if node.groups[group].1.items.is_empty() {
                    node.groups.swap_remove(group);
                }
                removed
            }
        };
        self.entries -= 1;
        while at != ROOT && self.nodes[at as usize].is_unused() {
            let Some((parent, part)) = path.pop() else {
                break;
            };
            self.unlink(parent, part);
            self.nodes[at as usize] = Node::default();
            self.free.push(at);
            at = parent;
        }
        Some(removed)
    }

    /// Appends everything matching the literal `subject` to `out`.
    pub fn collect(&self, subject: &[u8], out: &mut Matches<T>) {
        self.walk(subject, |node| {
            out.plain
                .extend(node.plain.items.iter().map(|(_, item)| item.clone()));
            for (queue, members) in &node.groups {
                out.add_group(queue, members);
            }
            true
        });
    }

    /// True when at least one entry matches the literal `subject`.
    pub fn has_match(&self, subject: &[u8]) -> bool {
        let mut found = false;
        self.walk(subject, |_| {
            found = true;
            false
        });
        found
    }

    /// Calls `visit` for every node with entries that match; stops when it returns false.
    fn walk(&self, subject: &[u8], mut visit: impl FnMut(&Node<T>) -> bool) {
        if has_empty_token(subject) {
            return;
        }
        // Alternatives still to be followed. Stays empty (no allocation) without wildcards.
        let mut branches: Vec<(NodeId, usize)> = Vec::new();
        let mut next = Some((ROOT, 0));
        while let Some((at, start)) = next.take().or_else(|| branches.pop()) {
            let node = &self.nodes[at as usize];
            if start > subject.len() {
                // All tokens consumed.
                if node.has_entries() && !visit(node) {
                    return;
                }
                continue;
            }
            let rest = &subject[start..];
            let end = memchr::memchr(subject::SEPARATOR, rest).unwrap_or(rest.len());
            let part = &rest[..end];
            if let Some(rest_node) = node.rest {
                let rest_node = &self.nodes[rest_node as usize];
                if rest_node.has_entries() && !visit(rest_node) {
                    return;
                }
            }
            let after = start + end + 1;
            next = node.any.map(|child| (child, after));
            // An empty map is common (nodes reached by wildcards) and hashing is the main cost here.
            if !node.literal.is_empty()
                && let Some(child) = node.literal.get(part)
                && let Some(other) = next.replace((*child, after))
            {
                branches.push(other);
            }
        }
    }

    fn child(&self, at: NodeId, part: &[u8]) -> Option<NodeId> {
        let node = &self.nodes[at as usize];
        match subject::token(part) {
            Token::Any => node.any,
            Token::Rest => node.rest,
            Token::Literal(literal) => node.literal.get(literal).copied(),
        }
    }

    fn child_or_new(&mut self, at: NodeId, part: &[u8]) -> NodeId {
        if let Some(child) = self.child(at, part) {
            return child;
        }
        let child = match self.free.pop() {
            Some(id) => id,
            None => {
                self.nodes.push(Node::default());
                (self.nodes.len() - 1) as NodeId
            }
        };
        let node = &mut self.nodes[at as usize];
        match subject::token(part) {
            Token::Any => node.any = Some(child),
            Token::Rest => node.rest = Some(child),
            Token::Literal(literal) => {
                node.literal.insert(literal.into(), child);
            }
        }
        child
    }

    fn unlink(&mut self, parent: NodeId, part: &[u8]) {
        let node = &mut self.nodes[parent as usize];
        match subject::token(part) {
            Token::Any => node.any = None,
            Token::Rest => node.rest = None,
            Token::Literal(literal) => {
                node.literal.remove(literal);
            }
        }
    }
}

/// A subject such as `a..b` or `a.` is matched by nothing, not even by `>`.
fn has_empty_token(subject: &[u8]) -> bool {
    let (Some(first), Some(last)) = (subject.first(), subject.last()) else {
        return true;
    };
    *first == subject::SEPARATOR
        || *last == subject::SEPARATOR
        || subject.windows(2).any(|pair| pair == b"..")
}

#[cfg(test)]
mod tests;
