//! The pump may not allocate or free: the thread that holds the allocator's lock may be the one that waits for the pump.
//! Here an allocator ends the process at the first call from the pump's thread.
#![expect(unsafe_code, reason = "implements an allocator")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pagemirror_core::addr::VirtAddr;
use pagemirror_core::source::Source;
use pagemirror_sync::Arc;
use support::{Memory, memfd, source, wait_until};

/// The pump's thread, once it is known.
static PUMP: AtomicU64 = AtomicU64::new(0);

/// Calls that reached the check, so that a check that is never run is noticed.
static CHECKED: AtomicU64 = AtomicU64::new(0);

struct Guarded;

fn check() {
    thread_local! { static ME: Cell<u64> = const { Cell::new(0) }; }
    let pump = PUMP.load(Ordering::Relaxed);
    if pump == 0 {
        return;
    }
    CHECKED.fetch_add(1, Ordering::Relaxed);
    let me = ME.try_with(|me| {
        if me.get() == 0 {
            // SAFETY: asks for this thread's number.
            me.set(unsafe { libc::syscall(libc::SYS_gettid) } as u64);
        }
        me.get()
    });
    if me == Ok(pump) {
        let said = b"the pump allocated or freed\n";
        // SAFETY: writes a constant to the standard error stream.
        unsafe { libc::write(2, said.as_ptr().cast(), said.len()) };
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Guarded = Guarded;

/// A subscriber with a real table: the pump revokes what was installed.
#[derive(Default)]
struct Table {
    ranges: pagemirror_core::interval::IntervalIndex<Arc<u64>>,
    revoked: usize,
}

impl pagemirror_core::device::Mappings for Table {
    type Item = Arc<u64>;
    fn install(
        &mut self,
        _: pagemirror_core::device::Granted,
        range: pagemirror_core::addr::PageRange,
        item: Arc<u64>,
    ) {
        self.ranges.insert(range, item);
    }
    fn revoke(&mut self, range: pagemirror_core::addr::PageRange, _: pagemirror_core::notify::Event) {
        self.revoked += self.ranges.retire_overlapping(range, |_| ());
    }
}

#[test]
fn the_pump_allocates_nothing() {
    let Some(source) = source("the_pump_allocates_nothing") else { return };
    let table = pagemirror_core::device::DeviceTable::new(source.space(), Table::default());
    let _ = table.lock().ranges.reserve_from(pagemirror_core::interval::Spare::with_capacity(4096));
    wait_until("the pump runs", Duration::from_secs(5), || source.pump_thread() != 0);
    PUMP.store(source.pump_thread(), Ordering::Relaxed);
    let deadline = pagemirror_core::wait::Deadline::after(Duration::from_secs(20));
    let host = pagemirror_linux::ProcessSpace::new(Arc::clone(&source)).unwrap();
    let mirror = pagemirror_core::mirror::Mirror::new(Arc::new(host));
    let mut mirrored = 0;
    for round in 0..300_u64 {
        let memory = Memory::anonymous(8);
        memory.fill(1);
        let attempt = source.space().read_begin(memory.range(), None, &deadline).unwrap();
        let _ = source.watch(memory.range()).unwrap();
        if let pagemirror_core::device::Commit::Permit(permit) = table.lock().commit(&attempt) {
            permit.install(Arc::new(round));
        }
        drop(attempt);
        // A device page table, whose nodes must be there before the pump comes.
        let request = pagemirror_core::mirror::Request::all(pagemirror_core::mirror::Need::WRITE);
        mirrored += mirror.range_fault(memory.range(), request, &deadline).unwrap().installed;
        memory.part(0, 2).advise(libc::MADV_DONTNEED);
        let moved = memory.part(2, 2).move_to(Memory::anonymous(2).start);
        moved.unmap();
        memory.part(4, 4).unmap();
        // A walk outside a section may come before the callback, which runs when this caller is free already.
        let is_mapped = |page| mirror.table().walk(VirtAddr::new(page as u64)).is_valid();
        let pages = || (memory.start..memory.start + memory.len).step_by(support::PAGE);
        wait_until("the translations are gone", Duration::from_secs(5), || !pages().any(is_mapped));
        while table.lock().ranges.take_retired().is_some() {}
        // A queue of several callers at once.
        let others: Vec<_> = (0..3)
            .map(|_| {
                let memory = Memory::anonymous(2);
                let _ = source.watch(memory.range()).unwrap();
                std::thread::spawn(move || memory.unmap())
            })
            .collect();
        others.into_iter().for_each(|other| other.join().unwrap());
    }
    // What lies where a discard was is in doubt for a while, and not kept.
    assert!(mirrored >= 8 * 50, "only {mirrored} pages were mirrored");
    let fd = memfd(8);
    let (one, other) = (Memory::shared(fd, 8), Memory::shared(fd, 8));
    let _ = (source.watch(one.range()).unwrap(), source.watch(other.range()).unwrap());
    other.advise(libc::MADV_REMOVE);
    wait_until("the alias is found", Duration::from_secs(5), || source.stats().aliases > 0);
    assert!(table.lock().revoked >= 250, "only {} revoked: the pump was not put to work", table.lock().revoked);
    assert!(source.stats().turns > 900 && source.space().gate().lost().is_none());
    assert!(CHECKED.load(Ordering::Relaxed) > 1000, "the allocator was not in the way");
}
