//! Ending the doubt about a discard that this thread made itself and has returned from.
//!
//! # Guarantee
//! A doubt is ended here only if the one discard that it stands for is the caller's own, which is over.
//!
//! # Steps
//! A doubt does not say whose it is, so everybody else is ruled out. Before the call: one mapping, private, watched; the
//! pump between turns; nothing of the range in doubt. After it: the kernel quiet, the pump between turns, and since before
//! the call exactly **one** discard was announced, no unmapping and no move. The call announces at least one, so that one is
//! its own, and every doubt of the range that was set meanwhile is of that one.
//!
//! # Interleavings
//! ```text
//! this thread                                  pump
//! count of discards = n                        counts when it reads, gate up; doubt set, gate down
//! gate open      [Required: after the count]   so each discard that n counts has its doubt set by now
//! nothing in doubt
//! madvise                                      reads it: count = n + 1
//! gate open; quiet
//! newest doubt = m; count = n + 1?             [Required: count after m] a doubt up to m was counted before it was set
//! end doubts of the range up to m
//! ```
//! A mapping that is replaced under the call would let somebody else's discard be the one. Replacing a watched mapping is
//! announced, and the kernel is not quiet before that was read: so it is seen, in the probe or in the counts.
//!
//! # Not covered
//! `shmat(SHM_REMAP)` over the range while it is being discarded: the one replacement that is not announced for private
//! memory.
//!
//! # Checked by
//! `tests/calls.rs`: a thread that never sleeps keeps every doubt but one's own; an older doubt stays; a discard beside it
//! keeps the doubt.

use pagemirror_core::addr::PageRange;
use pagemirror_core::source::{Probe, Source};
use pagemirror_core::wait::{Deadline, Wait};
use pagemirror_sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::source::Userfault;

/// How long the pump may take for the turn that released us, before the doubt is left to the prover.
const TURN: Duration = Duration::from_millis(100);

/// What was counted before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    events: Events,
    doubt_overflows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Events {
    remove: u64,
    unmap: u64,
    remap: u64,
    everything: u64,
}

impl Userfault {
    fn events(&self) -> Events {
        // ORDERING: Acquire pairs with the fence of `Gate::raise`, behind which the pump counts: who sees a count sees the
        // gate raised for it, until its doubt is set. After the call the mark, read with Acquire, shows the count.
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let of = &self.counters;
        Events {
            remove: load(&of.remove),
            unmap: load(&of.unmap),
            remap: load(&of.remap),
            everything: load(&of.everything),
        }
    }

    /// Whether the pump was seen between two turns, just now.
    fn between_turns(&self) -> bool {
        let (deadline, gate) = (Deadline::after(TURN), self.space.gate());
        gate.wait_open(&Wait::new(&deadline, gate)).is_ok()
    }

    /// The state before a discard of `range`, if its doubt can be told apart from everybody else's.
    pub(super) fn before_own_discard(&self, range: PageRange) -> Option<Before> {
        let mapped = self.maps.query(range.start().get(), false).ok()??;
        let private = !mapped.shared && range.end().get() <= mapped.end;
        // Asked for again, so that it is known to be announced.
        if !private || self.watch(range).is_err() {
            return None;
        }
        let before = Before { events: self.events(), doubt_overflows: self.space.doubt().overflows() };
        (self.between_turns() && !self.space.doubt().overlaps(range)).then_some(before)
    }

    /// Ends the doubt about the caller's own discard of `range`, which is over. Says whether nothing is in doubt any more.
    pub(super) fn end_own_doubt(&self, range: PageRange, before: Before) -> bool {
        if !self.between_turns() || self.probe() != Probe::Quiet {
            return false;
        }
        let doubt = self.space.doubt();
        let mark = doubt.mark();
        let now = self.events();
        let only_ours = Events { remove: before.events.remove + 1, ..before.events };
        if now != only_ours || doubt.overflows() != before.doubt_overflows {
            return false;
        }
        doubt.end_where(mark, |of| range.contains(of));
        !doubt.overlaps(range)
    }
}
