//! What the scenarios share: a page with a content, devices that hold a translation of it, and a judge.

use std::fmt;
use std::time::Duration;

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::collision::{CollisionTracker, InvalidationId, Reader, Verdict};
use pagemirror_core::device::{Commit, DeviceTable, Granted, Mappings};
use pagemirror_core::error::Error;
use pagemirror_core::gate::Gate;
use pagemirror_core::notify::Event;
use pagemirror_core::space::{AddressSpace, Attempt, Invalidation};
use pagemirror_core::wait::{CancelToken, Deadline};
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::{AtomicU64, Ordering};
use pagemirror_sync::thread::{self, JoinHandle};

use super::judge::{Asked, Begun, Entry, Judge};
use super::make::Make;
use crate::steps::{self, Actor, named, step};

/// Longer than any wait of a scenario on real threads; a model has no clock.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// A tracker that was chosen at run time.
pub(crate) type AnyTracker = Box<dyn CollisionTracker>;

/// `count` pages from page number `first` on. The scenarios name only ranges that exist; anything else would be everything.
pub(crate) fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first * MIN_PAGE), count * MIN_PAGE, MIN_PAGE).unwrap_or(PageRange::ALL)
}

/// The range that has a content. Readers read all of it or nothing of it; an invalidation that overlaps it changes it.
pub(crate) fn here() -> PageRange {
    pages(4, 2)
}

/// A range that has nothing to do with it.
pub(crate) fn elsewhere() -> PageRange {
    pages(32, 2)
}

/// Says that something happened that must not, and ends the run.
pub(crate) fn violation(what: impl fmt::Display) -> ! {
    steps::wrong_step(what.to_string());
    panic!("VIOLATION: {what}");
}

/// As [`violation`], unless `holds`.
pub(crate) fn require(holds: bool, what: impl fmt::Display) {
    if !holds {
        violation(what);
    }
}

/// Waits for a thread of the scenario.
pub(crate) fn join<R>(handle: JoinHandle<R>) -> R {
    match handle.join() {
        Ok(result) => result,
        Err(_) => violation("a thread of the scenario panicked"),
    }
}

/// A device with room for one translation: the content that the page had when it was read.
#[derive(Debug)]
pub(crate) struct OneTranslation {
    device: usize,
    judge: Arc<Judge>,
    installed: Option<(PageRange, u64)>,
}

impl Mappings for OneTranslation {
    type Item = u64;

    fn install(&mut self, _granted: Granted, range: PageRange, item: u64) {
        self.installed = Some((range, item));
    }

    fn revoke(&mut self, range: PageRange, _event: Event) {
        let revoked = self.installed.take_if(|(held, _)| held.overlaps(range));
        self.judge.heard(self.device);
        step(|| match revoked {
            Some((_, page)) => format!("callback: device lock; revoke page {page}"),
            None => "callback: device lock; nothing to revoke".into(),
        });
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was committed, and what was read is installed.
    Installed,
    /// The tracker said to go round.
    Collided(Verdict),
    /// It would have had to wait longer than it wanted to.
    GaveUp,
}

impl Outcome {
    /// Whether the reader was neither kept waiting nor hit. A tracker that says that it no longer knows has not hit it.
    pub(crate) fn is_undisturbed(self) -> bool {
        matches!(self, Self::Installed | Self::Collided(Verdict::Outrun))
    }
}

/// How long a reader waits for running invalidations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until they have ended.
    Waits,
    /// Not at all: it gives up instead. So an invalidation can outlive a reader that would otherwise wait for it.
    Never,
}

/// A reader that has begun.
pub(crate) struct Reading<'w> {
    attempt: Attempt<'w, AnyTracker>,
    begun: Begun,
    range: PageRange,
}

/// An invalidation that runs until this is dropped.
pub(crate) struct Running<'w> {
    world: &'w World,
    entry: Entry,
    range: PageRange,
    inner: Option<Invalidation<'w, AnyTracker>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.world.judge.ending(self.entry);
        step(|| format!("invalidate_end of {}", named(self.range)));
        drop(self.inner.take());
    }
}

/// An invalidation that runs until somebody ends it.
#[derive(Debug)]
pub(crate) struct Detached {
    entry: Entry,
    range: PageRange,
    id: InvalidationId,
}

/// One address space with its devices.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) space: Arc<AddressSpace<AnyTracker>>,
    tables: Vec<DeviceTable<OneTranslation, AnyTracker>>,
    /// Which page lies at [`here`]: it grows with each change. Read and written with Relaxed only, so that the tracker
    /// alone carries the order between the change and whoever reads the page.
    content: AtomicU64,
    judge: Arc<Judge>,
    /// Whether the tracker promises that only an overlap makes anybody go round.
    exact: bool,
}

impl World {
    /// A world with one device.
    pub(crate) fn new(make: &Make) -> Arc<Self> {
        Self::with_devices(make, 1)
    }

    /// A world with several devices, each with a table and a lock of its own.
    pub(crate) fn with_devices(make: &Make, devices: usize) -> Arc<Self> {
        let space = Arc::new(AddressSpace::new(make.tracker(), Gate::in_ordinary_memory()));
        let judge = Arc::new(Judge::default());
        let table = |device| {
            let judge = Arc::clone(&judge);
            DeviceTable::new(&space, OneTranslation { device, judge, installed: None })
        };
        let tables = (0..devices).map(table).collect();
        Arc::new(Self { space, tables, content: AtomicU64::new(0), judge, exact: make.is_exact() })
    }

    /// The tracker of this world.
    pub(crate) fn tracker(&self) -> &AnyTracker {
        self.space.tracker()
    }

    /// Runs `run` on a thread of its own, as `actor`.
    pub(crate) fn beside<R: Send + 'static>(
        self: &Arc<Self>,
        actor: Actor,
        run: impl FnOnce(&Arc<Self>) -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let world = Arc::clone(self);
        thread::spawn(move || {
            steps::act_as(actor);
            run(&world)
        })
    }

    /// An invalidation of `range` starts.
    pub(crate) fn start(&self, range: PageRange) -> Running<'_> {
        let entry = self.judge.starting(range);
        step(|| format!("invalidate_start of {}", named(range)));
        let inner = self.space.invalidate_start(range, Event::Requested);
        self.judge.started(entry);
        Running { world: self, entry, range, inner: Some(inner) }
    }

    /// Another page lies at [`here`] from now on: what an invalidation announces.
    pub(crate) fn change(&self) {
        // ORDERING: Relaxed; see `content`.
        let page = self.content.fetch_add(1, Ordering::Relaxed) + 1;
        self.judge.changed(page);
        step(|| format!("page {page} replaces page {}", page - 1));
    }

    /// One whole invalidation of `range`, which changes the page if it lies in there.
    pub(crate) fn invalidate(&self, range: PageRange) {
        let running = self.start(range);
        if range.overlaps(here()) {
            self.change();
        }
        drop(running);
    }

    /// An invalidation starts before any device holds anything, so that there is nobody to call back. Any thread may end it.
    pub(crate) fn start_before_devices(&self, range: PageRange) -> Detached {
        let entry = self.judge.starting(range);
        step(|| format!("invalidate_start of {}", named(range)));
        let id = self.tracker().start(range);
        self.judge.started(entry);
        Detached { entry, range, id }
    }

    /// It ends.
    pub(crate) fn end(&self, detached: Detached) {
        self.judge.ending(detached.entry);
        step(|| format!("invalidate_end of {}", named(detached.range)));
        self.tracker().end(detached.id);
    }

    /// A start that a callback refused: the tracker is told of it and takes it back, and nothing changes.
    pub(crate) fn refused_start(&self, range: PageRange) {
        let entry = self.judge.starting(range);
        step(|| format!("start of {}, which will be refused", named(range)));
        let id = self.tracker().start(range);
        self.judge.started(entry);
        self.judge.ending(entry);
        step(|| format!("cancel of {}", named(range)));
        self.tracker().cancel(id);
    }

    /// What the page table says now.
    pub(crate) fn snapshot(&self) -> u64 {
        // ORDERING: Relaxed; see `content`.
        let page = self.content.load(Ordering::Relaxed);
        step(|| format!("snapshot: page {page}"));
        page
    }

    /// Begins to read, after waiting for what runs over the range.
    ///
    /// # Errors
    /// When the wait ended first.
    pub(crate) fn begin(&self, reader: &Reader, deadline: &Deadline<'_>) -> Result<Reading<'_>, Error> {
        let called = self.judge.moment();
        step(|| format!("read_begin of {}", named(reader.range)));
        let attempt = self.space.read_begin_as(reader, deadline)?;
        Ok(Reading { attempt, begun: self.judge.begun(called), range: reader.range })
    }

    /// Takes the device lock and installs `seen` if nothing collided. The judge looks at the verdict.
    pub(crate) fn commit(&self, device: usize, reading: &Reading<'_>, seen: u64) -> Outcome {
        let mut table = self.tables[device].lock();
        step(|| "device lock".into());
        let (outcome, verdict) = match table.commit(&reading.attempt) {
            Commit::Permit(permit) => {
                permit.install(seen);
                (Outcome::Installed, Verdict::Valid)
            }
            Commit::Collided(verdict) => (Outcome::Collided(verdict), verdict),
        };
        let Reading { begun, range, .. } = *reading;
        let asked = Asked { device, range, begun, seen, verdict };
        if let Some(wrong) = self.judge.wrong(&asked, self.exact) {
            let said = if verdict == Verdict::Valid { "Valid" } else { "Hit" };
            violation(format_args!("{said}: {wrong}"));
        }
        step(|| match verdict {
            Verdict::Valid => format!("Valid: install page {seen}"),
            Verdict::Hit(Some(by)) => format!("Hit by {}: go round", named(by)),
            Verdict::Hit(None) => "Hit: go round".into(),
            Verdict::Outrun => "Outrun: go round".into(),
        });
        outcome
    }

    /// One attempt of the fault side: begin, snapshot, lock, commit or collide.
    pub(crate) fn attempt(&self, device: usize, reader: &Reader, patience: Patience) -> Outcome {
        let now = CancelToken::default();
        let mut deadline = Deadline::after(LONG);
        if patience == Patience::Never {
            now.cancel();
            deadline = deadline.or_cancelled(&now);
        }
        match self.begin(reader, &deadline) {
            Ok(reading) => {
                let seen = if reader.range.overlaps(here()) { self.snapshot() } else { 0 };
                self.commit(device, &reading, seen)
            }
            Err(_) if patience == Patience::Never => {
                step(|| "would have to wait: gives up".into());
                Outcome::GaveUp
            }
            Err(error) => violation(format_args!("the wait for running invalidations failed: {error}")),
        }
    }

    /// Goes round until what was read is installed.
    pub(crate) fn fault(&self, device: usize, range: PageRange) {
        let mut reader = Reader::of(range);
        while let Outcome::Collided(verdict) = self.attempt(device, &reader, Patience::Waits) {
            reader.previous = Some(verdict);
        }
    }

    /// Nothing runs any more. What the devices hold is the page that is there, and nothing keeps a new reader waiting.
    pub(crate) fn assert_quiet(&self) {
        self.assert_coherent();
        for device in 0..self.tables.len() {
            let last = self.attempt(device, &Reader::of(here()), Patience::Never);
            require(last == Outcome::Installed, format_args!("nothing runs any more, but a new reader gets {last:?}"));
        }
        self.assert_coherent();
    }

    fn assert_coherent(&self) {
        // ORDERING: Relaxed; every thread that changed it has been waited for.
        let now = self.content.load(Ordering::Relaxed);
        for (device, table) in self.tables.iter().enumerate() {
            if let Some((range, held)) = table.lock().installed
                && range.overlaps(here())
            {
                require(held == now, format_args!("device {device} holds page {held}, but page {now} is there"));
            }
        }
    }
}
