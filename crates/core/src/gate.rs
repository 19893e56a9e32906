//! The gate in front of every use, and the sections behind it.
//!
//! A *use* is one submission to a device. Before the pump reads events whose ranges it cannot know yet, it raises the
//! gate and waits until every section has been left; after that no use holds a translation that the events may name.
//!
//! # Guarantee
//! When [`Gate::drain`] has said that all sections are left, every use that enters later sees the gate raised until it
//! is lowered, and sees everything that was revoked before it was lowered.
//!
//! # States
//! One word: [`ALIVE`] set, [`LOST`] clear and no [`RAISED`] unit is *open*; `RAISED` units count who holds it raised;
//! `LOST` is set once and never cleared. **Zero is lost**: a forked child finds the word wiped by the kernel and fails
//! closed, though nobody ran in it to say so.
//!
//! # Fields
//! `word` is changed by the pump (raise, lower) and by whoever declares the space lost. A section counter is changed by
//! the thread whose lane it is (the last one: by all that share it) and read by the pump and by who settles. `cause` is written once, before `LOST`.
//!
//! # Interleavings
//! ```text
//! use                                       pump
//! section += 1 (SeqCst)                     word += RAISED
//!                                           fence(SeqCst)
//! look at word: open, use what it holds     look at sections: all left, read the events
//! ```
//! `[Required: not both]`. This is a store followed by a load on both sides. The pump has a fence between them; for the use
//! both accesses are sequentially consistent, which needs no instruction beside the read-modify-write where that is a
//! barrier by itself. Looking at the word before the section is entered is wrong whatever the orderings.
//!
//! # Orderings
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | `enter`: section and word | SeqCst | `raise`, `settle`: fence | use and read beside each other |
//! | `lower`: word | Release | `enter`: word, Acquire | a use finds what was already revoked |
//! | section left | Release | `drain`: Acquire | the pump reads before the submission was made |
//!
//! # Checked by
//! `section_and_gate_against_pump` (loom) with the planted bugs `gate-before-section`, `enter-without-fence`,
//! `raise-without-fence`, `gate-lowered-before-revoke`, `lost-after-read`; `hold_in_section_against_taking_away` (loom) with
//! `settle-without-fence`.
//!
//! # Not covered
//! That sequentially consistent accesses do without a fence: loom takes them for acquire and release, so there a fence stands
//! in their place, and shuttle knows nothing weaker. The word's page being wiped in a forked child is the kernel's doing; `linux` tests it on the real thing.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use pagemirror_sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use pagemirror_sync::{LANES, Lane, fence_for_loom, lane, lanes_in_use, planted, section_depth, thread};

use crate::wait::{Interrupted, Wait, WaitQueue};

/// Set while the process that made the gate lives in this memory; a wiped word does not have it.
pub const ALIVE: u64 = 1;
/// Coherence was lost, for ever.
pub const LOST: u64 = 2;
/// One holder of the raised gate.
pub const RAISED: u64 = 4;

/// Looks at the sections before the pump starts to sleep between looks: a section lasts about one system call.
const DRAIN_SPINS: u32 = 200;
/// Looks at one section before others are kept out to see it left.
const SETTLE_LOOKS: u32 = if cfg!(any(loom, shuttle)) { 2 } else { 100 };
/// The pump's nap between two looks once it sleeps.
const DRAIN_NAP: Duration = Duration::from_millis(1);

/// Why coherence was declared lost. Everything was dropped, and every later use says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum LostCause {
    /// The word was wiped: this is a forked child, which has no source of its own.
    Forked = 0,
    /// The address space was released by its owner.
    Released = 1,
    /// The descriptor of the event source was closed, replaced or stopped answering.
    SourceClosed = 2,
    /// A callback panicked, so what it should have revoked may still stand.
    CallbackPanicked = 3,
    /// A use stayed in its section past the pump's deadline; events were read beside it.
    SectionOverdue = 4,
    /// The pump did not turn for too long; somebody else read its events to free the blocked callers.
    PumpStuck = 5,
}

impl LostCause {
    fn from_word(word: u8) -> Self {
        match word {
            1 => Self::Released,
            2 => Self::SourceClosed,
            3 => Self::CallbackPanicked,
            4 => Self::SectionOverdue,
            5 => Self::PumpStuck,
            _ => Self::Forked,
        }
    }
}

impl fmt::Display for LostCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forked => "this is a forked child; open a source of its own after exec",
            Self::Released => "the address space was released",
            Self::SourceClosed => {
                "the userfaultfd descriptor was closed or replaced; look for close_range() in the program"
            }
            Self::CallbackPanicked => "an invalidation callback panicked",
            Self::SectionOverdue => "a submission stayed in its section for too long; it must not sleep, fault or free",
            Self::PumpStuck => "the event pump did not run for too long; look for a callback that blocks",
        })
    }
}

/// Where the gate's word lives.
#[derive(Debug)]
pub enum GateWord {
    /// In ordinary memory: a forked child does not notice. For tests and for processes that never fork.
    Owned(AtomicU64),
    /// In memory that the kernel wipes in a forked child (`MADV_WIPEONFORK`), set to [`ALIVE`] by who mapped it.
    Wiped(&'static AtomicU64),
}

#[derive(Debug)]
#[repr(align(128))]
struct SectionCounter(AtomicU64);

/// The gate and its sections. See the module's text for the protocol.
#[derive(Debug)]
pub struct Gate {
    word: GateWord,
    cause: AtomicU8,
    sections: Box<[SectionCounter]>,
    parked: WaitQueue,
}

/// What [`Gate::enter`] found.
#[derive(Debug)]
#[must_use]
pub enum Entered<'g> {
    /// The gate is open; leave the section soon.
    Open(Section<'g>),
    /// The pump is reading; wait outside and enter again.
    Raised,
    /// Coherence is lost.
    Lost(LostCause),
    /// This thread is in a section already. Waiting would be waiting for itself.
    Nested,
}

/// A section that is being run through. While it lives nothing may fault, allocate, free or sleep on this thread.
#[derive(Debug)]
pub struct Section<'g> {
    counter: &'g AtomicU64,
    lane: Lane,
    alone: bool,
    not_send: PhantomData<*const ()>,
}

impl Gate {
    /// An open gate over this word.
    #[must_use]
    pub fn new(word: GateWord) -> Self {
        Self::with_counters(word, LANES)
    }

    /// As [`new`](Self::new), with so many counters for sections (at least one): fewer are safe and shared more.
    #[must_use]
    pub fn with_counters(word: GateWord, counters: usize) -> Self {
        let counter = |_| SectionCounter(AtomicU64::new(0));
        Self {
            word,
            cause: AtomicU8::new(0),
            sections: (0..counters.max(1)).map(counter).collect(),
            parked: WaitQueue::new(),
        }
    }

    /// An open gate in ordinary memory.
    #[must_use]
    pub fn in_ordinary_memory() -> Self {
        Self::new(GateWord::Owned(AtomicU64::new(ALIVE)))
    }

    #[inline]
    fn word(&self) -> &AtomicU64 {
        match &self.word {
            GateWord::Owned(word) => word,
            GateWord::Wiped(word) => word,
        }
    }

    /// Enters a section if the gate is open. The order (enter, fence, look) is what the guarantee rests on.
    #[inline(always)]
    pub fn enter(&self) -> Entered<'_> {
        if section_depth(|depth| depth.get()) > 0 {
            return Entered::Nested;
        }
        let looked_early = planted("gate-before-section").then(|| self.word().load(Ordering::Acquire));
        let lane = lane();
        let last = self.sections.len() - 1;
        let counter = &self.sections[lane.index().min(last)].0;
        // ORDERING: SeqCst, as the look at the word: the two keep their order (# Interleavings).
        counter.fetch_add(1, Ordering::SeqCst);
        section_depth(|depth| depth.set(1));
        // What is not the last one has a lane's own thread.
        let alone = lane.is_exclusive() && lane.index() < last;
        let section = Section { counter, lane, alone, not_send: PhantomData };
        if !planted("enter-without-fence") {
            fence_for_loom();
        }
        // ORDERING: SeqCst, see above. As an Acquire it pairs with the Release of `lower`: an open gate shows all that was
        // revoked behind it.
        let word = looked_early.unwrap_or_else(|| self.word().load(Ordering::SeqCst));
        if word == ALIVE {
            return Entered::Open(section);
        }
        drop(section);
        self.lost_in(word).map_or(Entered::Raised, Entered::Lost)
    }

    /// The sections in which a thread may be.
    fn in_use(&self) -> impl Iterator<Item = usize> {
        let last = self.sections.len() - 1;
        lanes_in_use().filter(move |lane| *lane < last).chain(std::iter::once(last))
    }

    /// Raises the gate. Uses that enter from now on wait outside.
    pub fn raise(&self) {
        // ORDERING: AcqRel keeps raises of several holders in order; the fence pairs with the one of `enter`.
        self.word().fetch_add(RAISED, Ordering::AcqRel);
        if !planted("raise-without-fence") {
            fence(Ordering::SeqCst);
        }
    }

    /// Waits until every section that was entered before [`raise`](Self::raise) is left. Says whether they were,
    /// within `turns` naps of 1 ms. Turns are the caller's own: a stopped process uses none.
    ///
    /// # Blocking
    /// Sleeps up to `turns` milliseconds of its own running time. Never allocates.
    pub fn drain(&self, turns: u32) -> bool {
        // ORDERING: Acquire pairs with the Release of a section that is left: its submission was made.
        let left = || self.in_use().all(|section| self.sections[section].0.load(Ordering::Acquire) == 0);
        // Under a model checker a look more is nothing but a state more.
        let spins = if cfg!(any(loom, shuttle)) { 0 } else { DRAIN_SPINS };
        for look in 0..turns.saturating_add(spins) {
            if left() {
                return true;
            }
            if look < spins { thread::yield_now() } else { thread::sleep(DRAIN_NAP) }
        }
        // Once more, after the last nap: it may have been a long one, of a process that was stopped.
        left()
    }

    /// Waits until every section that is entered now has been left once, without keeping others out: whoever enters later
    /// sees what was stored before this call. Says whether they were, within `turns` naps of 1 ms.
    ///
    /// # Blocking
    /// Sleeps up to `turns` milliseconds of its own running time. Not in a section. Never allocates.
    pub fn settle(&self, turns: u32) -> bool {
        // ORDERING: pairs with `enter`: a section that is not counted yet sees what was stored before.
        if !planted("settle-without-fence") {
            fence(Ordering::SeqCst);
        }
        // ORDERING: Acquire, as `drain`.
        let left = |lane: usize| self.sections[lane].0.load(Ordering::Acquire) == 0;
        if self.in_use().all(|lane| (0..SETTLE_LOOKS).any(|_| left(lane) || yield_once())) {
            return true;
        }
        // Somebody stays long, or a lane that several threads share is never seen empty.
        self.raise();
        let drained = self.drain(turns);
        self.lower();
        drained
    }

    /// Lowers what [`raise`](Self::raise) raised, and wakes who waits. Everything named was revoked before this.
    pub fn lower(&self) {
        // ORDERING: Release publishes the revocations to the Acquire load of `enter`.
        self.word().fetch_sub(RAISED, Ordering::Release);
        self.parked.wake();
    }

    /// Waits outside until the gate is open.
    ///
    /// # Errors
    /// When the wait ended first: lost, deadline, cancelled.
    ///
    /// # Blocking
    /// Sleeps until the pump lowers the gate.
    pub fn wait_open(&self, wait: &Wait<'_>) -> Result<(), Interrupted> {
        // ORDERING: Acquire for form; `enter` looks again before anything is used.
        self.parked.wait(wait, || self.word().load(Ordering::Acquire) == ALIVE)
    }

    /// Declares coherence lost, for ever, and wakes who waits. The first cause stays. Never allocates.
    pub fn lose(&self, cause: LostCause) {
        // ORDERING: Relaxed; published by the Release of the word below, or nobody looks at it.
        let _ = self.cause.compare_exchange(0, cause as u8, Ordering::Relaxed, Ordering::Relaxed);
        // ORDERING: AcqRel; a use that enters after the events were read must see it, as with `raise`.
        self.word().fetch_or(LOST, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.parked.wake();
    }

    /// Why coherence was lost, if it was.
    #[inline]
    #[must_use]
    pub fn lost(&self) -> Option<LostCause> {
        // ORDERING: Acquire pairs with `lose`, so the cause is the one that was written.
        let word = self.word().load(Ordering::Acquire);
        if word & (ALIVE | LOST) == ALIVE { None } else { self.lost_in(word) }
    }

    #[cold]
    fn lost_in(&self, word: u64) -> Option<LostCause> {
        if word & ALIVE == 0 {
            return Some(LostCause::Forked);
        }
        // ORDERING: Relaxed, behind the Acquire load of the word.
        (word & LOST != 0).then(|| LostCause::from_word(self.cause.load(Ordering::Relaxed)))
    }
}

/// Lets others run before one looks again.
fn yield_once() -> bool {
    thread::yield_now();
    false
}

impl Section<'_> {
    /// The lane of the thread that is in the section.
    #[inline(always)]
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane
    }
}

impl Drop for Section<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        section_depth(|depth| depth.set(0));
        // ORDERING: Release pairs with `drain`: what was submitted in the section was submitted before it was left. In a lane
        // of its own a thread is in one section at a time, and nobody else counts there.
        if self.alone {
            self.counter.store(0, Ordering::Release);
        } else {
            self.counter.fetch_sub(1, Ordering::Release);
        }
    }
}
