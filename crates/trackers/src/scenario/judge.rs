//! What really happened in an execution, in plain data, and whether a tracker's verdict agrees with it.
//!
//! # Guarantee
//! Nothing is called a violation that the seam's contract allows, whatever the schedule; so the marks are taken on the
//! careful side of each step: a start is marked before the tracker hears of it and again when it is over, an end before the
//! tracker hears of it.
//!
//! # Fields
//! All behind one standard lock that is no part of the model, as the record of steps is. Loom leaves out orders that differ in
//! nothing that it knows of, so a check must rest on something that the tracker or the page's content orders. On real threads it orders more
//! than the tracker does, so there this judge sees schedules, never orderings.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::Verdict;

use super::world::here;
use crate::steps::{self, Actor, named};

/// The devices that a scenario can have.
pub(crate) const DEVICES: usize = 2;

/// A moment of the execution: marks are numbered in the order in which they were taken.
type Moment = u64;

/// One invalidation that was started.
#[derive(Debug)]
struct Started {
    by: Actor,
    range: PageRange,
    /// Just after the start was over, callbacks included.
    started: Option<Moment>,
    /// Just after the callback of each device has revoked, under its lock.
    heard: [Option<Moment>; DEVICES],
    /// Just before the tracker was told of the end.
    ending: Option<Moment>,
}

#[derive(Debug, Default)]
struct Ledger {
    now: Moment,
    started: Vec<Started>,
    /// Who was told to go round, and for which range.
    hits: Vec<(Actor, PageRange)>,
    page: u64,
}

/// Names an invalidation in the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry(usize);

/// When a reader began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    called: Moment,
    returned: Moment,
}

/// What was asked of the tracker at a commit, and what it said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// The device whose lock is held.
    pub(crate) device: usize,
    /// What was read.
    pub(crate) range: PageRange,
    pub(crate) begun: Begun,
    /// The page that was seen.
    pub(crate) seen: u64,
    pub(crate) verdict: Verdict,
}

/// The exact knowledge of one execution.
#[derive(Debug, Default)]
pub(crate) struct Judge(Mutex<Ledger>);

impl Judge {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now.
    pub(crate) fn moment(&self) -> Moment {
        self.ledger().tick()
    }

    /// A reader that called at this moment has begun.
    pub(crate) fn begun(&self, called: Moment) -> Begun {
        Begun { called, returned: self.moment() }
    }

    /// The calling thread is about to tell the tracker of a start.
    pub(crate) fn starting(&self, range: PageRange) -> Entry {
        let mut ledger = self.ledger();
        ledger.started.push(Started { by: steps::actor(), range, started: None, heard: [None; DEVICES], ending: None });
        Entry(ledger.started.len() - 1)
    }

    /// The callback of `device` has revoked, and holds the device lock. It runs in the thread that starts the invalidation.
    pub(crate) fn heard(&self, device: usize) {
        let (mut ledger, by) = (self.ledger(), steps::actor());
        let now = ledger.tick();
        if let Some(started) = ledger.started.iter_mut().rev().find(|started| started.by == by) {
            started.heard[device] = Some(now);
        }
    }

    /// The start is over.
    pub(crate) fn started(&self, entry: Entry) {
        let mut ledger = self.ledger();
        let now = ledger.tick();
        ledger.started[entry.0].started = Some(now);
    }

    /// Another page is there now.
    pub(crate) fn changed(&self, page: u64) {
        let mut ledger = self.ledger();
        ledger.page = ledger.page.max(page);
    }

    /// The tracker is about to hear of the end.
    pub(crate) fn ending(&self, entry: Entry) {
        let mut ledger = self.ledger();
        let now = ledger.tick();
        ledger.started[entry.0].ending = Some(now);
    }

    /// What is wrong with a verdict, if anything. Asked under the device lock, when the verdict was given.
    ///
    /// `Valid` is wrong when the device has already heard of an overlapping invalidation that had not begun to end when
    /// `read_begin` returned: nobody will revoke what is installed now. It is also wrong for a page that is not there
    /// any more, whatever the reason: devices hear before a page changes.
    ///
    /// `Hit` is wrong when it names a range elsewhere; and, where the tracker promises to be `exact`, when no overlapping
    /// invalidation can have caused it.
    pub(crate) fn wrong(&self, asked: &Asked, exact: bool) -> Option<String> {
        let mut ledger = self.ledger();
        match asked.verdict {
            Verdict::Valid => ledger.stale(asked).or_else(|| ledger.missed(asked)),
            Verdict::Hit(by) => ledger.needless(asked, by, exact),
            Verdict::Outrun => None,
        }
    }
}

impl Ledger {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn stale(&self, asked: &Asked) -> Option<String> {
        let (seen, now) = (asked.seen, self.page);
        (asked.range.overlaps(here()) && seen < now).then(|| format!("install page {seen}, but page {now} is there"))
    }

    fn missed(&self, asked: &Asked) -> Option<String> {
        let hit = |started: &&Started| {
            let running = started.ending.is_none_or(|ending| ending > asked.begun.returned);
            started.range.overlaps(asked.range) && started.heard[asked.device].is_some() && running
        };
        let by = self.started.iter().find(hit)?;
        let (seen, by) = (asked.seen, named(by.range));
        Some(format!("install page {seen}, though the invalidation of {by} has already called back"))
    }

    /// Attempts of one reader follow each other, so an invalidation hits one of them at most: more hits than overlapping
    /// invalidations are needless ones.
    fn needless(&mut self, asked: &Asked, by: Option<PageRange>, exact: bool) -> Option<String> {
        let (by_elsewhere, reader) = (by.filter(|by| !by.overlaps(asked.range)), steps::actor());
        if let Some(by) = by_elsewhere {
            return Some(format!("go round for an invalidation of {}, but {} was read", named(by), named(asked.range)));
        }
        self.hits.push((reader, asked.range));
        let hits = self.hits.iter().filter(|hit| **hit == (reader, asked.range)).count();
        let overlapping = || self.started.iter().filter(|started| started.range.overlaps(asked.range));
        let needless = hits > overlapping().count() || !overlapping().any(|started| started.may_hit(asked));
        (exact && needless).then(|| format!("go round, but nothing has hit {}", named(asked.range)))
    }
}

impl Started {
    /// Whether the start was not yet over when the reader called. One that had started before is waited for, and is no
    /// collision.
    ///
    /// Only where there is one order of everything. Loom lets a reader see an older state as long as nothing orders the
    /// two sides, and the order of execution does not.
    fn may_hit(&self, asked: &Asked) -> bool {
        cfg!(loom) || self.started.is_none_or(|over| over > asked.begun.called)
    }
}
