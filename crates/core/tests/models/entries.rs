//! One place of the ring, as a log sees it whose writers take no lock (DESIGN 5.2).

use pagemirror_core::memory::{Entry, EntryRead};
use pagemirror_sync::Arc;

use super::engine::beside;
use super::world::{elsewhere, here};

/// Writer 1 took its number, was preempted, and wakes when writer 2 has lapped it: in whatever order they publish, under
/// number 2 there is the range of writer 2 or nothing.
pub(crate) fn entry_of_a_lapped_writer() {
    let entry = Arc::new(Entry::default());
    let late = beside(&entry, |entry| entry.publish(1, here()));
    let lapping = beside(&entry, |entry| entry.publish(2, elsewhere()));
    assert_is(&entry, 2);
    let late = late.join().unwrap();
    let lapping = lapping.join().unwrap();
    assert_is(&entry, 1);
    assert_is(&entry, 2);
    assert!(late || lapping, "VIOLATION: two writers stepped back for each other");
    if lapping {
        assert_eq!(entry.read(2), EntryRead::Range(elsewhere()), "VIOLATION: a published entry is gone");
    }
}

/// A writer fills the place while a reader looks at what stood there before.
pub(crate) fn entry_read_beside_its_writer() {
    let entry = Arc::new(Entry::default());
    assert!(entry.publish(1, here()));
    let writer = beside(&entry, |entry| entry.publish(2, elsewhere()));
    assert_is(&entry, 1);
    assert_is(&entry, 2);
    assert!(writer.join().unwrap(), "VIOLATION: the place was free, but its writer stepped back");
}

/// What `number` reads is the range that was published under it, or no range.
fn assert_is(entry: &Entry, number: u64) {
    let right = if number == 1 { here() } else { elsewhere() };
    if let EntryRead::Range(read) = entry.read(number) {
        assert_eq!(read, right, "VIOLATION: a torn or foreign range under number {number}");
    }
}
