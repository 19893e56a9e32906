//! Limits, and which registration serves which request.
#![cfg(not(any(loom, shuttle)))]

mod model;

use std::time::Duration;

use model::{Device, PAGE, Process, Slots, address, soon};
use pagemirror_core::error::Error as CoreError;
use pagemirror_core::notify::Event;
use pagemirror_core::source::Source;
use pagemirror_core::wait::{CancelToken, Deadline};
use pagemirror_registration::{Access, Error, Lease, Options, RegistrationCache};
use pagemirror_sync::{Arc, thread};

fn cache_with(process: &Arc<Process>, options: Options) -> (Arc<Device>, RegistrationCache<Slots>) {
    let device = Device::new(process, 64);
    let source = Arc::clone(process) as Arc<dyn Source>;
    (Arc::clone(&device), RegistrationCache::new(source, Slots(device), options).unwrap())
}

fn get(cache: &RegistrationCache<Slots>, first: u64, count: u64) -> Lease<'_, Slots> {
    cache.get(address(first), count * PAGE, Access::Read, &soon()).unwrap()
}

fn is_cached(cache: &RegistrationCache<Slots>, page: u64) -> bool {
    cache.try_get(address(page), PAGE, Access::Read).unwrap().is_some()
}

#[test]
fn entries_are_limited_and_what_was_not_asked_for_lately_goes_first() {
    let process = Process::new(8);
    let (_device, cache) = cache_with(&process, Options { max_entries: 3, ..Options::default() });
    (0..3).for_each(|page| drop(get(&cache, page, 1)));
    drop(get(&cache, 3, 1)); // one of three that are equal goes
    let before: Vec<_> = (0..4).filter(|page| is_cached(&cache, *page)).collect();
    assert_eq!((before.len(), cache.stats().entries, cache.stats().evictions), (3, 3, 1));
    drop(get(&cache, 4, 1)); // again all were asked for, by the look just now: one goes, the marks of the others with it
    let stays = (0..4).find(|page| is_cached(&cache, *page)).unwrap(); // asked for since
    drop(get(&cache, 5, 1));
    assert!(is_cached(&cache, stays), "{stays} was asked for lately, others were not");
    assert_eq!(cache.stats().entries, 3);
}

#[test]
fn bytes_are_limited_and_what_can_never_fit_is_served_once() {
    let process = Process::new(16);
    let (_device, cache) = cache_with(&process, Options { max_bytes: 4 * PAGE, ..Options::default() });
    drop(get(&cache, 0, 3));
    drop(get(&cache, 4, 2));
    assert_eq!((cache.stats().entries, cache.stats().bytes, cache.stats().evictions), (1, 2 * PAGE, 1));
    assert!(get(&cache, 0, 5).is_one_shot());
    assert!(is_cached(&cache, 4), "nothing was evicted for what can never fit");
    cache.evict(address(4), PAGE).unwrap();
    assert_eq!((cache.stats().bytes, cache.stats().one_shots_over_limit), (0, 1));
}

#[test]
fn what_is_held_is_never_evicted_for_a_limit() {
    let process = Process::new(8);
    let (device, cache) = cache_with(&process, Options { max_entries: 2, ..Options::default() });
    let leased = get(&cache, 0, 1);
    let (using, ()) = cache.begin_at(address(1), PAGE, Access::Read, &soon(), |_| ()).unwrap();
    let beyond = get(&cache, 2, 1);
    assert!(beyond.is_one_shot() && !leased.is_stale() && is_cached(&cache, 1));
    assert!(!cache.prefetch(address(3), PAGE, Access::Read, &soon()).unwrap(), "there is no room to prefetch into");
    let (once, key) = cache.begin(&[&beyond], &soon(), |registered| registered[0].key).unwrap();
    assert_eq!(device.slot(key).map(|pinned| pinned.page), Some(2), "served all the same");
    once.complete();
    using.complete();
    assert!(cache.prefetch(address(2), PAGE, Access::Read, &soon()).unwrap(), "the used one may go now");
    assert!(!leased.is_stale() && !is_cached(&cache, 1));
}

/// More leases and uses than a lane has slots for are held all the same.
#[test]
fn hundreds_of_leases_and_uses_of_one_thread_hold_what_they_name() {
    let process = Process::new(300);
    let device = Device::new(&process, 300);
    let source = Arc::clone(&process) as Arc<dyn Source>;
    let cache = RegistrationCache::new(source, Slots(Arc::clone(&device)), Options::default()).unwrap();
    let leases: Vec<_> = (0..200).map(|page| get(&cache, page, 1)).collect();
    let uses: Vec<_> = (200..300)
        .map(|page| cache.begin_at(address(page), PAGE, Access::Read, &soon(), |_| ()).unwrap().0.into_owned())
        .collect();
    let brief = Deadline::after(Duration::from_millis(50));
    assert!(cache.get(address(0), 2 * PAGE, Access::Read, &brief).is_err(), "the device is full of what is held");
    assert!(leases.iter().all(|lease| !lease.is_stale()) && cache.stats().evictions == 0);
    cache.flush();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(device.in_use(), 100, "leases do not keep what was flushed, uses do");
    // Given back on another thread.
    thread::spawn(move || drop(uses)).join().unwrap();
    drop(leases);
    for _ in 0..400 {
        if device.in_use() == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} are held by nobody, and were never let go", device.in_use());
}

#[test]
fn registrations_neither_merge_nor_split() {
    let process = Process::new(16);
    let (device, cache) = cache_with(&process, Options::default());
    drop(get(&cache, 0, 4));
    drop(get(&cache, 2, 4)); // overlaps: registered beside it, whole
    assert_eq!((device.in_use(), cache.stats().entries, cache.stats().bytes), (2, 2, 8 * PAGE));
    drop(get(&cache, 3, 1)); // within both: served by one of them
    assert_eq!(cache.stats().entries, 2);
    cache.evict(address(5), PAGE).unwrap(); // a part of the second: all of it goes
    assert!(is_cached(&cache, 3) && !is_cached(&cache, 4));
    assert_eq!(cache.stats().bytes, 4 * PAGE);
}

#[test]
fn several_caches_on_one_source_are_all_told() {
    let process = Process::new(4);
    let (_, one) = cache_with(&process, Options::default());
    let (_, other) = cache_with(&process, Options::default());
    let (first, second) = (get(&one, 0, 2), get(&other, 1, 2));
    drop(process.space().invalidate_start(Process::page(1), Event::Unmap));
    assert!(first.is_stale() && second.is_stale());
    drop((first, second));
    assert!(one.close(Duration::from_secs(20)), "closing one");
    let lease = get(&other, 0, 1);
    other.begin(&[&lease], &soon(), |_| ()).unwrap().0.complete(); // leaves the other alone
    drop(process.space().invalidate_start(Process::page(0), Event::Unmap));
    assert!(lease.is_stale());
}

#[test]
fn try_get_and_cancellation_do_not_wait() {
    let process = Process::new(2);
    let (device, cache) = cache_with(&process, Options::default());
    assert!(!is_cached(&cache, 0), "nothing was registered for asking");
    assert_eq!(device.in_use(), 0);
    let _running = process.space().invalidate_start(Process::page(0), Event::Requested);
    let token = CancelToken::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            token.cancel();
        });
        let error = cache.get(address(0), PAGE, Access::Read, &soon().or_cancelled(&token)).unwrap_err();
        assert!(matches!(error, Error::Wait(CoreError::Cancelled { .. })), "{error}");
    });
}
