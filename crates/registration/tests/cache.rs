//! What the cache answers, case by case.
#![cfg(not(any(loom, shuttle)))]

mod model;

use std::io;
use std::time::Duration;

use model::{Device, PAGE, Process, Slots, address, soon};
use pagemirror_core::addr::{AddrError, PageRange, VirtAddr};
use pagemirror_core::error::Error as CoreError;
use pagemirror_core::gate::LostCause;
use pagemirror_core::notify::Event;
use pagemirror_core::source::Source;
use pagemirror_core::wait::{CancelToken, Deadline};
use pagemirror_registration::{
    Access, Error, ErrorKind, Options, RegisterError, RegisterErrorKind, Registrar, RegistrationCache,
};
use pagemirror_sync::atomic::{AtomicU32, Ordering};
use pagemirror_sync::{Arc, thread};

fn cache_with(process: &Arc<Process>, slots: usize, options: Options) -> (Arc<Device>, RegistrationCache<Slots>) {
    let device = Device::new(process, slots);
    let source = Arc::clone(process) as Arc<dyn Source>;
    let cache = RegistrationCache::new(source, Slots(Arc::clone(&device)), options).unwrap();
    (device, cache)
}

#[test]
fn sub_ranges_hit_and_a_read_does_not_serve_a_write() {
    let process = Process::new(8);
    let (device, cache) = cache_with(&process, 8, Options::default());
    let whole = cache.get(address(0), 4 * PAGE, Access::Read, &soon()).unwrap();
    let part = cache.get(VirtAddr::new(address(2).get() + 100), 50, Access::Read, &soon()).unwrap();
    assert_eq!((cache.stats().hits, cache.stats().misses, device.in_use()), (1, 1, 1));
    assert_eq!(part.range(), Process::page(2));
    drop((whole, part));
    let _write = cache.get(address(2), PAGE, Access::Write, &soon()).unwrap();
    assert_eq!((cache.stats().misses, device.in_use()), (2, 2));
    let _read = cache.get(address(2), PAGE, Access::Read, &soon()).unwrap();
    assert_eq!(device.in_use(), 2, "what was registered for writing serves reading");
    assert!(matches!(cache.get(address(0), 0, Access::Read, &soon()), Err(Error::Range(AddrError::Empty { .. }))));
}

#[test]
fn an_unrelated_invalidation_disturbs_nobody() {
    let process = Process::new(8);
    let (_device, cache) = cache_with(&process, 8, Options::default());
    let lease = cache.get(address(0), 4 * PAGE, Access::Read, &soon()).unwrap();
    cache.evict(address(4), 4 * PAGE).unwrap();
    cache.begin(&[&lease], &soon(), |_| ()).unwrap().0.complete();
    cache.evict(address(3), PAGE).unwrap();
    let error = cache.begin(&[&lease], &soon(), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert!(error.to_string().contains("0x100000"), "{error}");
    let stats = cache.stats();
    assert_eq!((stats.stale, stats.invalidations.requested, stats.invalidations.revoked), (1, 2, 1));
}

#[test]
fn nested_begin_is_refused() {
    let process = Process::new(2);
    let (_device, cache) = cache_with(&process, 4, Options::default());
    let one = cache.get(address(0), PAGE, Access::Read, &soon()).unwrap();
    let two = cache.get(address(1), PAGE, Access::Read, &soon()).unwrap();
    let (using, inner) = cache.begin(&[&one], &soon(), |_| cache.begin(&[&two], &soon(), |_| ()).unwrap_err()).unwrap();
    assert!(matches!(inner, Error::Nested));
    using.complete();
    let (using, keys) =
        cache.begin(&[&one, &two], &soon(), |registered| [registered[0].key, registered[1].key]).unwrap();
    assert_ne!(keys[0], keys[1]);
    using.complete();
}

#[test]
fn a_lease_of_another_cache_is_refused() {
    let process = Process::new(2);
    let (_, one) = cache_with(&process, 4, Options::default());
    let (_, other) = cache_with(&process, 4, Options::default());
    let lease = one.get(address(0), PAGE, Access::Read, &soon()).unwrap();
    assert!(matches!(other.begin(&[&lease], &soon(), |_| ()), Err(Error::Foreign { .. })));
}

#[test]
fn a_panic_in_a_submission_keeps_the_registration() {
    let process = Process::new(1);
    let (device, cache) = cache_with(&process, 4, Options::default());
    let lease = cache.get(address(0), PAGE, Access::Read, &soon()).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = cache.begin(&[&lease], &soon(), |_| panic!("a submission with a bug"));
    }));
    assert!(caught.is_err());
    assert!(process.space().gate().drain(10), "the section was left");
    cache.evict(address(0), PAGE).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(device.in_use(), 1, "nobody knows what was submitted, so it stays registered");
}

/// A device that refuses.
#[derive(Debug)]
struct Refuses(AtomicU32);

impl Registrar for Refuses {
    type Key = u8;
    fn register(&self, _: PageRange, _: Access) -> Result<u8, RegisterError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let error = io::Error::from_raw_os_error(12);
        Err(RegisterError::new(RegisterErrorKind::Refused, "the memory-lock limit is reached; raise it", error))
    }
    fn deregister(&self, _: u8) -> Result<(), RegisterError> {
        panic!("nothing was registered")
    }
}

#[test]
fn a_refusal_is_reported_and_nothing_is_cached() {
    let process = Process::new(1);
    let cache = RegistrationCache::new(process, Refuses(AtomicU32::new(0)), Options::default()).unwrap();
    for asked in 1..=2 {
        let error = cache.get(address(0), PAGE, Access::Read, &soon()).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Refused, Some(12)));
        assert!(error.to_string().contains("0x100000") && error.to_string().contains("memory-lock"), "{error}");
        assert_eq!(cache.registrar().0.load(Ordering::Relaxed), asked, "a failure is not remembered");
    }
    assert_eq!(cache.stats().register_failures, 2);
}

/// A device that invalidates the range itself while it registers: every attempt collides.
#[derive(Debug)]
struct Collides(Arc<Process>, AtomicU32);

impl Registrar for Collides {
    type Key = u32;
    fn register(&self, range: PageRange, _: Access) -> Result<u32, RegisterError> {
        drop(self.0.space().invalidate_start(range, Event::Requested));
        Ok(self.1.fetch_add(1, Ordering::Relaxed))
    }
    fn deregister(&self, _: u32) -> Result<(), RegisterError> {
        Ok(())
    }
}

#[test]
fn a_storm_of_collisions_is_served_once_without_being_cached() {
    let process = Process::new(1);
    let registrar = Collides(Arc::clone(&process), AtomicU32::new(0));
    let options = Options { max_collisions: 5, ..Options::default() };
    let cache = RegistrationCache::new(Arc::clone(&process) as Arc<dyn Source>, registrar, options).unwrap();
    let lease = cache.get(address(0), PAGE, Access::Read, &soon()).unwrap();
    assert!(lease.is_one_shot());
    cache.begin(&[&lease], &soon(), |_| ()).unwrap().0.complete();
    let stats = cache.stats();
    assert_eq!((stats.collisions, stats.retries, stats.one_shots_contended, stats.false_retries), (5, 5, 1, 0));
    let spent = Deadline::after(Duration::ZERO);
    let error = cache.get(address(0), PAGE, Access::Read, &spent).unwrap_err();
    assert!(matches!(error, Error::Contended { collisions: 1, .. }), "{error}");
}

/// Runs `body`, and `disturb` beside it a little later.
fn later(disturb: impl FnOnce() + Send, body: impl FnOnce()) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            disturb();
        });
        body();
    });
}

#[test]
fn waits_end_by_deadline_by_cancellation_and_by_loss() {
    let process = Process::new(1);
    let (_device, cache) = cache_with(&process, 4, Options::default());
    let lease = cache.get(address(0), PAGE, Access::Read, &soon()).unwrap();
    let space = process.space();
    space.gate().raise();
    let brief = Deadline::after(Duration::from_millis(30));
    let error = cache.begin(&[&lease], &brief, |_| ()).unwrap_err();
    assert!(matches!(error, Error::Wait(CoreError::TimedOut { range }) if range == Process::page(0)), "{error}");
    let token = CancelToken::default();
    later(
        || token.cancel(),
        || {
            let error = cache.begin(&[&lease], &soon().or_cancelled(&token), |_| ()).unwrap_err();
            assert!(matches!(error, Error::Wait(CoreError::Cancelled { .. })), "{error}");
        },
    );
    later(
        || space.release(),
        || {
            let error = cache.begin(&[&lease], &soon(), |_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Lost);
        },
    );
    let error = cache.get(address(0), PAGE, Access::Read, &soon()).unwrap_err();
    assert!(matches!(error, Error::Wait(CoreError::Lost { cause: LostCause::Released, .. })), "{error}");
    let gate_waits = cache.stats().waits[pagemirror_registration::WaitCause::Gate as usize];
    assert_eq!(gate_waits.count, 3);
    assert!(gate_waits.max >= Duration::from_millis(30) && gate_waits.p50 <= gate_waits.max);
}

#[test]
fn without_room_the_deadline_is_kept() {
    let process = Process::new(2);
    let (_device, cache) = cache_with(&process, 1, Options::default());
    let _held = cache.get(address(0), PAGE, Access::Read, &soon()).unwrap();
    let brief = Deadline::after(Duration::from_millis(50));
    let error = cache.get(address(1), PAGE, Access::Read, &brief).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("every slot is taken")), (ErrorKind::Busy, true), "{error}");
}

#[test]
fn dropping_the_cache_lets_everything_go_but_what_is_in_use() {
    let process = Process::new(4);
    let (device, cache) = cache_with(&process, 8, Options::default());
    let leases: Vec<_> = (0..4).map(|page| cache.get(address(page), PAGE, Access::Read, &soon()).unwrap()).collect();
    let (using, key) = cache.begin(&[&leases[1]], &soon(), |registered| registered[0].key).unwrap();
    let using = using.into_owned();
    drop(leases);
    drop(cache);
    for _ in 0..200 {
        if device.in_use() == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(device.in_use(), 1);
    assert_eq!(device.slot(key).map(|pinned| pinned.page), Some(1));
    using.complete();
    for _ in 0..200 {
        if device.in_use() == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("the last registration was never let go");
}

/// More registrations than the evicting hand looks at in one stretch, all asked for lately: room is made all the same.
#[test]
fn a_full_device_makes_room_among_many() {
    let process = Process::new(400);
    let (device, cache) = cache_with(&process, 200, Options::default());
    for page in 0..400 {
        let lease = cache.get(address(page), PAGE, Access::Read, &soon()).unwrap();
        cache.begin(&[&lease], &soon(), |_| ()).unwrap().0.complete();
    }
    assert_eq!((cache.stats().evictions, device.in_use()), (200, 200));
}

#[test]
fn closing_waits_for_the_last_use() {
    let process = Process::new(2);
    let (device, cache) = cache_with(&process, 8, Options::default());
    let (using, ()) = cache.begin_at(address(0), PAGE, Access::Read, &soon(), |_| ()).unwrap();
    let using = using.into_owned();
    later(|| using.complete(), || assert!(cache.close(Duration::from_secs(20)), "the use was given back"));
    assert_eq!(device.in_use(), 0);
    let (device, cache) = cache_with(&process, 8, Options::default());
    let (using, ()) = cache.begin_at(address(0), PAGE, Access::Read, &soon(), |_| ()).unwrap();
    let using = using.into_owned();
    assert!(!cache.close(Duration::from_millis(30)), "a use is under way");
    assert_eq!(device.in_use(), 1);
    using.complete();
}
