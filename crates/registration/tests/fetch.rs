//! `get_async` with the smallest executor there is.
#![cfg(not(any(loom, shuttle)))]

mod model;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use model::{Device, PAGE, Process, Slots, address, soon};
use pagemirror_core::error::Error as CoreError;
use pagemirror_core::notify::Event;
use pagemirror_core::source::Source;
use pagemirror_registration::{Access, Error, Options, RegistrationCache};
use pagemirror_sync::Arc;

const LIMIT: Duration = Duration::from_secs(20);

struct Unpark(Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Runs a future, and says how often it was woken.
fn block_on<F: Future>(future: F) -> (F::Output, usize) {
    let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return (output, unpark.1.load(Ordering::SeqCst)),
            Poll::Pending => thread::park(),
        }
    }
}

fn cache_of(process: &Arc<Process>, slots: usize) -> (Arc<Device>, RegistrationCache<Slots>) {
    let device = Device::new(process, slots);
    let source = Arc::clone(process) as Arc<dyn Source>;
    (Arc::clone(&device), RegistrationCache::new(source, Slots(device), Options::default()).unwrap())
}

#[test]
fn a_miss_is_made_elsewhere_and_a_hit_is_ready_at_once() {
    let process = Process::new(2);
    let (device, cache) = cache_of(&process, 4);
    let (lease, woken) = block_on(cache.get_async(address(0), PAGE, Access::Read, LIMIT));
    let lease = lease.unwrap();
    assert_eq!((woken, device.in_use(), cache.stats().misses), (1, 1, 1));
    let (using, ()) = cache.begin(&[&lease], &soon(), |_| ()).unwrap();
    using.complete();
    let (again, woken) = block_on(cache.get_async(address(0), PAGE, Access::Read, LIMIT));
    assert!(again.is_ok() && woken == 0, "a hit asks nobody");
    let (error, _) = block_on(cache.get_async(address(0), 0, Access::Read, LIMIT));
    assert!(matches!(error, Err(Error::Range(_))));
}

#[test]
fn what_is_in_doubt_is_good_for_one_use() {
    let process = Process::new(1);
    let (device, cache) = cache_of(&process, 4);
    process.space().doubt().set(Process::page(0));
    let lease = block_on(cache.get_async(address(0), PAGE, Access::Read, LIMIT)).0.unwrap();
    assert!(lease.is_one_shot() && device.in_use() == 0);
    cache.begin(&[&lease], &soon(), |_| ()).unwrap().0.complete();
    assert_eq!(cache.stats().one_shots_in_doubt, 1, "counted once");
}

#[test]
fn the_limit_is_kept_and_dropping_cancels() {
    let process = Process::new(2);
    let (_device, cache) = cache_of(&process, 4);
    let running = process.space().invalidate_start(Process::page(0), Event::Requested);
    let begun = Instant::now();
    let (error, _) = block_on(cache.get_async(address(0), PAGE, Access::Read, Duration::from_millis(30)));
    assert!(matches!(error, Err(Error::Wait(CoreError::TimedOut { .. }))), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_millis(30));
    // Asked for, dropped; and the fetcher is free for the next one although the invalidation still runs.
    let mut waits = Box::pin(cache.get_async(address(0), PAGE, Access::Read, LIMIT));
    assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    thread::sleep(Duration::from_millis(20));
    drop(waits);
    let begun = Instant::now();
    assert!(block_on(cache.get_async(address(1), PAGE, Access::Read, LIMIT)).0.is_ok());
    assert!(begun.elapsed() < LIMIT / 4, "the fetcher was still at the cancelled request");
    drop(running);
}

#[test]
fn the_fetcher_does_not_keep_the_cache() {
    let process = Process::new(1);
    let (device, cache) = cache_of(&process, 4);
    drop(block_on(cache.get_async(address(0), PAGE, Access::Read, LIMIT)).0.unwrap());
    assert!(cache.close(Duration::from_secs(20)), "nothing is in use");
    assert_eq!(device.in_use(), 0);
}
