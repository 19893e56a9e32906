//! The cache itself: made over a source and a registrar, asked for leases.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::device::DeviceTable;
use pagemirror_core::gate::LostCause;
use pagemirror_core::notify::Event;
use pagemirror_core::source::Source;
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::Deadline;
use pagemirror_sync::{Arc, lane, thread};

use crate::error::Error;
use crate::fetch::{Fetches, Get};
use crate::hints::Hints;
use crate::index::Index;
use crate::journal::{Cause, RECORDS, Taken};
use crate::lease::{Kind, Lease};
use crate::registrar::{Access, Registrar};
use crate::registry::{Leased, Registry};
use crate::stats::{Counters, Stats, count};
use crate::worker::{self, Bell, Deregistrations};

/// How fresh a use is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Freshness {
    /// No use that starts after a change has *returned* gets the old pages, and no use of addresses that another thread
    /// was given *before* it returned does either. Costs one system call for each use.
    #[default]
    Strict,
    /// Only the first half: for callers that never use an address before the call that freed it has returned, in any
    /// thread. An allocator shared by threads does not keep to that.
    Ordered,
}

/// How a cache behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How fresh its uses are.
    pub freshness: Freshness,
    /// Attempts before a miss is served once without being cached. At least one.
    pub max_collisions: u32,
    /// Registrations that are kept at most. A miss beyond evicts what was not asked for lately and nobody holds; when everything is
    /// held, it is served once without being cached.
    pub max_entries: usize,
    /// Bytes that they cover at most, by the same rule. Ranges that overlap count each.
    pub max_bytes: u64,
}

impl Default for Options {
    /// Strict; eight attempts: a range that is invalidated eight times while it is being registered is not worth caching. No
    /// limits but the device's own.
    fn default() -> Self {
        Self { freshness: Freshness::Strict, max_collisions: 8, max_entries: usize::MAX, max_bytes: u64::MAX }
    }
}

/// How long dropping a cache waits for its worker to let go of what nobody uses.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

pub(crate) struct Shared<R: Registrar> {
    pub(crate) source: Arc<dyn Source>,
    page_size: u64,
    pub(crate) registrar: R,
    pub(crate) registry: Arc<Registry<R::Key>>,
    hints: Hints,
    pub(crate) table: DeviceTable<Index<R::Key>>,
    pub(crate) options: Options,
    pub(crate) counters: Counters,
    pub(crate) bell: Arc<Bell>,
    pub(crate) deregistrations: Deregistrations<R::Key>,
    pub(crate) fetches: Arc<Fetches>,
}

/// Registrations of ordinary process memory that follow what the process does to it. See the crate's text.
pub struct RegistrationCache<R: Registrar> {
    pub(crate) shared: Arc<Shared<R>>,
    worker: Option<thread::JoinHandle<()>>,
}

impl<R: Registrar> RegistrationCache<R> {
    /// A cache of what `registrar` registers, told by `source` what changes. Starts its worker.
    ///
    /// # Errors
    /// When the worker's thread cannot be started.
    pub fn new(source: Arc<dyn Source>, registrar: R, options: Options) -> io::Result<Self> {
        let bell = Arc::new(Bell::new());
        let registry = Arc::new(Registry::new());
        let table = DeviceTable::new(source.space(), Index::new(Arc::clone(&registry), Arc::clone(&bell)));
        let (counters, deregistrations) = (Counters::new(), Deregistrations::new());
        let fetches = Arc::new(Fetches::new());
        let options = Options { max_collisions: options.max_collisions.max(1), ..options };
        let (page_size, hints) = (source.page_size(), Hints::new());
        let shared = Shared {
            source,
            page_size,
            registrar,
            registry,
            hints,
            table,
            options,
            counters,
            bell,
            deregistrations,
            fetches,
        };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let worker = thread::Builder::new().name("pagemirror-dereg".into()).spawn(move || worker::run(&theirs))?;
        Ok(Self { shared, worker: Some(worker) })
    }

    /// A lease on a registration that covers the `len` bytes at `address`, for the device to `access` them.
    ///
    /// On a hit nothing is registered. On a miss the range, rounded to whole pages, is registered and kept, unless it is
    /// in doubt or collided with invalidations too often: then the lease serves one use.
    ///
    /// # Errors
    /// [`Error::Range`] when it is no range; [`Error::Watch`] when it cannot be kept coherent, and why;
    /// [`Error::Register`] when the device refused, with its error number; [`Error::Wait`] or [`Error::Contended`] when
    /// the deadline passed; [`Error::Wait`] when coherence is lost. Nothing is cached then.
    ///
    /// # Blocking
    /// Sleeps while overlapping invalidations run, while the device registers, and while it has no room. Not inside a
    /// submission.
    #[inline(always)]
    pub fn get(
        &self,
        address: VirtAddr,
        len: u64,
        access: Access,
        deadline: &Deadline<'_>,
    ) -> Result<Lease<'_, R>, Error> {
        let shared = &self.shared;
        let range = shared.range(address, len)?;
        if let Some(leased) = shared.find_by_hint(range, access) {
            return Ok(Lease::cached(shared, range, access, leased));
        }
        // Put together here, so that the way of a hit builds its lease in registers.
        match shared.get_by_index(range, access, deadline) {
            Ok(kind) => Ok(Lease { kind, range, access, shared }),
            Err(error) => Err(error),
        }
    }

    /// A lease on a registration that is there already. `None` when there is none: nothing is registered, and nothing is waited
    /// for but the device lock, which is held for moments.
    ///
    /// # Errors
    /// [`Error::Range`] when it is no range; [`Error::Wait`] when coherence is lost.
    pub fn try_get(&self, address: VirtAddr, len: u64, access: Access) -> Result<Option<Lease<'_, R>>, Error> {
        let shared = &self.shared;
        let range = shared.range(address, len)?;
        Ok(shared.find(range, access).map(|leased| Lease::cached(shared, range, access, leased)))
    }

    /// [`get`](Self::get) for an asynchronous program, with any executor, waiting for at most `limit`. A hit is ready at once;
    /// a miss is made by a thread of the cache, which is started with the first one and serves one after the other. Dropping
    /// the future cancels it.
    pub fn get_async(&self, address: VirtAddr, len: u64, access: Access, limit: Duration) -> Get<'_, R> {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let range = self.shared.range(address, len);
        Get::new(&self.shared, range, access, Instant::now() + limit.min(YEAR))
    }

    /// Registers the `len` bytes at `address` ahead of their first use. Says whether they are cached now: not when the range is
    /// in doubt, collides too often, or finds no room.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Blocking
    /// As [`get`](Self::get).
    pub fn prefetch(
        &self,
        address: VirtAddr,
        len: u64,
        access: Access,
        deadline: &Deadline<'_>,
    ) -> Result<bool, Error> {
        self.get(address, len, access, deadline).map(|lease| !lease.is_one_shot())
    }

    /// Gives up every registration that overlaps the `len` bytes at `address`, as an invalidation does.
    ///
    /// # Errors
    /// When it is no range.
    ///
    /// # Blocking
    /// Waits for the device locks of all caches of the address space. Not inside a submission.
    pub fn evict(&self, address: VirtAddr, len: u64) -> Result<(), Error> {
        let range = PageRange::covering(address, len, self.shared.source.page_size())?;
        drop(self.shared.space().invalidate_start(range, Event::Requested));
        Ok(())
    }

    /// Gives up every registration, and goes on. What is in use is let go when its last use was given back.
    ///
    /// # Blocking
    /// Takes the device lock for some nanoseconds for each registration. Not inside a submission.
    pub fn flush(&self) {
        self.shared.table.lock().take_away(PageRange::ALL, Cause::Flushed);
    }

    /// Why registrations of the `len` bytes at `address` are gone: the last ones that ended, the oldest first, each with what
    /// ended it and when. Which thread called is known to nobody: the kernel does not say.
    ///
    /// # Errors
    /// When it is no range.
    ///
    /// # Blocking
    /// Holds the device lock for some microseconds. Not inside a submission.
    pub fn explain(&self, address: VirtAddr, len: u64) -> Result<Vec<Taken>, Error> {
        let range = PageRange::covering(address, len, self.shared.page_size)?;
        let mut known = Vec::with_capacity(RECORDS);
        self.shared.table.lock().explain(range, &mut known);
        Ok(known)
    }

    /// A copy of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let space = self.shared.space();
        let table = self.shared.table.lock();
        let (invalidations, entries, bytes) = (table.invalidations(), table.len() as u64, table.bytes());
        drop(table);
        Stats {
            conservative: pagemirror_core::collision::CollisionTracker::conservative(space.tracker()),
            doubt_overflows: space.doubt().overflows(),
            invalidations,
            entries,
            bytes,
            lost: space.gate().lost(),
            ..self.shared.counters.snapshot()
        }
    }

    /// The device.
    #[must_use]
    pub fn registrar(&self) -> &R {
        &self.shared.registrar
    }
}

impl<R: Registrar> Shared<R> {
    /// A lease, when there is no hint where to find the registration: there may be one all the same.
    #[cold]
    #[inline(never)]
    pub(crate) fn get_by_index(
        &self,
        range: PageRange,
        access: Access,
        deadline: &Deadline<'_>,
    ) -> Result<Kind<'_>, Error> {
        if let Some(leased) = self.find_in_index(range, access) {
            return Ok(Kind::Cached(leased));
        }
        count(&self.counters.misses);
        let kind = self.fault(range, access, deadline)?;
        if let Kind::Cached(leased) = &kind {
            self.file_hint(range, *leased);
        }
        Ok(kind)
    }

    /// The pages that are asked for, while coherence is not lost.
    #[inline(always)]
    fn range(&self, address: VirtAddr, len: u64) -> Result<PageRange, Error> {
        let range = PageRange::covering(address, len, self.page_size)?;
        match self.space().gate().lost() {
            None => Ok(range),
            Some(cause) => Err(Error::lost(range, cause)),
        }
    }

    /// A lease on what is there already.
    pub(crate) fn find(&self, range: PageRange, access: Access) -> Option<Leased<'_>> {
        self.find_by_hint(range, access).or_else(|| self.find_in_index(range, access))
    }

    #[inline(always)]
    fn find_by_hint(&self, range: PageRange, access: Access) -> Option<Leased<'_>> {
        let lane = lane();
        let found = self.hints.find(range.start(), |id| self.registry.lease(lane, id, range, access))?;
        self.counters.hit(lane);
        Some(found)
    }

    /// Asks the index, under the device lock, and leaves a hint.
    fn find_in_index(&self, range: PageRange, access: Access) -> Option<Leased<'_>> {
        let found = self.table.lock().find(&self.registry, range, access)?;
        self.counters.hit(lane());
        self.file_hint(range, found);
        Some(found)
    }

    fn file_hint(&self, range: PageRange, leased: Leased<'_>) {
        let stands = |id| self.registry.places.get(id).is_some_and(|place| place.state().is_live());
        self.hints.file(range.start(), leased.id(), stands);
    }

    pub(crate) fn space(&self) -> &AddressSpace {
        self.table.space()
    }
}

impl<R: Registrar> RegistrationCache<R> {
    /// Gives up every registration and waits until the device has let go of all of them. Says whether it has: not when a
    /// use is still under way at the deadline. Then the worker goes on until the last one is given back.
    ///
    /// # Blocking
    /// Sleeps until the last use is given back. Not inside a submission.
    pub fn close(mut self, limit: Duration) -> bool {
        self.give_up();
        let deregistrations = &self.shared.deregistrations;
        deregistrations.ended().wait_at_most(limit, || deregistrations.is_closed());
        self.join_worker()
    }

    /// Joins the worker if it has let everything go, so that it holds nothing of the registrar's any more.
    fn join_worker(&mut self) -> bool {
        let closed = self.shared.deregistrations.is_closed();
        if closed && let Some(worker) = self.worker.take() {
            // A worker that panicked has nothing to say here: the registrar's panic was printed when it happened.
            let _ = worker.join();
        }
        closed
    }

    fn give_up(&self) {
        self.shared.fetches.close();
        self.flush();
        self.shared.deregistrations.close();
        self.shared.bell.ring();
    }
}

/// As [`close`](RegistrationCache::close), waiting at most a moment, and not at all while uses or leases are held.
impl<R: Registrar> Drop for RegistrationCache<R> {
    fn drop(&mut self) {
        self.give_up();
        let deregistrations = &self.shared.deregistrations;
        // The cache and its worker hold one each; whoever holds another may hold a use.
        let in_use = || Arc::strong_count(&self.shared) > 2;
        // A model checker has no clock, and there the worker ends by itself; a forked child has no worker.
        let forked = self.shared.space().gate().lost() == Some(LostCause::Forked);
        if !cfg!(any(loom, shuttle)) && !forked {
            deregistrations.ended().wait_at_most(CLOSE_LIMIT, || deregistrations.is_closed() || in_use());
            self.join_worker();
        }
    }
}

impl<R: Registrar> fmt::Debug for RegistrationCache<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
