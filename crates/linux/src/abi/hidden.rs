//! Features of the kernel that a test hides, to find out how the source does without them. Hiding takes away, it never adds:
//! what is left is what an older kernel, a container or an ordinary user has.

use crate::maps::Maps;
use pagemirror_sync::atomic::{AtomicU32, Ordering};

/// What can be hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[doc(hidden)]
pub enum Feature {
    /// `UFFD_FEATURE_WP_ASYNC` (Linux 6.7).
    WpAsync = 1,
    /// `UFFD_FEATURE_WP_UNPOPULATED` (Linux 6.4).
    WpUnpopulated = 2,
    /// `UFFD_FEATURE_WP_HUGETLBFS_SHMEM` (Linux 5.19).
    WpShared = 4,
    /// `UFFD_FEATURE_MOVE` (Linux 6.8).
    Move = 8,
    /// `PAGEMAP_SCAN` (Linux 6.7).
    PagemapScan = 16,
    /// `PROCMAP_QUERY` (Linux 6.11).
    ProcmapQuery = 32,
    /// All of userfaultfd: ENOSYS, and no device.
    Userfaultfd = 64,
    /// The right to it: EPERM, and a device that may not be opened.
    Permission = 128,
}

impl Feature {
    /// All of them, by the names that tests are told.
    pub const ALL: [(&str, Self); 8] = [
        ("wp-async", Self::WpAsync),
        ("wp-unpopulated", Self::WpUnpopulated),
        ("wp-shared", Self::WpShared),
        ("move", Self::Move),
        ("pagemap-scan", Self::PagemapScan),
        ("procmap-query", Self::ProcmapQuery),
        ("userfaultfd", Self::Userfaultfd),
        ("permission", Self::Permission),
    ];
}

static HIDDEN: AtomicU32 = AtomicU32::new(0);

/// Hides `feature` from this process for ever. Before a source is opened.
#[doc(hidden)]
pub fn hide(feature: Feature) {
    // ORDERING: Relaxed; the caller opens the source afterwards, in the same thread.
    HIDDEN.fetch_or(feature as u32, Ordering::Relaxed);
}

/// Whether a test hides it.
pub(super) fn is_hidden(feature: Feature) -> bool {
    // ORDERING: Relaxed, see `hide`.
    HIDDEN.load(Ordering::Relaxed) & feature as u32 != 0
}

/// Whether a kernel without what is hidden would refuse to register the range, because a shared mapping is in it: this one has no
/// way to be told so.
pub(super) fn refuses_shared(start: u64, len: u64) -> bool {
    if !is_hidden(Feature::WpShared) || !is_hidden(Feature::WpAsync) {
        return false;
    }
    let Ok(maps) = Maps::open() else { return false };
    let mut at = start;
    while let Ok(Some(vma)) = maps.query(at, true) {
        if vma.start >= start + len {
            break;
        }
        if vma.shared {
            return true;
        }
        at = vma.end;
    }
    false
}
