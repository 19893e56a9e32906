//! A device that needs no hardware: it keeps pages in memory.

use std::io;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_linux::lock;
use pagemirror_registration::{Access, RegisterError, RegisterErrorKind, Registrar};
use pagemirror_sync::Mutex;

/// Registers a range by locking it in memory (`mlock`), so that touching it never waits for a disk: what a real-time thread
/// or a secret wants of its buffers. A cache over it keeps locked what is used, and unlocks what it evicts.
///
/// The kernel does not count locks: one munlock undoes them all. So the ranges are kept here, and a deregistration unlocks
/// only the pages that no other registration covers. Locks that the program makes itself are not known here.
///
/// ```no_run
/// use std::sync::Arc;
/// use pagemirror::{Config, LockedMemory, Options, RegistrationCache, Userfault};
/// let source = Userfault::open(Config::default())?;
/// let cache = RegistrationCache::new(source, LockedMemory::default(), Options::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LockedMemory {
    /// What is locked, by key. Held across mlock and munlock, so that the list and the kernel agree. Neither waits for the pump,
    /// and the pump never takes it.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    ranges: Vec<(u64, PageRange)>,
    next: u64,
}

impl Default for LockedMemory {
    fn default() -> Self {
        Self { held: Mutex::new(Held::default()) }
    }
}

impl Registrar for LockedMemory {
    type Key = u64;

    fn register(&self, range: PageRange, _access: Access) -> Result<u64, RegisterError> {
        let mut held = self.held.lock();
        if let Err(error) = lock::lock(range) {
            // What was locked before it failed is let go, but for what others hold.
            held.unlock_uncovered(range);
            return Err(explain(error));
        }
        held.next += 1;
        let key = held.next;
        held.ranges.push((key, range));
        Ok(key)
    }

    fn deregister(&self, key: u64) -> Result<(), RegisterError> {
        let mut held = self.held.lock();
        if let Some(at) = held.ranges.iter().position(|(of, _)| *of == key) {
            let (_, range) = held.ranges.swap_remove(at);
            held.unlock_uncovered(range);
        }
        Ok(())
    }
}

impl Held {
    /// Unlocks the parts of `range` that no registration covers.
    fn unlock_uncovered(&self, range: PageRange) {
        for part in uncovered(range, self.ranges.iter().map(|(_, held)| *held)) {
            // What is not mapped any more is not locked any more: unmapping has unlocked it.
            let _ = lock::unlock(part);
        }
    }
}

/// The parts of `range` that none of `others` covers, in order.
fn uncovered(range: PageRange, others: impl Iterator<Item = PageRange>) -> Vec<PageRange> {
    let mut covered: Vec<_> = others.filter_map(|other| other.intersection(range)).collect();
    covered.sort_unstable_by_key(|part| part.start());
    let mut parts = Vec::new();
    let mut at = range.start();
    for part in covered {
        parts.extend(between(at, part.start()));
        at = at.max(part.end());
    }
    parts.extend(between(at, range.end()));
    parts
}

fn between(start: VirtAddr, end: VirtAddr) -> Option<PageRange> {
    let len = end.get().checked_sub(start.get())?;
    // Both ends are of pages, so this is the range itself; of no page it is none.
    PageRange::covering(start, len, pagemirror_core::addr::MIN_PAGE).ok()
}

fn explain(error: io::Error) -> RegisterError {
    let (kind, reason) = match error.kind() {
        io::ErrorKind::OutOfMemory => (
            RegisterErrorKind::NoRoom,
            "the limit on locked memory is reached, or a part is not mapped: raise RLIMIT_MEMLOCK (ulimit -l) or lock less",
        ),
        io::ErrorKind::PermissionDenied => {
            (RegisterErrorKind::Refused, "this process may lock no memory: raise RLIMIT_MEMLOCK (ulimit -l)")
        }
        _ => (RegisterErrorKind::Refused, "the pages could not be brought into memory"),
    };
    RegisterError::new(kind, reason, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
    }

    #[test]
    fn what_others_cover_is_left_out() {
        let of = |others: &[PageRange]| uncovered(pages(10, 10), others.iter().copied());
        assert_eq!(of(&[]), [pages(10, 10)]);
        assert_eq!(of(&[pages(0, 10), pages(20, 5)]), [pages(10, 10)], "neighbours cover nothing");
        assert_eq!(of(&[pages(14, 2), pages(12, 3)]), [pages(10, 2), pages(16, 4)]);
        assert_eq!(of(&[pages(5, 8), pages(18, 8)]), [pages(13, 5)]);
        assert_eq!(of(&[pages(12, 6), pages(13, 1)]), [pages(10, 2), pages(18, 2)]);
        assert_eq!(of(&[pages(0, 100)]), []);
    }
}
