//! The journal says by what, where and when a registration was taken away.
#![cfg(not(any(loom, shuttle)))]

mod model;

use std::time::Instant;

use model::{Device, PAGE, Process, Slots, address, soon};
use pagemirror_core::addr::PageRange;
use pagemirror_core::notify::Event;
use pagemirror_core::source::Source;
use pagemirror_core::turn::{Batch, TurnOrder};
use pagemirror_registration::{Access, Cause, Options, RegistrationCache};
use pagemirror_sync::Arc;

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(address(first), count * PAGE, PAGE).unwrap()
}

fn cache_of(process: &Arc<Process>, slots: usize) -> RegistrationCache<Slots> {
    let device = Device::new(process, slots);
    RegistrationCache::new(Arc::clone(process) as Arc<dyn Source>, Slots(device), Options::default()).unwrap()
}

/// One turn of the pump that reads one event.
fn pump(process: &Process, event: Event, range: PageRange) {
    let read = |batch: &mut Batch| assert!(batch.push(event, range), "the batch has room");
    process.space().turn(TurnOrder::GateFirst, &mut Batch::default(), 1_000, read);
}

fn register(cache: &RegistrationCache<Slots>, first: u64, count: u64) {
    drop(cache.get(address(first), count * PAGE, Access::Read, &soon()).unwrap());
}

#[test]
fn a_provoked_invalidation_is_explained_by_kind_range_and_time() {
    let process = Process::new(16);
    let cache = cache_of(&process, 16);
    for (event, first) in [(Event::Unmap, 0), (Event::Remap, 4), (Event::Requested, 8), (Event::Remove, 12)] {
        register(&cache, first, 4);
        let before = Instant::now();
        pump(&process, event, pages(first + 1, 1));
        let after = Instant::now();
        // Asked about a page of the registration that was not itself invalidated.
        let known = cache.explain(address(first + 3), PAGE).unwrap();
        assert_eq!(known.len(), 1, "{event:?}: {known:?}");
        assert_eq!(known[0].registration, pages(first, 4));
        assert_eq!(known[0].cause, Cause::Invalidated { event, range: pages(first + 1, 1) });
        assert!(before <= known[0].at && known[0].at <= after, "{event:?}");
    }
    assert_eq!(cache.explain(address(0), 16 * PAGE).unwrap().len(), 4);
}

#[test]
fn what_took_nothing_away_is_not_blamed() {
    let process = Process::new(8);
    let cache = cache_of(&process, 8);
    register(&cache, 0, 2);
    pump(&process, Event::Unmap, pages(2, 1));
    assert_eq!(cache.explain(address(0), 8 * PAGE).unwrap(), []);
    pump(&process, Event::Unmap, pages(1, 2));
    pump(&process, Event::Unmap, pages(0, 1));
    let known = cache.explain(address(0), PAGE).unwrap();
    assert_eq!(known.len(), 1, "the second one found nothing any more: {known:?}");
    assert!(known[0].to_string().contains("0x100000, 0x102000) was taken away by munmap"), "{}", known[0]);
}

#[test]
fn evictions_and_flushes_are_told_from_invalidations() {
    let process = Process::new(4);
    let cache = cache_of(&process, 1);
    register(&cache, 0, 1);
    register(&cache, 1, 1);
    cache.flush();
    let causes = |page| cache.explain(address(page), PAGE).unwrap().iter().map(|taken| taken.cause).collect::<Vec<_>>();
    assert_eq!((causes(0), causes(1)), (vec![Cause::Evicted], vec![Cause::Flushed]));
    register(&cache, 1, 1);
    cache.evict(address(1), PAGE).unwrap();
    let asked = Cause::Invalidated { event: Event::Requested, range: pages(1, 1) };
    assert_eq!(causes(1), [Cause::Flushed, asked]);
}
