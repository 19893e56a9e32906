//! The radix tree over units: it only grows, and is walked without a lock.
//!
//! # Guarantee
//! A node stays where it is until the whole tree is dropped, so a reference into it needs no reclamation. That costs one
//! unit (4 KiB) for each 2 MiB of addresses that was ever mirrored, two thousandths of the memory itself at most; schemes
//! that free nodes under readers (epochs, hazard pointers) would bring unsafe code or a pin into each walk of the device.
//!
//! # Fields
//! `below` is set once, by anybody, before the range lock is taken: what is allocated there and not needed is freed by
//! who allocated it. `mapped` counts the units below that map anything; a unit's count moves under its range lock.
//!
//! # Orderings
//! `mapped` is Relaxed. Who looks for the units of a range holds its lock, and whoever raised the count for one of them
//! held that lock before: so the look finds a number in which that unit is counted, beside others that come and go.
//! Zero then means: none of mine.
//!
//! # Not covered
//! `OnceLock` is the standard one in every build, so a model checker does not see nodes being made beside each other.

use std::ops::Range;

use pagemirror_sync::OnceLock;
use pagemirror_sync::atomic::{AtomicU64, Ordering};

use super::unit::{UNIT_BITS, Unit};
use crate::addr::MIN_PAGE;

/// Slots of a directory, as a power of two.
const FAN_BITS: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 9 };
const FAN: usize = 1 << FAN_BITS;
/// Directories on the way to a unit. With units of 2 MiB they cover 57 bits of address, all that Linux gives to a process.
const LEVELS: u32 = if cfg!(any(loom, shuttle)) { 2 } else { 4 };
/// Bytes of a unit, as a power of two.
const UNIT_SHIFT: u32 = MIN_PAGE.trailing_zeros() + UNIT_BITS;
/// Bytes of a unit.
pub(super) const UNIT_BYTES: u64 = 1 << UNIT_SHIFT;
/// The first address that the tree does not cover.
pub(super) const LIMIT: u64 = 1 << (UNIT_SHIFT + LEVELS * FAN_BITS);

#[derive(Debug)]
struct Slot {
    mapped: AtomicU64,
    below: OnceLock<Below>,
}

#[derive(Debug)]
enum Below {
    Directory(Directory),
    Unit(Box<Unit>),
}

#[derive(Debug)]
struct Directory {
    slots: Box<[Slot]>,
}

impl Directory {
    fn new() -> Self {
        let slot = |_| Slot { mapped: AtomicU64::new(0), below: OnceLock::new() };
        Self { slots: (0..FAN).map(slot).collect() }
    }

    /// The slot on the way to unit `number`, `height` directories above it.
    fn slot(&self, number: u64, height: u32) -> &Slot {
        &self.slots[(number >> (height * FAN_BITS)) as usize % FAN]
    }
}

/// The tree. Units are named by their number: the address divided by [`UNIT_BYTES`].
#[derive(Debug)]
pub(super) struct Tree {
    root: Directory,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { root: Directory::new() }
    }

    /// The unit, if there ever was one.
    pub(super) fn unit(&self, number: u64) -> Option<&Unit> {
        let mut directory = &self.root;
        for height in (0..LEVELS).rev() {
            match directory.slot(number, height).below.get()? {
                Below::Directory(below) => directory = below,
                Below::Unit(unit) => return Some(unit),
            }
        }
        None
    }

    /// Makes the unit and the way to it. Allocates, so never under a lock that the pump takes.
    pub(super) fn make(&self, number: u64) {
        let mut directory = &self.root;
        for height in (0..LEVELS).rev() {
            let slot = directory.slot(number, height);
            if slot.below.get().is_none() {
                let made =
                    if height == 0 { Below::Unit(Box::new(Unit::new())) } else { Below::Directory(Directory::new()) };
                // Allocated before it is set, so nobody waits for an allocation of ours. Who was slower frees his.
                let _ = slot.below.set(made);
            }
            match slot.below.get() {
                Some(Below::Directory(below)) => directory = below,
                Some(Below::Unit(_)) | None => return,
            }
        }
    }

    /// Counts the unit as one that maps something, or no longer. Under its range lock.
    pub(super) fn count(&self, number: u64, maps: bool) {
        let mut directory = &self.root;
        for height in (0..LEVELS).rev() {
            let slot = directory.slot(number, height);
            // ORDERING: Relaxed, see # Orderings.
            if maps {
                slot.mapped.fetch_add(1, Ordering::Relaxed)
            } else {
                slot.mapped.fetch_sub(1, Ordering::Relaxed)
            };
            match slot.below.get() {
                Some(Below::Directory(below)) => directory = below,
                Some(Below::Unit(_)) | None => return,
            }
        }
    }

    /// Whether nothing at all is mapped, as far as somebody without a lock can say.
    pub(super) fn looks_empty(&self) -> bool {
        // ORDERING: Relaxed; a hint.
        self.root.slots.iter().all(|slot| slot.mapped.load(Ordering::Relaxed) == 0)
    }

    /// Calls `visit` with each unit of `numbers` that maps anything. Under the range lock of all of them. The steps are as
    /// many as there are mapped units, times the slots on the way to each; what is not mapped is passed by whole subtrees.
    pub(super) fn for_each_mapped(&self, numbers: Range<u64>, visit: &mut dyn FnMut(u64, &Unit)) {
        walk(&self.root, LEVELS - 1, 0, &numbers, visit);
    }
}

fn walk(directory: &Directory, height: u32, base: u64, numbers: &Range<u64>, visit: &mut dyn FnMut(u64, &Unit)) {
    let span = 1_u64 << (height * FAN_BITS);
    let first = numbers.start.saturating_sub(base) / span;
    let end = numbers.end.saturating_sub(base).div_ceil(span).min(FAN as u64);
    for index in first..end {
        let slot = &directory.slots[index as usize];
        // ORDERING: Relaxed, see # Orderings.
        if slot.mapped.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let number = base + index * span;
        match slot.below.get() {
            Some(Below::Directory(below)) => walk(below, height - 1, number, numbers, visit),
            Some(Below::Unit(unit)) => visit(number, unit),
            None => {}
        }
    }
}
