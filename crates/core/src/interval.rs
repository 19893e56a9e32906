//! An index of ranges that may overlap: which of them overlap this one, which contain it.
//!
//! A treap over a slab: nodes sit in one vector and name each other by index; each knows the largest end below it. It
//! lives behind a device lock, so nothing here allocates or frees but [`IntervalIndex::reserve_from`], which takes a
//! vector that was allocated outside the lock and gives the old one back to be freed outside it. Removed values stay in
//! the slab until [`IntervalIndex::take_retired`] hands them out, because dropping one may free.
//!
//! # Checked by
//! `interval_oracle` (proptest, against a list that is searched from end to end).

use crate::addr::PageRange;

const NONE: u32 = u32::MAX;

/// A line of its own, so that a search loads one line for each level.
#[derive(Debug)]
#[repr(align(64))]
struct Node<V> {
    range: PageRange,
    /// The largest end in the subtree of this node.
    reach: u64,
    /// The largest end in the subtree of its left child, so that a search need not look there to go right.
    left_reach: u64,
    priority: u32,
    left: u32,
    /// The right child; in a retired or free node the next of its list.
    right: u32,
    value: Option<V>,
}

/// The order of the tree: by start, then by place, so that equal ranges coexist.
type Key = (u64, u32);

/// Names an entry while it is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryId(u32);

/// Nodes allocated ahead, to be handed over under the lock. See [`IntervalIndex::reserve_from`].
#[derive(Debug)]
pub struct Spare<V>(Vec<Node<V>>);

impl<V> Spare<V> {
    /// Room for `capacity` entries.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }
}

/// The index. See the module's text.
#[derive(Debug)]
pub struct IntervalIndex<V> {
    nodes: Vec<Node<V>>,
    root: u32,
    free: u32,
    retired: u32,
    len: usize,
    random: u32,
}

impl<V> Default for IntervalIndex<V> {
    fn default() -> Self {
        // Any odd seed does: priorities only have to be spread.
        Self { nodes: Vec::new(), root: NONE, free: NONE, retired: NONE, len: 0, random: 0x9e37_79b9 }
    }
}

impl<V> IntervalIndex<V> {
    /// How many entries are in the index, retired ones not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether an insertion finds room without allocating.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.free != NONE || self.nodes.len() < self.nodes.capacity()
    }

    /// The number of entries that a larger slab should have room for.
    #[must_use]
    pub fn larger(&self) -> usize {
        (self.nodes.capacity() * 2).max(16)
    }

    /// Moves into `spare` if it is larger. What is returned is to be dropped after the lock was released.
    #[must_use = "drop it outside the lock"]
    pub fn reserve_from(&mut self, mut spare: Spare<V>) -> Spare<V> {
        if spare.0.capacity() > self.nodes.capacity() {
            spare.0.append(&mut self.nodes);
            std::mem::swap(&mut self.nodes, &mut spare.0);
        }
        spare
    }

    /// Inserts `value` for `range`.
    ///
    /// # Panics
    /// When there is no room: the caller has reserved it, or has a bug.
    pub fn insert(&mut self, range: PageRange, value: V) -> EntryId {
        assert!(self.has_room(), "an interval was inserted without room reserved for it");
        let node = Node {
            range,
            reach: range.end().get(),
            left_reach: 0,
            priority: self.next_priority(),
            left: NONE,
            right: NONE,
            value: Some(value),
        };
        let at = if self.free == NONE {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.node(at).right;
            *self.node_mut(at) = node;
            at
        };
        let (below, above) = self.split(self.root, (range.start().get(), at));
        let with = self.merge(below, at);
        self.root = self.merge(with, above);
        self.len += 1;
        EntryId(at)
    }

    /// Some entry that contains all of `range` and for which `fits` holds.
    pub fn find_containing(&self, range: PageRange, fits: impl Fn(&V) -> bool) -> Option<(EntryId, &V)> {
        let mut found = None;
        self.visit(self.root, range, &mut |at, node| {
            let value = node.value.as_ref()?;
            (node.range.contains(range) && fits(value)).then(|| found = Some((EntryId(at), value)))
        });
        found
    }

    /// Calls `each` for every entry that overlaps `range`.
    pub fn for_each_overlapping(&self, range: PageRange, mut each: impl FnMut(EntryId, PageRange, &V)) {
        self.visit(self.root, range, &mut |at, node| {
            if let Some(value) = &node.value {
                each(EntryId(at), node.range, value);
            }
            None
        });
    }

    /// Takes every entry that overlaps `range` out of the index and retires it, after `each` has seen it. Touches little but
    /// those: what begins in the range is one piece of the tree, which is cut out whole.
    pub fn retire_overlapping(&mut self, range: PageRange, mut each: impl FnMut(&V)) -> usize {
        let before = self.len;
        while let Some((id, value)) = self.first_overlapping(range) {
            if self.node(id.0).range.start() >= range.start() {
                // Everything else that overlaps begins in the range too, because this one begins first.
                let (below, rest) = self.split(self.root, (range.start().get(), 0));
                let (within, above) = self.split(rest, (range.end().get(), 0));
                self.root = self.merge(below, above);
                self.retire_all(within, &mut each);
                break;
            }
            each(value);
            self.retire(id);
        }
        before - self.len
    }

    /// Retires every node of a subtree that was cut out.
    fn retire_all(&mut self, at: u32, each: &mut impl FnMut(&V)) {
        if at == NONE {
            return;
        }
        let (left, right) = (self.node(at).left, self.node(at).right);
        self.retire_all(left, each);
        if let Some(value) = &self.node(at).value {
            each(value);
        }
        self.hand_to_retired(at);
        self.retire_all(right, each);
    }

    fn hand_to_retired(&mut self, at: u32) {
        self.len -= 1;
        let next = self.retired;
        self.node_mut(at).right = next;
        self.retired = at;
    }

    /// Takes an entry out of the index and retires it.
    pub fn retire(&mut self, id: EntryId) {
        self.root = self.unlink(self.root, self.key(id.0));
        self.hand_to_retired(id.0);
    }

    /// Hands out one retired value, whose place is free from then on.
    pub fn take_retired(&mut self) -> Option<V> {
        let at = self.retired;
        if at == NONE {
            return None;
        }
        let next = self.node(at).right;
        let free = self.free;
        let node = self.node_mut(at);
        node.right = free;
        let value = node.value.take();
        self.retired = next;
        self.free = at;
        value
    }

    /// Whether retired values wait to be taken.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        self.retired != NONE
    }

    /// The entry at or behind `cursor` in the slab's own order, and the next cursor: a way round all entries, a step at a
    /// time. `None` when a whole round found none.
    pub fn step(&self, cursor: usize) -> Option<(EntryId, &V, usize)> {
        let count = self.nodes.len();
        (0..count).map(|offset| (cursor + offset) % count).find_map(|at| {
            let id = EntryId(at as u32);
            let value = self.node(at as u32).value.as_ref().filter(|_| self.is_linked(id))?;
            Some((id, value, at + 1))
        })
    }

    fn is_linked(&self, id: EntryId) -> bool {
        let key = self.key(id.0);
        let mut at = self.root;
        while at != NONE && at != id.0 {
            at = if key < self.key(at) { self.node(at).left } else { self.node(at).right };
        }
        at != NONE
    }

    fn key(&self, at: u32) -> Key {
        (self.node(at).range.start().get(), at)
    }

    fn node(&self, at: u32) -> &Node<V> {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<V> {
        &mut self.nodes[at as usize]
    }

    fn next_priority(&mut self) -> u32 {
        // xorshift32 (Marsaglia 2003): spread is all that a treap asks of its priorities.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }

    fn refresh(&mut self, at: u32) {
        let reach = |child: u32| if child == NONE { 0 } else { self.node(child).reach };
        let node = self.node(at);
        let left_reach = reach(node.left);
        let widest = node.range.end().get().max(left_reach).max(reach(node.right));
        let node = self.node_mut(at);
        (node.reach, node.left_reach) = (widest, left_reach);
    }

    /// Visits what overlaps `range` below `at`, until `stop` says so.
    fn visit<'a>(
        &'a self,
        at: u32,
        range: PageRange,
        stop: &mut impl FnMut(u32, &'a Node<V>) -> Option<()>,
    ) -> Option<()> {
        if at == NONE || self.node(at).reach <= range.start().get() {
            return None;
        }
        let node = self.node(at);
        if let Some(done) = self.visit(node.left, range, stop) {
            return Some(done);
        }
        if node.range.start() >= range.end() {
            return None;
        }
        if node.range.overlaps(range)
            && let Some(done) = stop(at, node)
        {
            return Some(done);
        }
        self.visit(node.right, range, stop)
    }

    /// The overlapping entry that begins first, by one path down the tree: when something on the left reaches beyond the start
    /// of `range`, then either it overlaps, or it begins behind the end of `range`, and so does everything on the right.
    fn first_overlapping(&self, range: PageRange) -> Option<(EntryId, &V)> {
        let mut at = self.root;
        while at != NONE {
            let node = self.node(at);
            at = if node.left_reach > range.start().get() {
                node.left
            } else if node.range.overlaps(range) {
                return node.value.as_ref().map(|value| (EntryId(at), value));
            } else if node.range.start() < range.end() {
                node.right
            } else {
                NONE
            };
        }
        None
    }

    /// Splits into what lies before `key` and the rest.
    fn split(&mut self, at: u32, key: Key) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.key(at) < key {
            let (below, above) = self.split(self.node(at).right, key);
            self.node_mut(at).right = below;
            self.refresh(at);
            (at, above)
        } else {
            let (below, above) = self.split(self.node(at).left, key);
            self.node_mut(at).left = above;
            self.refresh(at);
            (below, at)
        }
    }

    /// Joins two trees; everything in `below` lies before everything in `above`.
    fn merge(&mut self, below: u32, above: u32) -> u32 {
        if below == NONE || above == NONE {
            return if below == NONE { above } else { below };
        }
        if self.node(below).priority >= self.node(above).priority {
            let joined = self.merge(self.node(below).right, above);
            self.node_mut(below).right = joined;
            self.refresh(below);
            below
        } else {
            let joined = self.merge(below, self.node(above).left);
            self.node_mut(above).left = joined;
            self.refresh(above);
            above
        }
    }

    fn unlink(&mut self, at: u32, key: Key) -> u32 {
        if at == key.1 {
            return self.merge(self.node(at).left, self.node(at).right);
        }
        if key < self.key(at) {
            let left = self.unlink(self.node(at).left, key);
            self.node_mut(at).left = left;
        } else {
            let right = self.unlink(self.node(at).right, key);
            self.node_mut(at).right = right;
        }
        self.refresh(at);
        at
    }
}
