//! Who took my registration away: the last registrations that ended, each with what ended it.
//!
//! A ring of records behind the device lock, written where registrations are revoked: by the pump, so nothing is allocated. An
//! invalidation that takes nothing leaves no record, so a process that unmaps a lot of other memory does not push out
//! what one wants to know.

use std::fmt;
use std::time::Instant;

use pagemirror_core::addr::PageRange;
use pagemirror_core::notify::Event;

/// Records that are kept.
pub(crate) const RECORDS: usize = 1024;
/// Records that one invalidation may leave, so that a large one does not push out everything else. One more stands for the
/// rest.
const RECORDS_OF_ONE: u64 = 64;

/// What ended a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// An invalidation of these pages: by the process's memory calls, as the source told, or because somebody asked for it.
    Invalidated {
        /// What happened to them.
        event: Event,
        /// The pages that it named.
        range: PageRange,
    },
    /// The cache made room: for a device that had none, or for its own limits.
    Evicted,
    /// The cache was flushed or closed.
    Flushed,
}

/// A registration that ended, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// The pages that were registered. Of a record that stands for [many](Self::others): the pages that were invalidated.
    pub registration: PageRange,
    /// What ended it.
    pub cause: Cause,
    /// When: at the revocation, before the caller of an unmapping call went on.
    pub at: Instant,
    /// How many further registrations ended by the same cause, and have no record of their own.
    pub others: u64,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registration, cause, at, others } = self;
        let before = at.elapsed();
        match cause {
            Cause::Invalidated { event, range } => {
                let by = match event {
                    Event::Unmap => "munmap, MAP_FIXED or brk",
                    Event::Remap => "mremap",
                    Event::Remove => "madvise",
                    _ => "a request",
                };
                write!(f, "{registration} was taken away by {by} of {range}")?;
            }
            Cause::Evicted => write!(f, "{registration} was evicted to make room")?,
            Cause::Flushed => write!(f, "{registration} was flushed")?,
        }
        if *others > 0 {
            write!(f, ", and {others} others")?;
        }
        write!(f, ", {before:.1?} ago")
    }
}

/// The ring. Under the device lock.
#[derive(Debug)]
pub(crate) struct Journal {
    records: Box<[Option<Taken>]>,
    next: usize,
}

/// The records of one cause that are being written.
#[derive(Debug)]
pub(crate) struct Entry {
    cause: Cause,
    /// Set at the first record: an invalidation that takes nothing does not look at the clock.
    at: Option<Instant>,
    taken: u64,
}

impl Entry {
    pub(crate) fn new(cause: Cause) -> Self {
        Self { cause, at: None, taken: 0 }
    }
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self { records: vec![None; RECORDS].into_boxed_slice(), next: 0 }
    }

    /// Notes that `registration` has ended.
    pub(crate) fn note(&mut self, entry: &mut Entry, registration: PageRange) {
        let at = *entry.at.get_or_insert_with(Instant::now);
        entry.taken += 1;
        let cause = entry.cause;
        if entry.taken <= RECORDS_OF_ONE {
            self.push(Taken { registration, cause, at, others: 0 });
        }
    }

    /// Says how many registrations the cause has ended, and notes those that got no record.
    pub(crate) fn end(&mut self, entry: &Entry) -> u64 {
        let others = entry.taken.saturating_sub(RECORDS_OF_ONE);
        if let (1.., Some(at)) = (others, entry.at) {
            let registration = match entry.cause {
                Cause::Invalidated { range, .. } => range,
                Cause::Evicted | Cause::Flushed => PageRange::ALL,
            };
            self.push(Taken { registration, cause: entry.cause, at, others });
        }
        entry.taken
    }

    fn push(&mut self, taken: Taken) {
        self.records[self.next] = Some(taken);
        self.next = (self.next + 1) % RECORDS;
    }

    /// Copies what is known of `range` to `out`, the oldest first. Allocates nothing while `out` has room for
    /// [`RECORDS`].
    pub(crate) fn copy_of(&self, range: PageRange, out: &mut Vec<Taken>) {
        let (newer, older) = self.records.split_at(self.next);
        let records = older.iter().chain(newer).flatten();
        out.extend(records.filter(|taken| taken.registration.overlaps(range)));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use pagemirror_core::addr::VirtAddr;

    use super::*;

    fn page(number: u64) -> PageRange {
        PageRange::covering(VirtAddr::new(number << 12), 1, 4096).unwrap()
    }

    fn known(journal: &Journal, range: PageRange) -> Vec<Taken> {
        let mut out = Vec::with_capacity(RECORDS);
        journal.copy_of(range, &mut out);
        assert_eq!(out.capacity(), RECORDS, "copying allocates nothing");
        out
    }

    #[test]
    fn one_invalidation_does_not_push_out_the_others() {
        let mut journal = Journal::new();
        let mut first = Entry::new(Cause::Evicted);
        journal.note(&mut first, page(5));
        assert_eq!(journal.end(&first), 1);
        let cause = Cause::Invalidated { event: Event::Unmap, range: PageRange::ALL };
        let mut large = Entry::new(cause);
        (100..10_100).for_each(|number| journal.note(&mut large, page(number)));
        assert_eq!(journal.end(&large), 10_000);
        let of_five = known(&journal, page(5));
        assert_eq!(of_five.iter().map(|taken| taken.cause).collect::<Vec<_>>(), [Cause::Evicted, cause]);
        assert_eq!(of_five[1].others, 10_000 - RECORDS_OF_ONE);
        assert_eq!(known(&journal, page(101)).len(), 2, "its own record, and the one that stands for the rest");
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut journal = Journal::new();
        for number in 0..RECORDS as u64 + 3 {
            let mut entry = Entry::new(Cause::Evicted);
            journal.note(&mut entry, page(number));
        }
        assert!(known(&journal, page(2)).is_empty());
        assert_eq!(known(&journal, page(3)).len(), 1);
        let all = known(&journal, PageRange::ALL);
        assert_eq!((all.len(), all[0].registration), (RECORDS, page(3)), "in their order");
    }
}
