//! The modelled kernel: calls that change memory, the events that they leave, the probe.
//!
//! # Orders, as measured on Linux
//! - munmap, MAP_FIXED, mremap: the count of changes under way goes up and the page tables change in one step; *then*, with
//!   nothing locked, the event is queued, and the caller sleeps until it is read. Meanwhile the address can be mapped again.
//! - madvise: the count goes up and the event is queued, the caller sleeps until it is read; *then*, whenever it gets a
//!   processor, it looks its address up again and takes away whatever lies there by then.
//! - The count goes down when the caller runs again. The read of its event only makes that possible.
//! - Events of several threads are queued in another order than that of their changes.
//! - mprotect says nothing.
//!
//! # Not covered
//! Page-fault messages (pagemirror protects nothing, so there are none), several mappings of one file, growth in place,
//! the events of forks.

use std::collections::VecDeque;
use std::ops::Range;

use pagemirror_core_sim::gate::LostCause;
use pagemirror_core_sim::notify::Event;
use pagemirror_core_sim::source::Probe;
use pagemirror_core_sim::turn::Batch;
use pagemirror_sync_sim::sim;

use super::counts::Count;
use super::memory::{Memory, Refused, range_of};
use super::options::FORK_SHARES;
use super::world::World;

/// Between two steps of one call, at most, in nanoseconds.
const STEP: u64 = 2_000;
/// Until a released caller runs again, at most: mostly, and when it is late.
const SOON: u64 = 5_000;
const LATE: u64 = 1_000_000;
/// Pages that a discard takes away before the next look at anything else.
const CHUNK: usize = 2;

/// An event that nobody has read.
#[derive(Debug)]
struct Unread {
    event: Event,
    pages: Range<usize>,
    /// For a move: where to.
    to: Option<Range<usize>>,
    thread: usize,
    /// When its change was made.
    changed: u64,
}

/// The kernel's state.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) memory: Memory,
    unread: VecDeque<Unread>,
    /// Changes under way: what the probe asks for.
    changing: u32,
    closed: bool,
    threads: Vec<Thread>,
    /// Uses that are in their sections.
    pub(crate) sections: u32,
    last_changed: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Thread {
    /// Its event was not read yet.
    asleep: bool,
    in_discard: bool,
}

impl Kernel {
    pub(crate) fn new(memory: Memory, threads: usize) -> Self {
        Self {
            memory,
            unread: VecDeque::new(),
            changing: 0,
            closed: false,
            threads: vec![Thread::default(); threads],
            sections: 0,
            last_changed: 0,
        }
    }

    pub(crate) fn is_readable(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// What a look at /proc says of a thread.
    pub(crate) fn is_in_discard(&self, thread: usize) -> bool {
        self.threads[thread].in_discard
    }

    fn is_reported(&self, pages: &Range<usize>) -> bool {
        !self.closed && self.memory.any_watched(pages.clone())
    }
}

/// Calls; each runs in the actor that makes it, whose number as a thread is `thread`.
impl World {
    pub(crate) fn munmap(&self, thread: usize, pages: Range<usize>) {
        let changed = self.moments.next();
        let mut kernel = self.kernel();
        let reported = kernel.is_reported(&pages);
        kernel.changing += u32::from(reported);
        kernel.memory.begin_call(pages.clone());
        let taken = kernel.memory.unmap(pages.clone());
        drop(kernel);
        self.count(Count::Unmaps);
        self.note(|| format!("munmap {}: gone, its event is not queued yet", range_of(pages.clone())));
        if reported {
            self.report(Unread { event: Event::Unmap, pages: pages.clone(), to: None, thread, changed });
        }
        self.give_back("munmap", pages, &taken, &[]);
    }

    /// mmap without MAP_FIXED: of an address that is free, also one that is being unmapped. Says whether it was free.
    pub(crate) fn mmap(&self, pages: Range<usize>) -> bool {
        let mut kernel = self.kernel();
        if !kernel.memory.is_free(pages.clone()) {
            return false;
        }
        let reused = kernel.changing > 0;
        let gone = kernel.memory.map(pages.clone(), self.is_huge(&pages));
        drop(kernel);
        self.count(Count::Maps);
        if reused && !gone.is_empty() {
            self.count(Count::Reuses);
        }
        self.pause(STEP);
        let now = self.moments.next();
        self.kernel().memory.tell(&gone, now, false);
        self.note(|| format!("mmap {} has returned", range_of(pages)));
        true
    }

    /// mmap(MAP_FIXED): unmapped and mapped again in one step.
    pub(crate) fn replace(&self, thread: usize, pages: Range<usize>) {
        let changed = self.moments.next();
        let mut kernel = self.kernel();
        let reported = kernel.is_reported(&pages);
        kernel.changing += u32::from(reported);
        kernel.memory.begin_call(pages.clone());
        let taken = kernel.memory.unmap(pages.clone());
        let gone = kernel.memory.map(pages.clone(), self.is_huge(&pages));
        drop(kernel);
        self.count(Count::Replacements);
        self.note(|| {
            format!("MAP_FIXED {}: the new mapping is live, its event is not queued yet", range_of(pages.clone()))
        });
        if reported {
            self.report(Unread { event: Event::Unmap, pages: pages.clone(), to: None, thread, changed });
        }
        self.give_back("MAP_FIXED", pages, &taken, &gone);
    }

    /// mremap to a free place. Says whether both places were as they must be.
    pub(crate) fn mremap(&self, thread: usize, from: Range<usize>, to: usize) -> bool {
        let target = to..to + from.len();
        let changed = self.moments.next();
        let mut kernel = self.kernel();
        if !kernel.memory.is_mapped(from.clone()) || !kernel.memory.is_free(target.clone()) {
            return false;
        }
        let reported = kernel.is_reported(&from);
        kernel.changing += 2 * u32::from(reported);
        kernel.memory.begin_call(from.clone());
        kernel.memory.begin_call(target.clone());
        let (taken, gone) = kernel.memory.relocate(from.clone(), to);
        drop(kernel);
        self.count(Count::Moves);
        self.note(|| format!("mremap {} to {}: moved", range_of(from.clone()), range_of(target.clone())));
        if reported {
            let moved = Some(target.clone());
            self.report(Unread { event: Event::Remap, pages: from.clone(), to: moved, thread, changed });
            self.report(Unread { event: Event::Unmap, pages: from.clone(), to: None, thread, changed });
        }
        self.give_back("mremap", from, &taken, &[]);
        self.give_back("mremap", target, &[], &gone);
        true
    }

    /// MADV_DONTNEED; MADV_FREE when nothing `goes`.
    pub(crate) fn discard(&self, thread: usize, pages: Range<usize>, goes: bool) {
        self.count(if goes { Count::Discards } else { Count::Frees });
        let changed = self.moments.next();
        let mut kernel = self.kernel();
        let reported = kernel.is_reported(&pages);
        kernel.changing += u32::from(reported);
        kernel.threads[thread].in_discard = true;
        kernel.memory.begin_call(pages.clone());
        drop(kernel);
        let name = if goes { "MADV_DONTNEED" } else { "MADV_FREE" };
        if reported {
            self.note(|| format!("{name} {}: its event is queued, nothing is gone yet", range_of(pages.clone())));
            self.report(Unread { event: Event::Remove, pages: pages.clone(), to: None, thread, changed });
        }
        let mut taken = Vec::new();
        if goes {
            // Unreported, the whole range goes under one lock, which watching waits for.
            let chunk = if reported { CHUNK.max(pages.len() / 8) } else { pages.len() };
            for first in pages.clone().step_by(chunk) {
                let part = first..pages.end.min(first + chunk);
                taken.append(&mut self.kernel().memory.zap(part.clone()));
                self.note(|| format!("{name} {} takes away what lies there", range_of(part)));
                self.pause(STEP);
            }
        }
        self.give_back(name, pages, &taken, &[]);
        self.kernel().threads[thread].in_discard = false;
    }

    pub(crate) fn mprotect(&self, pages: Range<usize>, forbidden: bool) {
        self.count(Count::Protections);
        self.kernel().memory.protect(pages.clone(), forbidden);
        self.note(|| format!("mprotect {}: forbidden is {forbidden}", range_of(pages)));
    }

    /// A fork. The child looks at what it has, writes, looks again, and exits; nothing of it may show in the parent.
    pub(crate) fn fork(&self) {
        let mut child = self.kernel().memory.fork(self.options.control != FORK_SHARES);
        self.note(|| "fork".to_owned());
        for _ in 0..2 {
            self.pause(STEP * 4);
            self.check_child(&child);
            let at = sim::random(self.options.all_pages() as u64) as usize;
            let content = self.moments.next();
            self.kernel().memory.child_writes(&mut child, at, content);
        }
        self.check_child(&child);
        self.kernel().memory.child_exits(child);
    }

    fn check_child(&self, child: &super::memory::Child) {
        let found = self.kernel().memory.child_finds(child);
        if let Some((found, expected)) = found {
            self.fail(format!("content is lost: a forked child finds {found} where it had {expected}"));
        }
    }

    /// Writes one page as the program does, after a look at what is there.
    pub(crate) fn write(&self, page: usize) {
        let content = self.moments.next();
        let mut kernel = self.kernel();
        let found = kernel.memory.read(page);
        kernel.memory.write(page, content, content);
        drop(kernel);
        if let Some((found, expected)) = found
            && found != expected
        {
            let at = range_of(page..page + 1);
            self.fail(format!("content is lost: the program finds {found} at {at}, where it had {expected}"));
        }
    }

    fn is_huge(&self, pages: &Range<usize>) -> bool {
        self.options.huge > 0 && *pages == self.options.region(0)
    }

    /// Queues an event and sleeps until it was read, and then until there is a processor.
    fn report(&self, unread: Unread) {
        let thread = unread.thread;
        if unread.event != Event::Remove {
            self.pause(STEP);
        }
        let mut kernel = self.kernel();
        if kernel.closed {
            // Closing the descriptor set the count to zero and released everybody.
            return;
        }
        kernel.threads[thread].asleep = true;
        kernel.unread.push_back(unread);
        drop(kernel);
        self.readable.ring();
        while self.kernel().threads[thread].asleep {
            self.read[thread].wait(None);
        }
        let late = self.strikes(self.options.late_caller, Count::FaultLateCaller);
        self.pause(if late { LATE } else { SOON });
        let mut kernel = self.kernel();
        kernel.changing = kernel.changing.saturating_sub(u32::from(!kernel.closed));
    }

    /// The call returns: from here on the program knows that what it took is gone, and that the addresses which it was given
    /// no longer show what others took there.
    fn give_back(&self, name: &str, pages: Range<usize>, taken: &[u32], gone: &[u32]) {
        self.pause(STEP / 4);
        let now = self.moments.next();
        let mut kernel = self.kernel();
        kernel.memory.tell(taken, now, true);
        kernel.memory.tell(gone, now, false);
        kernel.memory.end_call(pages.clone());
        drop(kernel);
        self.note(|| format!("{name} {} has returned", range_of(pages)));
    }
}

/// The other side: what the library asks.
impl World {
    /// Reads up to so many events into the batch and releases their callers.
    pub(crate) fn read_events(&self, batch: &mut Batch, most: usize) {
        let inside = {
            let kernel = self.kernel();
            kernel.sections > 0 && kernel.is_readable()
        };
        // Lost is for ever, so who was told of it after the look at the sections was told before the read.
        if inside && !self.is_lost() {
            self.fail("events are read, and so callers released, while a use is in its section".to_owned());
        }
        let mut kernel = self.kernel();
        let count = most.min(kernel.unread.len());
        let events: Vec<Unread> = kernel.unread.drain(..count).collect();
        for unread in &events {
            kernel.threads[unread.thread].asleep = false;
        }
        let before = kernel.last_changed;
        kernel.last_changed = events.iter().fold(before, |last, one| last.max(one.changed));
        drop(kernel);
        let mut last = before;
        for unread in events {
            self.count(Count::Events);
            if unread.changed < last {
                self.count(Count::OutOfOrder);
            }
            last = last.max(unread.changed);
            self.note(|| format!("the event {:?} of {} is read", unread.event, range_of(unread.pages.clone())));
            self.read[unread.thread].ring();
            for part in [Some(unread.pages), unread.to].into_iter().flatten() {
                if !batch.push(unread.event, range_of(part)) {
                    self.count(Count::FullBatches);
                }
            }
        }
    }

    /// Closes the descriptor: every caller goes on, and nothing is reported any more.
    pub(crate) fn close(&self) {
        let mut kernel = self.kernel();
        kernel.closed = true;
        kernel.changing = 0;
        kernel.unread.clear();
        kernel.threads.iter_mut().for_each(|thread| thread.asleep = false);
        drop(kernel);
        self.note(|| "the descriptor is closed".to_owned());
        self.read.iter().for_each(sim::Bell::ring);
        self.readable.ring();
    }

    /// Whether a change is under way that nobody has read.
    pub(crate) fn probe(&self) -> Probe {
        self.pause(300);
        let kernel = self.kernel();
        let (closed, changing) = (kernel.closed, kernel.changing > 0);
        drop(kernel);
        if closed {
            self.lose(LostCause::SourceClosed);
            Probe::Lost(self.space.gate().lost().unwrap_or(LostCause::SourceClosed))
        } else if changing {
            self.count(Count::Changing);
            Probe::Changing
        } else {
            Probe::Quiet
        }
    }

    /// Has changes of these pages reported from now on. Says whether they are all mapped.
    pub(crate) fn watch(&self, pages: Range<usize>) -> bool {
        self.pause(300);
        self.kernel().memory.watch(pages)
    }

    /// A device pins what lies there.
    pub(crate) fn pin(&self, pages: Range<usize>) -> Result<Vec<u32>, Refused> {
        self.pause(u64::from(self.options.pin_us) * 500);
        let now = self.moments.next();
        let pinned = self.kernel().memory.pin(pages, now);
        self.pause(u64::from(self.options.pin_us) * 500);
        pinned
    }
}
