//! An unmapping that waits: the library's own call, real fixed buffers, a use that is under way.
#![expect(unsafe_code, reason = "unmaps real memory")]

mod support;

use std::time::Duration;

use pagemirror_core::addr::VirtAddr;
use pagemirror_core::source::Source;
use pagemirror_core::wait::Deadline;
use pagemirror_io_uring::FixedBuffers;
use pagemirror_linux::{Config, Unmapped, Userfault, Uses};
use pagemirror_registration::{Access, Options, RegistrationCache, Tracked};
use support::{Memory, PAGE, ring_or_skip, skipped, soon};

#[test]
fn pages_are_unpinned_before_a_blocking_unmapping_returns() {
    let test = "pages_are_unpinned_before_a_blocking_unmapping_returns";
    let Some(ring) = ring_or_skip(test) else { return };
    let source = match Userfault::open(Config::default()) {
        Ok(source) => source,
        Err(error) => return skipped(test, error),
    };
    let device = match FixedBuffers::new(&ring, 4) {
        Ok(device) => Tracked::new(device),
        Err(error) => return skipped(test, error),
    };
    let cache = RegistrationCache::new(source.clone(), device, Options::default()).unwrap();
    let memory = Memory::new(4 * PAGE).filled(1);
    let (range, address) = (memory.range(), memory.address());
    std::mem::forget(memory);

    let begin = || {
        let lease = cache.get(address, range.len(), Access::Read, &soon()).unwrap();
        cache.begin(&[&lease], &soon(), |_| ()).unwrap().0
    };
    let using = begin();
    let at_once = Deadline::after(Duration::from_millis(30));
    let holder = cache.registrar();
    std::thread::scope(|scope| {
        let unmapping = scope.spawn(|| {
            // SAFETY: the test's own memory, which nothing borrows.
            unsafe { source.unmap(range, Uses::Block(&[holder], &soon())) }
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!unmapping.is_finished(), "it did not wait for the use");
        assert!(holder.holds(range));
        using.complete();
        assert_eq!(unmapping.join().unwrap().unwrap(), Unmapped::Released);
    });
    assert_eq!((holder.holds(range), holder.device().filled()), (false, (0, 0)), "pages are still pinned");

    // One that is not given back: unmapped all the same, at the deadline.
    let memory = Memory::new(4 * PAGE).filled(1);
    let (range, address) = (memory.range(), VirtAddr::new(memory.address().get()));
    std::mem::forget(memory);
    let lease = cache.get(address, range.len(), Access::Read, &soon()).unwrap();
    let (using, ()) = cache.begin(&[&lease], &soon(), |_| ()).unwrap();
    // SAFETY: as above.
    let unmapped = unsafe { source.unmap(range, Uses::Block(&[holder], &at_once)) }.unwrap();
    assert_eq!(unmapped, Unmapped::Detached);
    assert!(lease.is_stale() && holder.holds(range), "the use keeps its pages");
    using.complete();
    assert!(source.space().gate().lost().is_none());
}
