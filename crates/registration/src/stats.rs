//! What the cache counts. Every figure is for one cache, since it was made.

use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pagemirror_core::collision::Conservative;
use pagemirror_core::gate::LostCause;
use pagemirror_core::notify::Event;
use pagemirror_sync::atomic::{AtomicU64, Ordering};
use pagemirror_sync::{LANES, Lane, Mutex};

/// What a caller of the cache had to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitCause {
    /// An overlapping invalidation was running when an attempt began.
    Invalidation,
    /// The pump had the gate raised.
    Gate,
    /// The kernel was changing memory and the pump had not read it yet.
    Probe,
    /// The device was full, and registrations had to go first.
    Room,
}

impl WaitCause {
    /// Every cause, in the order of [`Stats::waits`].
    pub const ALL: [Self; 4] = [Self::Invalidation, Self::Gate, Self::Probe, Self::Room];

    /// One word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalidation => "invalidation",
            Self::Gate => "gate",
            Self::Probe => "probe",
            Self::Room => "room",
        }
    }
}

/// Waits of one cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many there were.
    pub count: u64,
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// Invalidations that reached the cache, and the registrations that they revoked, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Invalidations {
    /// munmap, MAP_FIXED, brk.
    pub unmap: u64,
    /// mremap.
    pub remap: u64,
    /// madvise.
    pub remove: u64,
    /// Asked for by somebody.
    pub requested: u64,
    /// Registrations revoked by all of them together.
    pub revoked: u64,
}

impl Invalidations {
    pub(crate) fn count(&mut self, event: Event, revoked: u64) {
        match event {
            Event::Unmap => self.unmap += 1,
            Event::Remap => self.remap += 1,
            Event::Remove => self.remove += 1,
            _ => self.requested += 1,
        }
        self.revoked += revoked;
    }
}

/// A copy of the cache's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Leases given on a registration that was there.
    pub hits: u64,
    /// Leases that needed a registration.
    pub misses: u64,
    /// Attempts that collided: an overlapping invalidation started beside them.
    pub collisions: u64,
    /// Attempts made again, for whatever reason.
    pub retries: u64,
    /// Attempts made again though the invalidation named did not overlap. By the guarantee: none.
    pub false_retries: u64,
    /// Answers of the tracker that were safe but not exact. Shared by all caches of the address space.
    pub conservative: Conservative,
    /// Doubts that found no slot, and so put everything in doubt for a while.
    pub doubt_overflows: u64,
    /// Leases for one use because the range was in doubt.
    pub one_shots_in_doubt: u64,
    /// Leases for one use because every attempt collided.
    pub one_shots_contended: u64,
    /// Leases for one use because the cache's own limits left no room.
    pub one_shots_over_limit: u64,
    /// Registrations that are live now.
    pub entries: u64,
    /// Bytes that they cover.
    pub bytes: u64,
    /// Uses begun.
    pub uses: u64,
    /// Uses refused because a lease was stale.
    pub stale: u64,
    /// Registrations given up to make room.
    pub evictions: u64,
    /// Registrations that the device refused.
    pub register_failures: u64,
    /// Registrations that the device did not take back.
    pub deregister_failures: u64,
    /// Invalidations, by kind.
    pub invalidations: Invalidations,
    /// Waits by cause, in the order of [`WaitCause::ALL`].
    pub waits: [Waits; 4],
    /// Why coherence was lost, if it was.
    pub lost: Option<LostCause>,
}

/// The longest wait that is told apart from longer ones, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// The counters themselves.
pub(crate) struct Counters {
    /// What hits count, by lane: no two threads write the same line.
    lanes: Box<[LaneCounters]>,
    pub(crate) misses: AtomicU64,
    pub(crate) collisions: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) false_retries: AtomicU64,
    pub(crate) one_shots_in_doubt: AtomicU64,
    pub(crate) one_shots_contended: AtomicU64,
    pub(crate) one_shots_over_limit: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) register_failures: AtomicU64,
    pub(crate) deregister_failures: AtomicU64,
    /// Taken only by who has just waited.
    waits: [Mutex<Option<Histogram<u64>>>; 4],
}

#[derive(Default)]
#[repr(align(128))]
struct LaneCounters {
    hits: AtomicU64,
    uses: AtomicU64,
}

/// Adds one in this thread's lane.
#[inline]
fn count_in(lane: Lane, counter: &AtomicU64) {
    // ORDERING: Relaxed; a statistic. In a lane of its own nobody else writes.
    if lane.is_exclusive() {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    } else {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Adds one. All counters are statistics: nothing is decided by them.
pub(crate) fn count(counter: &AtomicU64) {
    // ORDERING: Relaxed; a statistic.
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        // Two significant digits: a wait is told to 1 %. Bounds that cannot fail; if they did, waits are not recorded.
        let waits = || Mutex::new(Histogram::new_with_bounds(1, LONGEST, 2).ok());
        Self {
            lanes: (0..LANES).map(|_| LaneCounters::default()).collect(),
            misses: zero(),
            collisions: zero(),
            retries: zero(),
            false_retries: zero(),
            one_shots_in_doubt: zero(),
            one_shots_contended: zero(),
            one_shots_over_limit: zero(),
            stale: zero(),
            evictions: zero(),
            register_failures: zero(),
            deregister_failures: zero(),
            waits: [waits(), waits(), waits(), waits()],
        }
    }

    #[inline]
    pub(crate) fn hit(&self, lane: Lane) {
        count_in(lane, &self.lanes[lane.index()].hits);
    }

    #[inline]
    pub(crate) fn used(&self, lane: Lane) {
        count_in(lane, &self.lanes[lane.index()].uses);
    }

    /// Records a wait that began at `since` and is over.
    pub(crate) fn waited(&self, cause: WaitCause, since: Instant) {
        let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(LONGEST);
        if let Some(histogram) = self.waits[cause as usize].lock().as_mut() {
            histogram.saturating_record(nanos);
        }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        // ORDERING: Relaxed; statistics.
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            hits: self.lanes.iter().map(|lane| load(&lane.hits)).sum(),
            misses: load(&self.misses),
            collisions: load(&self.collisions),
            retries: load(&self.retries),
            false_retries: load(&self.false_retries),
            one_shots_in_doubt: load(&self.one_shots_in_doubt),
            one_shots_contended: load(&self.one_shots_contended),
            one_shots_over_limit: load(&self.one_shots_over_limit),
            uses: self.lanes.iter().map(|lane| load(&lane.uses)).sum(),
            stale: load(&self.stale),
            evictions: load(&self.evictions),
            register_failures: load(&self.register_failures),
            deregister_failures: load(&self.deregister_failures),
            waits: [0, 1, 2, 3].map(|cause| self.waits_of(cause)),
            ..Stats::default()
        }
    }

    fn waits_of(&self, cause: usize) -> Waits {
        let histogram = self.waits[cause].lock();
        let Some(histogram) = histogram.as_ref().filter(|histogram| !histogram.is_empty()) else {
            return Waits::default();
        };
        let at = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
        Waits { count: histogram.len(), p50: at(0.5), p99: at(0.99), max: Duration::from_nanos(histogram.max()) }
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}
