//! The cache against everything that happens beside it. The same bodies run under shuttle and on real threads.
#![cfg(not(loom))]

mod model;

use model::{Device, Process, Slots, address, close, explore, soon};
use pagemirror_registration::{Access, Error, Options, RegistrationCache};
use pagemirror_sync::{Arc, thread};

fn cache(process: &Arc<Process>, device: &Arc<Device>) -> Arc<RegistrationCache<Slots>> {
    let source = Arc::clone(process) as Arc<dyn pagemirror_core::source::Source>;
    Arc::new(RegistrationCache::new(source, Slots(Arc::clone(device)), Options::default()).unwrap())
}

/// One request from `get` to completion, made again while the lease is stale. Checks what the device would send against
/// the page as it was when the request was made, and that the slot is left alone until the completion.
fn send(process: &Process, device: &Device, cache: &RegistrationCache<Slots>, page: u64) {
    loop {
        let lease = cache.get(address(page), model::PAGE, Access::Read, &soon()).unwrap();
        let asked = process.version(page);
        let sent = cache.begin(&[&lease], &soon(), |registered| (registered[0].key, device.slot(registered[0].key)));
        match sent {
            Ok((using, (key, pinned))) => {
                let pinned = pinned.expect("a use begins on a slot that is filled");
                assert_eq!(pinned.page, page, "the slot of another page");
                assert!(pinned.version >= asked, "stale: sent version {} of a page at {asked}", pinned.version);
                thread::yield_now();
                assert_eq!(device.slot(key), Some(pinned), "the slot changed before the use was given back");
                using.complete();
                return;
            }
            Err(Error::Stale { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// One request while nothing is invalidated: a lease once given is good, however much room others need meanwhile.
fn send_undisturbed(device: &Device, cache: &RegistrationCache<Slots>, page: u64) {
    let lease = cache.get(address(page), model::PAGE, Access::Read, &soon()).unwrap();
    let begun = cache.begin(&[&lease], &soon(), |registered| registered[0].key);
    let (using, key) = begun.expect("leased, and nobody has touched its memory");
    drop(lease);
    thread::yield_now();
    assert_eq!(device.slot(key).map(|pinned| pinned.page), Some(page), "let go while it was in use");
    let again = cache.try_get(address(page), model::PAGE, Access::Read).unwrap();
    drop(again.expect("evicted while it was in use"));
    using.complete();
}

fn unwrap_cache(cache: Arc<RegistrationCache<Slots>>) -> RegistrationCache<Slots> {
    Arc::try_unwrap(cache).expect("the last one")
}

#[test]
fn get_against_invalidation() {
    explore(|| {
        let process = Process::new(1);
        let device = Device::new(&process, 4);
        let cache = cache(&process, &device);
        let pump = process.start_pump();
        let changer = {
            let process = Arc::clone(&process);
            thread::spawn(move || {
                process.remap(0);
                process.remap(0);
            })
        };
        let user = {
            let (process, device, cache) = (Arc::clone(&process), Arc::clone(&device), Arc::clone(&cache));
            thread::spawn(move || send(&process, &device, &cache, 0))
        };
        send(&process, &device, &cache, 0);
        send(&process, &device, &cache, 0);
        user.join().unwrap();
        changer.join().unwrap();
        process.stop();
        pump.join().unwrap();
        close(unwrap_cache(cache), &device);
    });
}

/// A lease that was not invalidated is never evicted, however much room others need; dropped, it is.
#[test]
fn eviction_and_lease_drop() {
    explore(|| {
        let process = Process::new(3);
        let device = Device::new(&process, 2);
        let cache = cache(&process, &device);
        let kept = cache.get(address(0), model::PAGE, Access::Read, &soon()).unwrap();
        let other = {
            let (device, cache) = (Arc::clone(&device), Arc::clone(&cache));
            thread::spawn(move || {
                send_undisturbed(&device, &cache, 1);
                send_undisturbed(&device, &cache, 2);
            })
        };
        for _ in 0..2 {
            let (using, key) =
                cache.begin(&[&kept], &soon(), |registered| registered[0].key).expect("leased, never touched");
            assert_eq!(device.slot(key).map(|pinned| pinned.page), Some(0));
            using.complete();
        }
        other.join().unwrap();
        let (again, ()) = cache.begin(&[&kept], &soon(), |_| ()).expect("leased all the time, and nobody touched it");
        again.complete();
        drop(kept);
        send(&process, &device, &cache, 1);
        send(&process, &device, &cache, 2);
        assert_eq!(cache.stats().false_retries, 0);
        close(unwrap_cache(cache), &device);
    });
}

/// Two that need the only slot in turn: what one leases or uses is not evicted for the other.
#[test]
fn eviction_against_lease_and_use() {
    explore(|| {
        let process = Process::new(2);
        let device = Device::new(&process, 1);
        let cache = cache(&process, &device);
        let other = {
            let (device, cache) = (Arc::clone(&device), Arc::clone(&cache));
            thread::spawn(move || {
                send_undisturbed(&device, &cache, 1);
                send_undisturbed(&device, &cache, 1);
            })
        };
        send_undisturbed(&device, &cache, 0);
        send_undisturbed(&device, &cache, 0);
        other.join().unwrap();
        close(unwrap_cache(cache), &device);
    });
}

/// What somebody asks to be given up, without the pump and its gate, beside a use that is just being begun.
#[test]
fn begin_against_requested_eviction() {
    explore(|| {
        let process = Process::new(1);
        let device = Device::new(&process, 2);
        let cache = cache(&process, &device);
        let other = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || cache.evict(address(0), model::PAGE).unwrap())
        };
        send(&process, &device, &cache, 0);
        send(&process, &device, &cache, 0);
        other.join().unwrap();
        close(unwrap_cache(cache), &device);
    });
}

/// A revoked registration stays until its last use is given back, and its slot goes to nobody else before.
#[test]
fn last_use_after_revocation() {
    explore(|| {
        let process = Process::new(2);
        let device = Device::new(&process, 1);
        let cache = cache(&process, &device);
        let pump = process.start_pump();
        let lease = cache.get(address(0), model::PAGE, Access::Read, &soon()).unwrap();
        let (using, key) = cache.begin(&[&lease], &soon(), |registered| registered[0].key).unwrap();
        let pinned = device.slot(key);
        process.remap(0);
        // The change has returned, but the gate may still be up: `begin` waits for it, a hint does not.
        assert!(matches!(cache.begin(&[&lease], &soon(), |_| ()), Err(Error::Stale { .. })));
        assert!(lease.is_stale());
        let other = {
            let (process, device, cache) = (Arc::clone(&process), Arc::clone(&device), Arc::clone(&cache));
            thread::spawn(move || send(&process, &device, &cache, 1))
        };
        for _ in 0..3 {
            thread::yield_now();
            assert_eq!(device.slot(key), pinned, "let go while the device may still be at it");
        }
        using.complete();
        other.join().unwrap();
        drop(lease);
        process.stop();
        pump.join().unwrap();
        close(unwrap_cache(cache), &device);
    });
}

/// What is in doubt is registered anew for each request, after the request was made, and shared with nobody.
#[test]
fn one_shots_in_doubt() {
    explore(|| {
        let process = Process::new(1);
        let device = Device::new(&process, 4);
        let cache = cache(&process, &device);
        let doubt = pagemirror_core::source::Source::space(&*process).doubt();
        doubt.set(Process::page(0));
        let user = {
            let (process, device, cache) = (Arc::clone(&process), Arc::clone(&device), Arc::clone(&cache));
            thread::spawn(move || send(&process, &device, &cache, 0))
        };
        let once = cache.get(address(0), model::PAGE, Access::Read, &soon()).unwrap();
        assert!(once.is_one_shot());
        assert_eq!(cache.stats().hits, 0);
        let (first, _) = cache.begin(&[&once], &soon(), |_| ()).unwrap();
        assert!(matches!(cache.begin(&[&once], &soon(), |_| ()), Err(Error::Stale { .. })), "for one use");
        first.complete();
        drop(once);
        user.join().unwrap();
        doubt.end(doubt.mark());
        let lease = cache.get(address(0), model::PAGE, Access::Read, &soon()).unwrap();
        assert!(!lease.is_one_shot());
        drop(lease);
        close(unwrap_cache(cache), &device);
    });
}
