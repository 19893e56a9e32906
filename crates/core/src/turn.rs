//! One turn of the pump: what happens between "something is readable" and "uses may go on".
//!
//! # Guarantee
//! When the kernel releases a caller of munmap, mremap, brk or mmap(MAP_FIXED), which is when its event is read, no use
//! is in its section, and none enters before everything that the batch names was revoked.
//!
//! # Steps
//! Gate up; drain the sections (past their deadline: declare lost, *then* read); read **one batch**; for each event put
//! a discard's range in doubt, append the exact range, run the callbacks; gate down. Not "until it is quiet": that kept
//! the gate closed for most of the time under load, and it is not needed. A use that starts after a change which is
//! not read yet is stopped by the probe, one that starts after the read by the gate.
//!
//! # Checked by
//! `section_and_gate_against_pump`, `doubt_against_append_and_token` (loom) with the planted bugs
//! `gate-lowered-before-revoke`, `doubt-after-append`, `lost-after-read`; on the real kernel in `linux`.

use pagemirror_sync::planted;

use crate::addr::PageRange;
use crate::collision::CollisionTracker;
use crate::gate::LostCause;
use crate::notify::Event;
use crate::space::AddressSpace;

/// Events of one batch, with the ranges that they stand for. Room for a full read and for the aliases of what it names.
const BATCH: usize = if cfg!(any(loom, shuttle)) { 2 } else { 256 };

/// What one read of the source gave. Lives in the pump; never allocates.
#[derive(Debug)]
pub struct Batch {
    events: [(Event, PageRange); BATCH],
    len: usize,
    room: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::with_room(BATCH)
    }
}

impl Batch {
    /// An empty batch with room for so many events: at least two, at most what the default has.
    #[must_use]
    pub fn with_room(room: usize) -> Self {
        Self { events: [(Event::Requested, PageRange::ALL); BATCH], len: 0, room: room.clamp(2, BATCH) }
    }

    /// Adds an event. A full batch becomes one discard of everything, which is safe. Says whether it is still exact.
    pub fn push(&mut self, event: Event, range: PageRange) -> bool {
        let exact = self.len < self.room;
        if !exact {
            self.events[0] = (Event::Remove, PageRange::ALL);
            self.len = 1;
        }
        self.events[self.len] = (event, range);
        self.len += 1;
        exact
    }

    /// The events so far, in the order of their arrival.
    #[must_use]
    pub fn events(&self) -> &[(Event, PageRange)] {
        &self.events[..self.len]
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

/// The order of a turn. Everything but [`GateFirst`](TurnOrder::GateFirst) is wrong on purpose, for control runs that
/// show what the right order prevents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TurnOrder {
    /// As described in the module's text.
    #[default]
    GateFirst,
    /// Reads before the gate is up, as a cache without a gate does. **Not coherent.**
    ReadFirst,
}

impl<T: CollisionTracker> AddressSpace<T> {
    /// Runs one turn. `read` fills the batch from the source without waiting; `section_turns` bounds, in milliseconds of
    /// the pump's own running time, how long uses may stay in their sections.
    ///
    /// # Blocking
    /// Waits for sections and for device locks. Never allocates unless `read` or a callback does.
    pub fn turn(&self, order: TurnOrder, batch: &mut Batch, section_turns: u32, read: impl FnOnce(&mut Batch)) {
        batch.clear();
        let mut read = Some(read);
        let mut read_batch = |batch: &mut Batch| read.take().map(|read| read(batch));
        if order == TurnOrder::ReadFirst || planted("read-before-gate") {
            read_batch(batch);
        }
        let gate = self.gate();
        gate.raise();
        // Once lost, nothing is left to wait for: every use was told, and the callers are to be freed.
        if gate.lost().is_none() && !gate.drain(section_turns) {
            if planted("lost-after-read") {
                read_batch(batch);
            }
            // Uses that stay in their sections go on; whoever enters from here on is told.
            self.lose(LostCause::SectionOverdue);
        }
        read_batch(batch);
        if planted("gate-lowered-before-revoke") {
            gate.lower();
        }
        for &(event, range) in batch.events() {
            self.apply(event, range);
        }
        if !planted("gate-lowered-before-revoke") {
            gate.lower();
        }
    }

    /// Revokes what one event names. A discard's range is in doubt before its number is in the log.
    fn apply(&self, event: Event, range: PageRange) {
        let late = planted("doubt-after-append");
        if event == Event::Remove && !late {
            self.doubt().set(range);
        }
        // The change is over (UNMAP, REMAP) or under way and without an end (REMOVE): nothing is left to bracket.
        drop(self.invalidate_start(range, event));
        if event == Event::Remove && late {
            self.doubt().set(range);
        }
    }
}
