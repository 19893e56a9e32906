//! What each thread did in the current execution of a scenario, in the order in which it happened.
//!
//! A model checker runs every thread of an execution on one thread of the machine, so the order in which steps are
//! recorded is the order in which they were executed. On real threads there is no such order and nothing is recorded:
//! [`step`] is then an empty function, also in the trackers.
//!
//! # Fields
//! The record is plain data behind a standard lock: it is no part of the model, and must not be. No thread gives way
//! while it holds that lock, because nothing of the model is touched meanwhile.

use std::cell::Cell;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use pagemirror_core::addr::{MIN_PAGE, PageRange};

/// Whether this build records.
const RECORDS: bool = cfg!(any(loom, shuttle));

/// The two sides of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Reads the page table and installs what it read.
    Fault,
    /// Changes the page table.
    Invalidate,
}

/// One thread of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Actor {
    /// What it does.
    pub side: Side,
    /// Which one of its side, from 1 upwards.
    pub number: u8,
}

impl Actor {
    /// The fault side with this number.
    #[must_use]
    pub const fn fault(number: u8) -> Self {
        Self { side: Side::Fault, number }
    }

    /// The invalidate side with this number.
    #[must_use]
    pub const fn invalidate(number: u8) -> Self {
        Self { side: Side::Invalidate, number }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Fault => "fault side",
            Side::Invalidate => "invalidate side",
        };
        write!(f, "{side} {}", self.number)
    }
}

/// Something that a thread did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub actor: Actor,
    /// What.
    pub text: String,
    /// Whether this is the step that was wrong.
    pub wrong: bool,
}

/// The actor of a thread that has not said who it is: the first thread of every execution.
const FIRST: Actor = Actor::fault(1);

#[cfg(loom)]
loom::thread_local! { static ACTOR: Cell<Actor> = Cell::new(FIRST); }
#[cfg(all(shuttle, not(loom)))]
shuttle::thread_local! { static ACTOR: Cell<Actor> = Cell::new(FIRST); }
#[cfg(not(any(loom, shuttle)))]
thread_local! { static ACTOR: Cell<Actor> = const { Cell::new(FIRST) }; }

static RECORD: Mutex<Vec<Step>> = Mutex::new(Vec::new());

/// An execution begins: forgets the steps of the one before. The calling thread is its first.
pub(crate) fn begin_execution() {
    act_as(FIRST);
    if RECORDS {
        RECORD.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The calling thread is `actor` from now on.
pub(crate) fn act_as(actor: Actor) {
    ACTOR.with(|current| current.set(actor));
}

/// Who the calling thread is.
pub(crate) fn actor() -> Actor {
    ACTOR.with(Cell::get)
}

/// Records what the calling thread has just done. In a build for real threads this is nothing.
#[inline]
pub fn step(text: impl FnOnce() -> String) {
    if RECORDS {
        record(text(), false);
    }
}

/// Records the step that should not have been possible.
pub(crate) fn wrong_step(text: String) {
    if RECORDS {
        record(text, true);
    }
}

fn record(text: String, wrong: bool) {
    let step = Step { actor: actor(), text, wrong };
    RECORD.lock().unwrap_or_else(PoisonError::into_inner).push(step);
}

/// The steps of the current execution so far; none on real threads. May be called outside the model.
#[must_use]
pub fn recorded() -> Vec<Step> {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A range by its page numbers, which are smaller than addresses.
pub(crate) fn named(range: PageRange) -> String {
    format!("pages {}..{}", range.start().get() / MIN_PAGE, range.end().get() / MIN_PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_recorded_on_real_threads() {
        step(|| unreachable!("the text of a step is not made"));
        wrong_step("a page".into());
        assert_eq!(recorded(), []);
    }

    #[test]
    fn a_thread_is_whoever_it_said_last() {
        assert_eq!(actor(), Actor::fault(1));
        act_as(Actor::invalidate(2));
        assert_eq!(actor().to_string(), "invalidate side 2");
        begin_execution();
        assert_eq!(actor(), Actor::fault(1));
    }

    #[test]
    fn ranges_are_named_by_their_pages() {
        let range = PageRange::covering(pagemirror_core::addr::VirtAddr::new(4 * MIN_PAGE), 2 * MIN_PAGE, MIN_PAGE);
        assert_eq!(named(range.unwrap()), "pages 4..6");
    }
}
