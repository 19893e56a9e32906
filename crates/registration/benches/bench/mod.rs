//! What the benches share: a device that does nothing, a process that never changes, and a clock of the thread's own time.

#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod ucx;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::device::{DeviceTable, Granted, Mappings};
use pagemirror_core::interval::{IntervalIndex, Spare};
use pagemirror_core::notify::Event;
use pagemirror_core::source::{Probe, Source, WatchError, Watched};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::Deadline;
use pagemirror_registration::{Access, Freshness, Options, RegisterError, Registrar, RegistrationCache};
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::{AtomicU32, Ordering};
use rustix::time::{ClockId, clock_gettime};

pub(crate) const PAGE: u64 = 4096;
/// Registrations lie this far apart, so that neighbours never merge and every second page is free.
pub(crate) const STRIDE: u64 = 2 * PAGE;
const BASE: u64 = 0x1000_0000;

/// A device whose registrations cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Nothing(AtomicU32);

impl Registrar for Nothing {
    type Key = u32;
    fn register(&self, _: PageRange, _: Access) -> Result<u32, RegisterError> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed))
    }
    fn deregister(&self, _: u32) -> Result<(), RegisterError> {
        Ok(())
    }
}

/// A process whose memory never changes.
#[derive(Debug, Default)]
pub(crate) struct Still(Arc<AddressSpace>);

impl Source for Still {
    fn space(&self) -> &Arc<AddressSpace> {
        &self.0
    }
    fn page_size(&self) -> u64 {
        PAGE
    }
    fn probe(&self) -> Probe {
        Probe::Quiet
    }
    fn watch(&self, _: PageRange) -> Result<Watched, WatchError> {
        Ok(Watched::Covered)
    }
}

pub(crate) type Cache = RegistrationCache<Nothing>;

pub(crate) fn address(region: u64) -> VirtAddr {
    VirtAddr::new(BASE + region * STRIDE)
}

pub(crate) fn deadline() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(3600))
}

/// A cache with `regions` registrations of one page each.
pub(crate) fn filled(regions: u64, freshness: Freshness) -> Cache {
    let cache = RegistrationCache::new(
        Arc::new(Still::default()),
        Nothing::default(),
        Options { freshness, ..Options::default() },
    )
    .expect("the worker starts");
    for region in 0..regions {
        drop(cache.get(address(region), PAGE, Access::Read, &deadline()).expect("nothing refuses"));
    }
    cache
}

/// One use of one region, from `get` to giving everything back.
#[inline]
pub(crate) fn hit(cache: &Cache, region: u64, deadline: &Deadline<'_>) -> u32 {
    let lease = cache.get(address(region), PAGE, Access::Read, deadline).expect("it is cached");
    let (using, key) = cache.begin(&[&lease], deadline, |registered| registered[0].key).expect("nothing changes");
    using.complete();
    key
}

/// The same by the call that does all of it.
#[inline]
pub(crate) fn hit_at(cache: &Cache, region: u64, deadline: &Deadline<'_>) -> u32 {
    let (using, key) = cache
        .begin_at(address(region), PAGE, Access::Read, deadline, |registered| registered.key)
        .expect("nothing changes");
    using.complete();
    key
}

/// The free page behind a region.
pub(crate) fn between(region: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(address(region).get() + PAGE), PAGE, PAGE).expect("it is a range")
}

/// The pages from one region on, up to the last one of `count`.
pub(crate) fn spanning(region: u64, count: u64) -> PageRange {
    PageRange::covering(address(region), count * STRIDE, PAGE).expect("it is a range")
}

/// The core's part of an invalidation: the log, and a device table that is nothing but the index.
#[derive(Debug)]
pub(crate) struct CoreTable {
    space: Arc<AddressSpace>,
    table: DeviceTable<Ranges>,
}

#[derive(Debug)]
struct Ranges(IntervalIndex<u32>);

impl Mappings for Ranges {
    type Item = u32;
    fn install(&mut self, _: Granted, range: PageRange, item: u32) {
        self.0.insert(range, item);
    }
    fn revoke(&mut self, range: PageRange, _: Event) {
        self.0.retire_overlapping(range, |_| ());
    }
}

impl CoreTable {
    pub(crate) fn filled(regions: u64) -> Self {
        let space = Arc::new(AddressSpace::default());
        let mut index = IntervalIndex::default();
        drop(index.reserve_from(Spare::with_capacity(regions as usize)));
        let table = Self { table: DeviceTable::new(&space, Ranges(index)), space };
        // In random order, so that neighbours are not neighbours in memory.
        let mut regions: Vec<u64> = (0..regions).collect();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for last in (1..regions.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            regions.swap(last, (random % (last as u64 + 1)) as usize);
        }
        for region in regions {
            table.refill(region, 1);
        }
        table
    }

    pub(crate) fn invalidate(&self, range: PageRange) {
        drop(self.space.invalidate_start(range, Event::Unmap));
    }

    /// Puts `count` regions in that are not there.
    pub(crate) fn refill(&self, first: u64, count: u64) {
        let mut table = self.table.lock();
        while table.0.take_retired().is_some() {}
        for region in first..first + count {
            let range = PageRange::covering(address(region), PAGE, PAGE).expect("it is a range");
            table.0.insert(range, region as u32);
        }
    }
}

/// What a program has that writes its own cache: a map behind a lock, and a count of users in it. It follows no change.
#[derive(Debug, Default)]
pub(crate) struct MutexMap(Mutex<BTreeMap<u64, (u64, u32, u32)>>);

impl MutexMap {
    pub(crate) fn filled(regions: u64) -> Self {
        let region = |region| (address(region).get(), (address(region).get() + PAGE, region as u32, 0));
        Self(Mutex::new((0..regions).map(region).collect()))
    }

    /// Finds, counts a use, and gives it back.
    #[inline]
    pub(crate) fn hit(&self, region: u64) -> u32 {
        let start = address(region).get();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, found) = map.range_mut(..=start).next_back().expect("it is cached");
        assert!(found.0 >= start + PAGE);
        found.2 += 1;
        let key = found.1;
        drop(map);
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = map.range_mut(..=start).next_back() {
            found.2 -= 1;
        }
        key
    }
}

/// A global sequence count over a map behind a lock for reading and writing: a hit is a lookup between two looks at the
/// count. It counts no uses, so nothing tells when pages may go.
#[derive(Debug, Default)]
pub(crate) struct GlobalSequence {
    sequence: AtomicU32,
    map: std::sync::RwLock<BTreeMap<u64, (u64, u32)>>,
}

impl GlobalSequence {
    pub(crate) fn filled(regions: u64) -> Self {
        let region = |region| (address(region).get(), (address(region).get() + PAGE, region as u32));
        Self { sequence: AtomicU32::new(0), map: std::sync::RwLock::new((0..regions).map(region).collect()) }
    }

    #[inline]
    pub(crate) fn hit(&self, region: u64) -> u32 {
        let start = address(region).get();
        loop {
            // ORDERING: Acquire, as a sequence count is read; nothing writes in this bench.
            let before = self.sequence.load(Ordering::Acquire);
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            let (_, found) = map.range(..=start).next_back().expect("it is cached");
            assert!(found.0 >= start + PAGE);
            let key = found.1;
            drop(map);
            if self.sequence.load(Ordering::Acquire) == before {
                return key;
            }
        }
    }
}

/// The order in which regions are asked for: random, the same in every run.
pub(crate) fn order(regions: u64) -> Vec<u32> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % regions) as u32
    };
    (0..1 << 18).map(next).collect()
}

/// The time that this thread has run.
pub(crate) fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Nanoseconds of the thread's own time for one call of `each`, over at least 10 ms, after a round that is not measured.
pub(crate) fn nanos(order: &[u32], mut each: impl FnMut(u64)) -> f64 {
    let mut round = || order.iter().for_each(|region| each(u64::from(*region)));
    round();
    let (begun, mut calls) = (thread_time(), 0_u64);
    loop {
        round();
        calls += order.len() as u64;
        let spent = thread_time() - begun;
        if spent > Duration::from_millis(10) {
            return spent.as_nanos() as f64 / calls as f64;
        }
    }
}

/// Samples of one figure, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * quantile).round() as usize]
    }
    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8.1} ({:.1} to {:.1})", self.median(), self.at(0.1), self.at(0.9))
    }
}
