//! Address spaces, subscribers and device tables when something goes wrong.
#![cfg(not(any(loom, shuttle)))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::collision::Verdict;
use pagemirror_core::device::{Commit, DeviceTable, Granted, Mappings};
use pagemirror_core::error::Error;
use pagemirror_core::gate::{Entered, LostCause};
use pagemirror_core::notify::{Event, Subscriber};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::wait::Deadline;

/// A deadline that no test reaches; one that does has hung.
const NEVER: Duration = Duration::from_secs(60);

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
}

/// Whether a reader of `range` would have to wait.
fn is_blocked(space: &AddressSpace, range: PageRange) -> bool {
    match space.read_begin(range, None, &Deadline::after(Duration::ZERO)).map(drop) {
        Ok(()) => false,
        Err(Error::TimedOut { range: named }) if named == range => true,
        Err(other) => panic!("{other}"),
    }
}

/// Counts its calls, and panics in the call whose number is `panics_in`.
#[derive(Default)]
struct Counting {
    calls: AtomicUsize,
    panics_in: Option<usize>,
}

impl Subscriber for Counting {
    fn invalidate(&self, _range: PageRange, _event: Event) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        assert_ne!(Some(call), self.panics_in, "planted in the callback by this test");
    }
}

impl Counting {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct List(Vec<(PageRange, u32)>);

impl Mappings for List {
    type Item = u32;

    fn install(&mut self, _granted: Granted, range: PageRange, item: u32) {
        self.0.push((range, item));
    }

    fn revoke(&mut self, range: PageRange, _event: Event) {
        self.0.retain(|(held, _)| !held.overlaps(range));
    }
}

#[test]
fn a_callback_that_panics_loses_the_space_and_blocks_nobody() {
    let space = Arc::new(AddressSpace::default());
    let before = Arc::new(Counting::default());
    let bad = Arc::new(Counting { panics_in: Some(0), ..Counting::default() });
    let after = Arc::new(Counting::default());
    let _first = space.subscribe(Arc::clone(&before) as Arc<dyn Subscriber>);
    let second = space.subscribe(Arc::clone(&bad) as Arc<dyn Subscriber>);
    let _third = space.subscribe(Arc::clone(&after) as Arc<dyn Subscriber>);

    let held = space.invalidate_start(pages(0, 1), Event::Unmap);
    assert_eq!((before.calls(), bad.calls(), after.calls()), (1, 1, 1), "the others are told all the same");
    let lost = Error::Lost { range: pages(0, 1), cause: LostCause::CallbackPanicked };
    let answer = space.read_begin(pages(0, 1), None, &Deadline::after(NEVER)).map(drop);
    assert_eq!(answer, Err(lost), "a reader does not even wait for the invalidation");
    assert!(matches!(space.gate().enter(), Entered::Lost(LostCause::CallbackPanicked)));
    drop(held);

    // Neither the list nor the log was left locked: another thread invalidates and unsubscribes.
    thread::scope(|scope| {
        scope.spawn(|| drop(space.invalidate_start(pages(0, 1), Event::Unmap)));
        scope.spawn(|| drop(second));
    });
    drop(space.invalidate_start(pages(0, 1), Event::Unmap));
    assert_eq!((before.calls(), after.calls()), (3, 3));
}

#[test]
fn a_reader_that_waits_learns_of_the_panic() {
    let space = Arc::new(AddressSpace::default());
    let bad = Arc::new(Counting { panics_in: Some(1), ..Counting::default() });
    let _subscription = space.subscribe(Arc::clone(&bad) as Arc<dyn Subscriber>);
    let held = space.invalidate_start(pages(0, 1), Event::Unmap);
    let answer = thread::scope(|scope| {
        let reader = scope.spawn(|| space.read_begin(pages(0, 1), None, &Deadline::after(NEVER)).map(drop));
        thread::sleep(Duration::from_millis(20));
        drop(space.invalidate_start(pages(9, 1), Event::Unmap));
        reader.join().unwrap()
    });
    assert_eq!(answer, Err(Error::Lost { range: pages(0, 1), cause: LostCause::CallbackPanicked }));
    drop(held);
}

#[test]
fn an_unsubscribed_callback_is_not_called_again() {
    let space = Arc::new(AddressSpace::default());
    let counting = Arc::new(Counting::default());
    let subscription = space.subscribe(Arc::clone(&counting) as Arc<dyn Subscriber>);
    drop(space.invalidate_start(pages(0, 1), Event::Unmap));
    drop(subscription);
    drop(space.invalidate_start(pages(0, 1), Event::Unmap));
    assert_eq!(counting.calls(), 1);
    assert_eq!(Arc::strong_count(&counting), 1, "the list keeps nothing of what was removed");
}

#[test]
fn an_invalidation_ends_on_panic_and_on_early_return() {
    let space = AddressSpace::default();
    let returns_early = |early: bool| -> Option<()> {
        let _running = space.invalidate_start(pages(0, 1), Event::Unmap);
        assert!(is_blocked(&space, pages(0, 1)));
        (!early).then_some(())?;
        Some(())
    };
    assert_eq!(returns_early(true), None);
    assert!(!is_blocked(&space, pages(0, 1)));

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _outer = space.invalidate_start(pages(0, 1), Event::Unmap);
        let _inner = space.invalidate_start(pages(4, 1), Event::Unmap);
        assert!(is_blocked(&space, pages(0, 1)) && is_blocked(&space, pages(4, 1)));
        panic!("planted between start and end by this test");
    }));
    assert!(panicked.is_err());
    assert!(!is_blocked(&space, PageRange::ALL), "nothing runs any more");
    assert!(space.gate().lost().is_none(), "a panic between start and end is not a loss");
}

#[test]
fn a_commit_installs_and_a_later_invalidation_revokes() {
    let space = Arc::new(AddressSpace::default());
    let table = DeviceTable::new(&space, List::default());
    for page in [0, 4] {
        let attempt = space.read_begin(pages(page, 2), None, &Deadline::after(NEVER)).unwrap();
        match table.lock().commit(&attempt) {
            Commit::Permit(permit) => permit.install(page as u32),
            Commit::Collided(verdict) => panic!("{verdict:?}"),
        };
    }
    drop(space.invalidate_start(pages(1, 3), Event::Unmap));
    assert_eq!(table.lock().0, [(pages(4, 2), 4)], "what overlaps is gone, what does not stays");
}

#[test]
fn a_collision_leaves_the_table_as_it_was_and_names_the_range() {
    let space = Arc::new(AddressSpace::default());
    let table = DeviceTable::new(&space, List::default());
    let attempt = space.read_begin(pages(0, 2), None, &Deadline::after(NEVER)).unwrap();
    drop(space.invalidate_start(pages(1, 1), Event::Unmap));
    match table.lock().commit(&attempt) {
        Commit::Collided(verdict) => assert_eq!(verdict, Verdict::Hit(Some(pages(1, 1)))),
        Commit::Permit(_) => panic!("an invalidation between begin and commit is forgotten"),
    };
    assert!(table.lock().0.is_empty());
}

#[test]
#[should_panic(expected = "the table of another address space")]
fn an_attempt_is_not_committed_in_another_address_space() {
    let mine = Arc::new(AddressSpace::default());
    let other = Arc::new(AddressSpace::default());
    let table = DeviceTable::new(&other, List::default());
    let attempt = mine.read_begin(pages(0, 1), None, &Deadline::after(NEVER)).unwrap();
    let _ = table.lock().commit(&attempt);
}
