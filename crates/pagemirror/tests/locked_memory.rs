//! A cache over pages that are locked in memory, asked of the kernel: how much of this process is locked.
//!
//! One test, because the kernel's figure is of the whole process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagemirror::{
    Access, Config, Deadline, LockedMemory, Options, RegisterErrorKind, Registrar, RegistrationCache, Userfault,
    VirtAddr,
};
use pagemirror_core::addr::PageRange;

const PAGE: usize = 4096;

/// Locked memory of this process, in KiB.
fn locked() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn wait_for(what: &str, kib: u64) {
    let since = Instant::now();
    while locked() != kib {
        assert!(since.elapsed() < Duration::from_secs(20), "{what}: {} KiB are locked, not {kib}", locked());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn pages_are_locked_while_they_are_cached() {
    let before = locked();
    // A mapping of its own: large, so that the allocator maps it and unmaps it when it is freed.
    let memory = vec![1_u8; 64 << 20];
    let page = (memory.as_ptr().addr() + PAGE).next_multiple_of(PAGE) as u64;
    let at = |index: u64| VirtAddr::new(page + index * PAGE as u64);

    // Two registrations overlap: what both cover stays locked until the second one goes.
    let device = LockedMemory::default();
    let range = |index, count| PageRange::covering(at(index), count * PAGE as u64, PAGE as u64).unwrap();
    let first = match device.register(range(0, 4), Access::Read) {
        Ok(key) => key,
        Err(error) => return println!("SKIPPED: pages_are_locked_while_they_are_cached: {error}"),
    };
    let second = device.register(range(2, 4), Access::Read).unwrap();
    assert_eq!(locked(), before + 24);
    device.deregister(first).unwrap();
    assert_eq!(locked(), before + 16, "the shared part is still registered");
    device.deregister(second).unwrap();
    assert_eq!(locked(), before);
    let nowhere = PageRange::covering(VirtAddr::new(0x10000), PAGE as u64, PAGE as u64).unwrap();
    assert_eq!(device.register(nowhere, Access::Read).unwrap_err().kind, RegisterErrorKind::NoRoom);

    let source = match Userfault::open(Config::default()) {
        Ok(source) => source,
        Err(error) => return println!("SKIPPED: pages_are_locked_while_they_are_cached: {error}"),
    };
    let cache = RegistrationCache::new(Arc::clone(&source) as _, device, Options::default()).unwrap();
    let soon = Deadline::after(Duration::from_secs(20));
    let (using, ()) = cache.begin_at(at(8), 4 * PAGE as u64, Access::Write, &soon, |_| ()).unwrap();
    using.complete();
    assert_eq!(locked(), before + 16, "cached, so locked");
    assert_eq!(cache.get(at(9), 8, Access::Read, &soon).unwrap().range().len(), PAGE as u64);
    assert_eq!(cache.stats().hits, 1, "a part of it is a hit");

    cache.evict(at(8), 1).unwrap();
    wait_for("evicted", before);

    // The program frees it: the pages are gone, and the cache lets go.
    let (using, ()) = cache.begin_at(at(100), 2 * PAGE as u64, Access::Write, &soon, |_| ()).unwrap();
    using.complete();
    assert_eq!(locked(), before + 8);
    drop(memory);
    wait_for("unmapped", before);
    assert!(cache.stats().invalidations.unmap > 0, "the cache was told");
    assert!(cache.close(Duration::from_secs(20)));
}
