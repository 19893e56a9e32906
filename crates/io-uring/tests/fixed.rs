//! The table of fixed buffers against the real kernel: filling, clearing, and what it refuses.

mod support;

use std::time::{Duration, Instant};

use io_uring::{IoUring, squeue};
use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::wait::Deadline;
use pagemirror_io_uring::{Error, FixedBuffers};
use pagemirror_registration::{Access, ErrorKind, Options, RegisterErrorKind, Registrar, RegistrationCache};
use support::{Memory, PAGE, Told, ring_or_skip, soon};

#[test]
fn a_slot_is_filled_and_cleared_and_used_again() {
    let Some(ring) = ring_or_skip("a_slot_is_filled_and_cleared_and_used_again") else { return };
    let buffers = FixedBuffers::new(&ring, 2).unwrap();
    let memory = Memory::new(4 * PAGE).filled(b'a');
    let first = buffers.register(memory.range(), Access::Read).unwrap();
    let second = buffers.register(memory.range(), Access::Write).unwrap();
    assert_ne!(first, second);
    assert_eq!(buffers.filled(), (2, 8 * PAGE as u64));
    let full = buffers.register(memory.range(), Access::Read).unwrap_err();
    assert_eq!(full.kind, RegisterErrorKind::NoRoom);
    buffers.deregister(first).unwrap();
    assert!(buffers.deregister(first).is_err(), "a slot is cleared once");
    assert_eq!(buffers.register(memory.range(), Access::Read).unwrap(), first);
}

#[test]
fn the_table_outlives_the_ring_and_goes_with_the_last_owner() {
    let Some(ring) = ring_or_skip("the_table_outlives_the_ring_and_goes_with_the_last_owner") else { return };
    let memory = Memory::new(PAGE).filled(b'a');
    let buffers = FixedBuffers::new(&ring, 2).unwrap();
    drop(ring);
    let slot = buffers.register(memory.range(), Access::Read).unwrap();
    buffers.deregister(slot).unwrap();

    let ring = IoUring::new(4).unwrap();
    let buffers = FixedBuffers::new(&ring, 2).unwrap();
    let _ = buffers.register(memory.range(), Access::Read).unwrap();
    drop(buffers);
    FixedBuffers::new(&ring, 2).expect("the table was given back");
}

#[test]
fn rings_that_cannot_be_served_are_refused_in_words() {
    let Some(ring) = ring_or_skip("rings_that_cannot_be_served_are_refused_in_words") else { return };
    let said = |error: Error| {
        assert!(matches!(error, Error::Table { .. }));
        error.to_string()
    };
    assert!(said(FixedBuffers::new(&ring, 0).unwrap_err()).contains("between 1 and 16384"));
    assert!(said(FixedBuffers::new(&ring, 20_000).unwrap_err()).contains("between 1 and 16384"));
    ring.submitter().register_buffers_sparse(4).unwrap();
    let busy = said(FixedBuffers::new(&ring, 4).unwrap_err());
    assert!(busy.contains("unregister it"), "{busy}");

    let bound = IoUring::<squeue::Entry>::builder().setup_single_issuer().build(4);
    match bound {
        Ok(bound) => {
            let single = said(FixedBuffers::new(&bound, 4).unwrap_err());
            assert!(single.contains("SINGLE_ISSUER"), "{single}");
        }
        Err(error) => support::skipped("single issuer", error),
    }
    let disabled = IoUring::<squeue::Entry>::builder().setup_r_disabled().build(4).unwrap();
    let buffers = FixedBuffers::new(&disabled, 4).expect("a disabled ring takes registrations");
    let memory = Memory::new(PAGE).filled(b'a');
    buffers.register(memory.range(), Access::Read).unwrap();
}

#[test]
fn memory_that_cannot_be_pinned_is_refused_in_words() {
    let Some(ring) = ring_or_skip("memory_that_cannot_be_pinned_is_refused_in_words") else { return };
    let buffers = FixedBuffers::new(&ring, 2).unwrap();
    let refused = |range: PageRange| {
        let error = buffers.register(range, Access::Read).unwrap_err();
        assert_eq!(error.kind, RegisterErrorKind::Refused);
        assert_eq!(buffers.filled().0, 0, "the slot went back");
        (error.source.raw_os_error(), error.to_string())
    };
    let gone = Memory::new(PAGE).range();
    let (errno, said) = refused(gone);
    assert_eq!(errno, Some(libc::EFAULT));
    assert!(said.contains("must be mapped"), "{said}");

    let read_only = Memory::read_only(PAGE);
    assert_eq!(read_only.bytes()[0], 0);
    let (errno, said) = refused(read_only.range());
    assert_eq!(errno, Some(libc::EFAULT));
    assert!(said.contains("writable"), "{said}");

    let huge = PageRange::covering(VirtAddr::new(1 << 40), (1 << 30) + 1, PAGE as u64).unwrap();
    let (errno, said) = refused(huge);
    assert_eq!(errno, Some(libc::EFAULT));
    assert!(said.contains("split it"), "{said}");

    let path = std::env::temp_dir().join(format!("pagemirror-{}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.set_len(PAGE as u64).unwrap();
    std::fs::remove_file(&path).unwrap();
    let shared = Memory::of_file(&file, PAGE).filled(b'f');
    let (errno, said) = refused(shared.range());
    assert!(matches!(errno, Some(libc::EFAULT | libc::EOPNOTSUPP)), "{said}");
    assert!(said.contains("file behind it"), "{said}");
}

#[test]
fn a_cleared_table_is_noticed() {
    let Some(ring) = ring_or_skip("a_cleared_table_is_noticed") else { return };
    let buffers = FixedBuffers::new(&ring, 2).unwrap();
    let memory = Memory::new(PAGE).filled(b'a');
    ring.submitter().unregister_buffers().unwrap();
    let said = buffers.register(memory.range(), Access::Read).unwrap_err().to_string();
    assert!(said.contains("somebody unregistered it"), "{said}");
}

#[test]
fn more_buffers_than_slots_evict_each_other() {
    for slots in [1_u16, 4] {
        let Some(ring) = ring_or_skip("more_buffers_than_slots_evict_each_other") else { return };
        let source = Told::new();
        let cache =
            RegistrationCache::new(source, FixedBuffers::new(&ring, slots).unwrap(), Options::default()).unwrap();
        let buffers: Vec<_> = (0..3 * usize::from(slots)).map(|_| Memory::new(PAGE).filled(b'a')).collect();
        for _ in 0..3 {
            for memory in &buffers {
                let lease = cache.get(memory.address(), memory.len(), Access::Read, &soon()).unwrap();
                let (using, ()) = cache.begin(&[&lease], &soon(), |_| ()).unwrap();
                using.complete();
            }
        }
        let stats = cache.stats();
        assert!(stats.evictions >= u64::from(slots), "{stats:?}");
        assert!(cache.registrar().filled().0 <= slots);
    }
}

#[test]
fn a_table_larger_than_one_round_of_the_evicting_hand_evicts_too() {
    const SLOTS: u16 = 200;
    let Some(ring) = ring_or_skip("a_table_larger_than_one_round_of_the_evicting_hand_evicts_too") else { return };
    let cache =
        RegistrationCache::new(Told::new(), FixedBuffers::new(&ring, SLOTS).unwrap(), Options::default()).unwrap();
    let buffers: Vec<_> = (0..=SLOTS).map(|_| Memory::new(PAGE).filled(b'a')).collect();
    let deadline = Deadline::after(Duration::from_secs(2));
    let since = Instant::now();
    for memory in &buffers {
        cache.get(memory.address(), memory.len(), Access::Read, &deadline).expect("idle registrations can be evicted");
    }
    assert!(since.elapsed() < Duration::from_secs(1), "evicting took {:?}", since.elapsed());
}

#[test]
fn a_table_full_of_uses_makes_a_miss_wait_until_its_deadline() {
    let Some(ring) = ring_or_skip("a_table_full_of_uses_makes_a_miss_wait_until_its_deadline") else { return };
    let cache = RegistrationCache::new(Told::new(), FixedBuffers::new(&ring, 1).unwrap(), Options::default()).unwrap();
    let (one, other) = (Memory::new(PAGE).filled(b'a'), Memory::new(PAGE).filled(b'b'));
    let lease = cache.get(one.address(), one.len(), Access::Read, &soon()).unwrap();
    let (using, ()) = cache.begin(&[&lease], &soon(), |_| ()).unwrap();
    drop(lease);
    let short = Deadline::after(Duration::from_millis(50));
    let error = cache.get(other.address(), other.len(), Access::Read, &short).unwrap_err();
    // Whichever was noticed first: the deadline, or the table that was still full then.
    assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::Refused), "{error}");
    using.complete();
    cache.get(other.address(), other.len(), Access::Read, &soon()).expect("there is room now");
}
