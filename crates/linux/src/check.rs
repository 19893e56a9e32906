//! Looks at a range for what userfaultfd does not tell: `PROCMAP_QUERY` for the mapping and its rights, `PAGEMAP_SCAN` for guard
//! pages.
//!
//! # Guarantee
//! As in `pagemirror_core::check`. A kernel that can install guard pages and cannot show them (Linux 6.13 and 6.14) makes the answer
//! "cannot tell", which is found out by installing one; so does a `/proc` that cannot be read. Without `PROCMAP_QUERY` the text of
//! `/proc/self/maps` is read: the same answer, for the price of the whole text.
//!
//! # Checked by
//! `tests/check.rs`.
#![expect(unsafe_code, reason = "installs a guard page in a page of its own")]

use std::sync::OnceLock;

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::check::{FilePart, Look};

use crate::mapping::Mapping;
use crate::maps::Vma;
use crate::pagemap::Pagemap;
use crate::source::Userfault;

/// Installs guard pages: Linux 6.13. The C library's headers may not have it.
const MADV_GUARD_INSTALL: i32 = 102;

/// How guard pages are seen here.
#[derive(Debug)]
enum Guards {
    /// By a scan, which has shown one that was installed to be shown.
    Scanned(Pagemap),
    /// There are none: this kernel does not install them.
    Unknown,
    /// One was installed and not shown.
    Unseen,
}

/// Found out once: the kernel stays the same, and the page map is that of this process. A forked child, for which it is not,
/// is refused before it gets here.
static GUARDS: OnceLock<Guards> = OnceLock::new();

impl Userfault {
    pub(crate) fn look_at(&self, range: PageRange) -> Result<Look, &'static str> {
        if self.space.gate().lost().is_some() {
            return Err("coherence is lost");
        }
        let mut look = Look::at(range);
        let mut at = range.start().get();
        while at < range.end().get() {
            let found = self.maps.query(at, true).map_err(|_| "/proc/self/maps cannot be read")?;
            let Some(vma) = found.filter(|vma| vma.start < range.end().get()) else { break };
            at = vma.end;
            add(&mut look, range, &vma);
        }
        match GUARDS.get_or_init(find_out) {
            Guards::Unknown => {}
            Guards::Unseen => return Err("this kernel installs guard pages and does not show them: Linux 6.15 does"),
            Guards::Scanned(pagemap) => {
                let guard = pagemap.first_guard(range).map_err(|_| "/proc/self/pagemap cannot be scanned")?;
                guard.map(VirtAddr::new).into_iter().for_each(|at| look.found_guard(at));
            }
        }
        Ok(look)
    }
}

/// Adds the part of a mapping that lies in `range`.
fn add(look: &mut Look, range: PageRange, vma: &Vma) {
    let start = range.start().get().max(vma.start);
    let len = range.end().get().min(vma.end) - start;
    let Ok(part) = PageRange::covering(VirtAddr::new(start), len, MIN_PAGE) else { return };
    let offset = vma.offset + (start - vma.start);
    let device = (vma.dev_major, vma.dev_minor);
    let file = (vma.inode != 0).then_some(FilePart { device, inode: vma.inode, offset });
    look.found(part, file, vma.shared, vma.readable, vma.writable);
}

/// Installs a guard page where nobody is harmed, and looks whether the scan shows it.
fn find_out() -> Guards {
    let Ok(page) = Mapping::new(rustix::param::page_size()) else { return Guards::Unseen };
    let pointer = page.as_ptr().cast();
    // SAFETY: a page of our own, which nobody looks at.
    if unsafe { libc::madvise(pointer, page.len() as usize, MADV_GUARD_INSTALL) } != 0 {
        return Guards::Unknown;
    }
    let range = PageRange::covering(VirtAddr::new(page.start()), page.len(), MIN_PAGE);
    let shown = |pagemap: &Pagemap| {
        range.is_ok_and(|range| matches!(pagemap.first_guard(range), Ok(Some(at)) if at == page.start()))
    };
    match Pagemap::open() {
        Ok(pagemap) if shown(&pagemap) => Guards::Scanned(pagemap),
        _ => Guards::Unseen,
    }
}
