//! What can happen to an address space.

use std::fmt;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::notify;
use smallvec::{SmallVec, smallvec};

/// The number of an address space: 0 is the first, and none is left out or used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub u32);

/// The number of a thread, or of any other task that shares an address space: 0 is the first, and none is left out or
/// used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub u32);

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One change of one address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, in microseconds since the trace began. Never less than that of the event before.
    pub at_us: u64,
    /// The address space that changes.
    pub space: SpaceId,
    /// The thread that changed it.
    pub thread: ThreadId,
    /// What it did.
    pub operation: Operation,
}

/// What a thread did. A call that failed changed nothing and is not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A thread is seen for the first time, in an address space that is new or not, and nobody is known who made it.
    Appear,
    /// A mapping where there was none: mmap, shmat.
    Map(PageRange),
    /// A mapping in the place of whatever was there: `MAP_FIXED`, `SHM_REMAP`, `remap_file_pages`.
    Replace(PageRange),
    /// A mapping is gone: munmap, shmdt.
    Unmap(PageRange),
    /// mremap.
    Remap {
        /// Where the pages were.
        old: PageRange,
        /// Where they are.
        new: PageRange,
        /// `MREMAP_FIXED`: whatever was at `new` is gone.
        replaces: bool,
        /// `MREMAP_DONTUNMAP`: the old place stays mapped, without pages.
        keeps_old: bool,
    },
    /// brk upwards: these pages are new.
    Grow(PageRange),
    /// brk downwards: these pages are gone.
    Shrink(PageRange),
    /// mprotect: what may be done with the range from now on.
    Protect(PageRange, Access),
    /// madvise that takes pages away and leaves the mapping.
    Discard(PageRange, Discard),
    /// fork: a new address space with the same content, and its first thread.
    Fork {
        /// The new address space.
        space: SpaceId,
        /// Its first thread.
        thread: ThreadId,
    },
    /// A new thread of this address space, or another task that shares it (vfork).
    Thread(ThreadId),
    /// execve: the thread leaves for a new, empty address space.
    Exec {
        /// The new address space.
        into: SpaceId,
        /// It was the last one here: the old address space is gone.
        last: bool,
    },
    /// The thread has ended.
    Exit {
        /// It was the last one: the address space is gone.
        last: bool,
    },
}

/// What mprotect allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access {
    /// `PROT_READ`
    pub read: bool,
    /// `PROT_WRITE`
    pub write: bool,
    /// `PROT_EXEC`
    pub execute: bool,
}

/// The advice that takes pages away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Discard {
    /// `MADV_DONTNEED`
    DontNeed,
    /// `MADV_DONTNEED_LOCKED`
    DontNeedLocked,
    /// `MADV_FREE`
    Free,
    /// `MADV_REMOVE`
    Remove,
    /// `MADV_GUARD_INSTALL`
    Guard,
}

impl Discard {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::DontNeed, Self::DontNeedLocked, Self::Free, Self::Remove, Self::Guard];

    /// The word for it in a trace.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::DontNeed => "dontneed",
            Self::DontNeedLocked => "dontneed-locked",
            Self::Free => "free",
            Self::Remove => "remove",
            Self::Guard => "guard",
        }
    }
}

/// The ranges that an operation makes invalid, each with what a device is told. At most three: the head and the tail of
/// where pages were, and what they were moved over.
pub type Invalidated = SmallVec<[(PageRange, notify::Event); 3]>;

impl Operation {
    /// The kind of operation, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Appear => "appear",
            Self::Map(_) => "map",
            Self::Replace(_) => "replace",
            Self::Unmap(_) => "unmap",
            Self::Remap { .. } => "remap",
            Self::Grow(_) => "grow",
            Self::Shrink(_) => "shrink",
            Self::Protect(..) => "protect",
            Self::Discard(..) => "discard",
            Self::Fork { .. } => "fork",
            Self::Thread(_) => "thread",
            Self::Exec { .. } => "exec",
            Self::Exit { .. } => "exit",
        }
    }

    /// Which translations of this address space stop being true by the operation, and why. Nothing, where a device may go
    /// on with all it has.
    ///
    /// - **mprotect** takes something away from a device only if reading or writing is no longer allowed. The kernel tells
    ///   its own drivers; userfaultfd tells nobody, hence [`Requested`](notify::Event::Requested): whoever replays this is
    ///   somebody who knows.
    /// - **`MADV_FREE` and guard pages** count as any other discard.
    /// - **fork** takes nothing from the parent: what a device has pinned stays the parent's, and the child gets a copy. A
    ///   device that pins nothing would have to be told of the whole address space.
    /// - **execve and exit** end everything only for the last one who leaves.
    #[must_use]
    pub fn invalidates(&self) -> Invalidated {
        use notify::Event::{Remove, Requested, Unmap};
        match *self {
            Self::Appear | Self::Map(_) | Self::Grow(_) | Self::Fork { .. } | Self::Thread(_) => smallvec![],
            Self::Replace(range) | Self::Unmap(range) | Self::Shrink(range) => smallvec![(range, Unmap)],
            Self::Remap { old, new, replaces, keeps_old: _ } => remapped(old, new, replaces),
            Self::Protect(_, Access { read: true, write: true, .. }) => smallvec![],
            Self::Protect(range, _) => smallvec![(range, Requested)],
            Self::Discard(range, _) => smallvec![(range, Remove)],
            Self::Exec { last, .. } | Self::Exit { last } if last => smallvec![(PageRange::ALL, Unmap)],
            Self::Exec { .. } | Self::Exit { .. } => smallvec![],
        }
    }
}

/// The pages of `old` went to `new`; what did not fit is gone, and so is what `new` lies over, if it `replaces` that.
fn remapped(old: PageRange, new: PageRange, replaces: bool) -> Invalidated {
    let mut invalid = Invalidated::new();
    if old.start() != new.start() {
        invalid.extend(part(old, 0, new.len()).map(|moved| (moved, notify::Event::Remap)));
    }
    invalid.extend(part(old, new.len(), u64::MAX).map(|cut| (cut, notify::Event::Unmap)));
    if replaces {
        invalid.push((new, notify::Event::Remap));
    }
    invalid
}

/// The bytes of `range` from offset `from` to offset `to`, if it has any.
fn part(range: PageRange, from: u64, to: u64) -> Option<PageRange> {
    let to = to.min(range.len());
    let len = to.checked_sub(from).filter(|len| *len > 0)?;
    PageRange::covering(VirtAddr::new(range.start().get() + from), len, pagemirror_core::addr::MIN_PAGE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::Event::{Remap, Requested, Unmap};

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
    }

    fn remap(old: PageRange, new: PageRange, replaces: bool) -> Vec<(PageRange, notify::Event)> {
        Operation::Remap { old, new, replaces, keeps_old: false }.invalidates().to_vec()
    }

    #[test]
    fn growing_in_place_takes_nothing_and_shrinking_the_tail() {
        assert_eq!(remap(pages(8, 4), pages(8, 6), false), []);
        assert_eq!(remap(pages(8, 4), pages(8, 4), false), []);
        assert_eq!(remap(pages(8, 4), pages(8, 3), false), [(pages(11, 1), Unmap)]);
    }

    #[test]
    fn moving_takes_the_old_place_and_what_was_at_the_new_one() {
        assert_eq!(remap(pages(8, 4), pages(80, 9), false), [(pages(8, 4), Remap)]);
        let all = [(pages(8, 1), Remap), (pages(9, 3), Unmap), (pages(80, 1), Remap)];
        assert_eq!(remap(pages(8, 4), pages(80, 1), true), all);
    }

    #[test]
    fn only_a_lost_right_of_a_device_counts() {
        let protect = |read, write, execute| {
            Operation::Protect(pages(1, 1), Access { read, write, execute }).invalidates().to_vec()
        };
        assert_eq!(protect(true, true, false), []);
        assert_eq!(protect(true, false, true), [(pages(1, 1), Requested)]);
        assert_eq!(protect(false, false, false), [(pages(1, 1), Requested)]);
    }

    #[test]
    fn only_the_last_one_ends_an_address_space() {
        let into = SpaceId(1);
        for (operation, expected) in [
            (Operation::Exit { last: false }, 0),
            (Operation::Exit { last: true }, 1),
            (Operation::Exec { into, last: false }, 0),
            (Operation::Exec { into, last: true }, 1),
        ] {
            let invalid = operation.invalidates();
            assert_eq!(invalid.len(), expected, "{operation:?}");
            assert!(invalid.iter().all(|&(range, event)| (range, event) == (PageRange::ALL, Unmap)));
        }
    }
}
