//! This process's memory, as a mirror mirrors it.
//!
//! # Guarantee
//! [`range_fault`](HostSpace::range_fault) describes each page as it was at an instant of the call, after its range was
//! watched. Which mapping a part belongs to is asked before and after that, so that a mapping that came in between, and of
//! which nobody would have been told, is not described by the rights of the one before.
//!
//! # What a page is said to be
//! *Writable*, where the process may write it and the next write goes to this very page: a page of a shared mapping, or one
//! that is this mapping's own (`MAP_PRIVATE` and not of a file any more, not the page of zeros, not shared with a forked
//! child). The kernel does not show the write bit of an entry. So a shared page whose entry is write-protected only to note
//! the first write to its file counts as writable, and a snapshot, which reads no entry of its own for each page, counts a
//! page as writable that a forked child still shares.
//!
//! The *frame* is the number of the look that saw the page, times 512, plus the page's number within its 2 MiB: user space
//! has no better name for a frame, and this one tells which translations are older than a change.
//!
//! # Not covered
//! mprotect is not reported. A page that the process replaces by copying on write changes its frame unreported: a device
//! that holds frames must ask for writing. `MADV_POPULATE_*` needs Linux 5.14, and is refused with an error before.
#![expect(unsafe_code, reason = "madvise(2) takes a raw address")]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::mirror::{HostSpace, Look, Need, Refusal, Run};
use pagemirror_core::source::{Probe, Source, WatchError, Watched};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::table::{Page, UNIT_PAGES};
use pagemirror_sync::{Arc, thread};
use rustix::io::Errno;
use rustix::mm::Advice;

use crate::abi::{PAGE_IS_FILE, PAGE_IS_GUARD, PAGE_IS_HUGE, PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PageRegion};
use crate::maps::{Maps, Vma};
use crate::pagemap::{Pagemap, PagemapEntry};
use crate::source::Userfault;

/// The order of a huge page of the second level, with pages of 4 KiB on every architecture here.
const HUGE_ORDER: u8 = 9;

/// How often the kernel must refuse before it is believed that the reason is not a mapping that comes and goes.
const TRIES: u32 = 4;

/// What a scan reports, and what it tells of it.
const REPORTED: u64 = PAGE_IS_PRESENT;
const TOLD: u64 = PAGE_IS_PRESENT | PAGE_IS_PFNZERO | PAGE_IS_HUGE;

/// This process's memory, watched by its source.
///
/// ```no_run
/// use std::{sync::Arc, time::Duration};
/// use pagemirror_core::{addr::{PageRange, VirtAddr}, mirror::{Mirror, Need, Request}, wait::Deadline};
/// use pagemirror_linux::{Config, ProcessSpace, Userfault};
///
/// let host = Arc::new(ProcessSpace::new(Userfault::open(Config::default())?)?);
/// let mirror = Mirror::new(host);
/// let buffer = vec![1_u8; 1 << 20];
/// let range = PageRange::covering(VirtAddr::of(buffer.as_ptr()), 1 << 20, 4096)?;
/// mirror.range_fault(range, Request::all(Need::READ), &Deadline::after(Duration::from_secs(1)))?;
/// assert!(mirror.table().walk(range.start()).is_valid());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ProcessSpace {
    source: Arc<Userfault>,
    maps: Maps,
    pagemap: Pagemap,
    /// Looks that have begun.
    looks: AtomicU64,
    /// `PAGEMAP_SCAN` is there and knows guard pages: what a scan reports.
    reported: Option<u64>,
}

/// What was said of a part: how many pages, and why the next one was refused.
type Part = (usize, Option<Refusal>);

impl ProcessSpace {
    /// The memory that `source` watches.
    ///
    /// # Errors
    /// When `/proc` is not mounted, or the system's pages are not of 4 KiB, which the device page table is built for.
    pub fn new(source: Arc<Userfault>) -> io::Result<Self> {
        if source.page_size() != MIN_PAGE {
            let why =
                format!("pages of {} bytes: a mirror needs 4096; use a kernel with 4 KiB pages", source.page_size());
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let pagemap = Pagemap::open()?;
        let reported = reported_categories(&pagemap)?;
        Ok(Self { source, maps: Maps::open()?, pagemap, looks: AtomicU64::new(0), reported })
    }

    /// How many looks have begun. A look begins when its part is watched and before a page of it is read, so a translation
    /// whose frame, divided by 512, is not above this number was read, or begun to be read, before now.
    #[must_use]
    pub fn looks(&self) -> u64 {
        // ORDERING: SeqCst: compared across threads with the changes that they make.
        self.looks.load(Ordering::SeqCst)
    }

    /// One part of a mapping.
    fn fault_part(&self, vma: &Vma, part: PageRange, needs: &[Need], pages: &mut [Page]) -> Option<(Part, bool)> {
        if !vma.readable {
            return Some((unreachable_pages(needs, pages), false));
        }
        let allowed = needs.iter().position(|need| need.writes() && !vma.writable);
        let forbidden = allowed.map(|_| Refusal::PermissionDenied);
        let allowed = allowed.unwrap_or(needs.len());
        let Some(part) = first_pages(part, allowed) else { return Some(((0, forbidden), false)) };
        let watched = match self.watch_part(vma, part)? {
            Ok(watched) => watched,
            Err(why) => return Some(((0, Some(why)), false)),
        };
        // Behind the watch: a mapping that was replaced while nobody watched it is not one that was looked at.
        // ORDERING: SeqCst, see `looks`.
        let look = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
        let described = |pages: &mut [Page]| {
            first_pages(part, pages.len()).is_none_or(|part| self.describe(vma, part, pages, look).is_ok())
        };
        let met = |pages: &[Page]| needs.iter().zip(pages).all(|(need, page)| need.is_met_by(*page));
        let in_doubt = watched == Watched::InDoubt;
        // Pages that are there already cost a look and no more.
        if described(&mut pages[..allowed]) && met(&pages[..allowed]) {
            return Some(((allowed, forbidden), in_doubt));
        }
        let (told, refused) = match self.populate(part, &needs[..allowed]) {
            Populated::All => (allowed, forbidden),
            Populated::Changed => return None,
            Populated::Until(index, why) => (index, Some(why)),
        };
        // What was brought in and is gone again was taken by somebody else.
        let is_told = described(&mut pages[..told]) && met(&pages[..told]);
        is_told.then_some(((told, refused), in_doubt))
    }

    /// Has `part` watched, or says why it cannot be; nothing when it lies in another mapping by now. A refusal counts only when
    /// it is repeated, since a part may be gone for a moment and come back the same.
    fn watch_part(&self, vma: &Vma, part: PageRange) -> Option<Result<Watched, Refusal>> {
        for left in (0..TRIES).rev() {
            // What lies around the part may go on its own.
            let wanted = if left + 1 == TRIES { around(vma, part) } else { part };
            let watched = self.source.watch(wanted);
            if !self.is_still(vma, part) {
                return None;
            }
            match watched {
                Ok(watched) => return Some(Ok(watched)),
                Err(error) if left == 0 && !error.unmapped => return Some(Err(Refusal::Unwatched(error))),
                Err(_) => thread::yield_now(),
            }
        }
        None
    }

    /// Whether `part` still lies in a mapping like `vma`. Watching a part may have split it.
    fn is_still(&self, vma: &Vma, part: PageRange) -> bool {
        let kind = |vma: &Vma| (vma.readable, vma.writable, vma.shared, vma.inode, vma.dev_major, vma.dev_minor);
        let file_start = |vma: &Vma| vma.start.wrapping_sub(vma.offset);
        self.maps.query(part.start().get(), false).ok().flatten().is_some_and(|now| {
            now.end >= part.end().get()
                && kind(&now) == kind(vma)
                && (vma.inode == 0 || file_start(&now) == file_start(vma))
        })
    }

    /// Brings in what is needed, neighbours with the same need together.
    fn populate(&self, part: PageRange, needs: &[Need]) -> Populated {
        let mut first = 0;
        for same in needs.chunk_by(|a, b| a == b) {
            let run = first..first + same.len();
            first = run.end;
            if !same[0].faults() {
                continue;
            }
            let advice = if same[0].writes() { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
            if advise(part, run.clone(), advice).is_err() {
                // The call does not tell where it stopped.
                let failed =
                    run.clone().find_map(|page| advise(part, page..page + 1, advice).err().map(|why| (page, why)));
                match failed {
                    None => {}
                    Some((page, why)) => return self.explain(part, page, same[0], why),
                }
            }
        }
        Populated::All
    }

    /// Why `page` of `part` cannot be brought in.
    fn explain(&self, part: PageRange, page: usize, need: Need, why: Errno) -> Populated {
        let address = part.start().get() + page as u64 * MIN_PAGE;
        let vma = self.maps.query(address, false).ok().flatten();
        let permits = vma.is_some_and(|vma| vma.readable && (vma.writable || !need.writes()));
        let advice = if need.writes() { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        let is_refused_again = || {
            thread::yield_now();
            advise(part, page..page + 1, advice).is_err()
        };
        match why {
            Errno::AGAIN | Errno::INTR => Populated::Changed,
            // Refused though its mapping permits it: believed only when it is repeated, for the mapping may have just come.
            Errno::FAULT | Errno::NOMEM if !permits || !(1..TRIES).all(|_| is_refused_again()) => Populated::Changed,
            Errno::FAULT => Populated::Until(page, Refusal::BadAddress),
            Errno::NOMEM => Populated::Until(page, Refusal::NoMemory),
            Errno::HWPOISON => Populated::Until(page, Refusal::Poisoned),
            other => Populated::Until(page, Refusal::System(other.raw_os_error())),
        }
    }

    /// What the pages of `part` are, exactly.
    fn describe(&self, vma: &Vma, part: PageRange, pages: &mut [Page], look: u64) -> io::Result<()> {
        let mut entries = [PagemapEntry::default(); UNIT_PAGES];
        let entries = &mut entries[..pages.len()];
        self.pagemap.entries(part.start().get(), entries)?;
        let first = part.start().get() / MIN_PAGE;
        for ((entry, page), number) in entries.iter().zip(pages.iter_mut()).zip(first..) {
            let own = vma.shared || (entry.is_exclusive() && !entry.is_of_file());
            let frame = look * UNIT_PAGES as u64 + number % UNIT_PAGES as u64;
            *page = match (entry.is_guard(), entry.is_present()) {
                (true, _) => Page::ERROR,
                (_, false) => Page::ABSENT,
                _ => Page::readable(frame).with_write(vma.writable && own),
            };
        }
        self.scan(part, TOLD, &mut |region| {
            let index = |address: u64| ((address - part.start().get()) / MIN_PAGE) as usize;
            for page in pages[index(region.start)..index(region.end)].iter_mut().filter(|page| page.is_valid()) {
                *page = page.with_order(order_of(vma, region));
                if region.categories & PAGE_IS_PFNZERO != 0 {
                    *page = page.with_zero();
                }
            }
        })
    }

    /// Calls `visit` with the present pages of `range`. Without `PAGEMAP_SCAN` they are told page by page, and neither the
    /// page of zeros nor huge pages are told apart.
    fn scan(&self, range: PageRange, told: u64, visit: &mut dyn FnMut(PageRegion)) -> io::Result<()> {
        if let Some(reported) = self.reported {
            return self.pagemap.scan(range, reported, told | reported, visit);
        }
        let mut entry = [PagemapEntry::default()];
        for start in (range.start().get()..range.end().get()).step_by(MIN_PAGE as usize) {
            self.pagemap.entries(start, &mut entry)?;
            let file = if entry[0].is_of_file() { PAGE_IS_FILE } else { 0 };
            if entry[0].is_present() {
                visit(PageRegion { start, end: start + MIN_PAGE, categories: PAGE_IS_PRESENT | file });
            }
        }
        Ok(())
    }

    /// Describes `part` of a mapping in runs.
    fn snapshot_part(&self, vma: &Vma, part: PageRange, visit: &mut dyn FnMut(Run)) -> io::Result<()> {
        let (mut at, end) = (part.start().get(), part.end().get());
        if !vma.readable {
            run(at..end, Page::ERROR, visit);
            return Ok(());
        }
        // Whether a page is of a file is dear to tell, and makes a difference only where a mapping can hold both kinds.
        let told = if vma.inode != 0 && !vma.shared { TOLD | PAGE_IS_FILE } else { TOLD };
        self.scan(part, told, &mut |region| {
            run(at..region.start, Page::ABSENT, visit);
            run(region.start..region.end, seen(vma, region), visit);
            at = region.end;
        })?;
        run(at..end, Page::ABSENT, visit);
        Ok(())
    }
}

/// What became of bringing pages in.
enum Populated {
    All,
    Changed,
    /// The page of this index was refused.
    Until(usize, Refusal),
}

impl Source for ProcessSpace {
    fn space(&self) -> &Arc<AddressSpace> {
        self.source.space()
    }
    fn page_size(&self) -> u64 {
        self.source.page_size()
    }
    fn probe(&self) -> Probe {
        self.source.probe()
    }
    fn watch(&self, range: PageRange) -> Result<Watched, WatchError> {
        self.source.watch(range)
    }
}

impl HostSpace for ProcessSpace {
    fn range_fault(&self, range: PageRange, needs: &[Need], pages: &mut [Page]) -> Look {
        let (mut told, mut in_doubt) = (0, false);
        while told < needs.len() {
            let at = range.start().get() + told as u64 * MIN_PAGE;
            let vma = match self.maps.query(at, true) {
                Ok(vma) => vma,
                Err(error) => return refused(told, in_doubt, Refusal::System(error.raw_os_error().unwrap_or(0))),
            };
            let start = vma.map_or(range.end().get(), |vma| if vma.start > at { vma.start } else { vma.end });
            let Some(part) = range.intersection(between(at, start)) else { return Look::Changed };
            let own = told..told + (part.len() / MIN_PAGE) as usize;
            let (needs, pages) = (&needs[own.clone()], &mut pages[own]);
            let looked = match vma.filter(|vma| vma.start <= at) {
                None => Some((unreachable_pages(needs, pages), false)),
                Some(vma) => self.fault_part(&vma, part, needs, pages),
            };
            let Some(((more, why), doubtful)) = looked else { return Look::Changed };
            told += more;
            in_doubt |= doubtful;
            if let Some(why) = why {
                return refused(told, in_doubt, why);
            }
        }
        Look::Told { told, in_doubt, refused: None }
    }

    fn snapshot(&self, range: PageRange, visit: &mut dyn FnMut(Run)) -> Result<(), (VirtAddr, Refusal)> {
        let mut at = range.start().get();
        while at < range.end().get() {
            let failed = |error: io::Error| (VirtAddr::new(at), Refusal::System(error.raw_os_error().unwrap_or(0)));
            let vma = self.maps.query(at, true).map_err(failed)?.filter(|vma| vma.start < range.end().get());
            let Some(vma) = vma else {
                run(at..range.end().get(), Page::ERROR, visit);
                break;
            };
            run(at..vma.start, Page::ERROR, visit);
            if let Some(part) = range.intersection(between(at.max(vma.start), vma.end)) {
                self.snapshot_part(&vma, part, visit).map_err(failed)?;
            }
            at = vma.end;
        }
        Ok(())
    }
}

fn refused(told: usize, in_doubt: bool, why: Refusal) -> Look {
    Look::Told { told, in_doubt, refused: Some(why) }
}

/// Pages that no fault can bring, up to the first that was to be brought.
fn unreachable_pages(needs: &[Need], pages: &mut [Page]) -> Part {
    let told = needs.iter().position(|need| need.faults()).unwrap_or(needs.len());
    pages[..told].fill(Page::ERROR);
    (told, (told < needs.len()).then_some(Refusal::BadAddress))
}

/// What a snapshot says of a region of `vma`.
fn seen(vma: &Vma, region: PageRegion) -> Page {
    if region.categories & PAGE_IS_GUARD != 0 {
        return Page::ERROR;
    }
    let own = vma.shared || region.categories & PAGE_IS_FILE == 0;
    let page = Page::readable(0).with_write(vma.writable && own).with_order(order_of(vma, region));
    if region.categories & PAGE_IS_PFNZERO != 0 { page.with_zero() } else { page }
}

/// The order of the mapping of a region.
fn order_of(vma: &Vma, region: PageRegion) -> u8 {
    let of_mapping = (vma.page_size / MIN_PAGE).trailing_zeros() as u8;
    let huge = if region.categories & PAGE_IS_HUGE != 0 { HUGE_ORDER } else { 0 };
    of_mapping.max(huge)
}

fn run(addresses: Range<u64>, page: Page, visit: &mut dyn FnMut(Run)) {
    if addresses.start < addresses.end {
        visit(Run { range: between(addresses.start, addresses.end), page });
    }
}

/// The pages from `start` to before `end`, both of which the kernel has named; never asked for none.
fn between(start: u64, end: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(start), end - start, MIN_PAGE).unwrap_or(PageRange::ALL)
}

/// What is watched for `part`: the units that it touches, as far as they lie in `vma`. Watching splits mappings at its ends,
/// and a mapping that is split inside a huge page splits that as well.
fn around(vma: &Vma, part: PageRange) -> PageRange {
    const UNIT: u64 = UNIT_PAGES as u64 * MIN_PAGE;
    let start = (part.start().get() / UNIT * UNIT).max(vma.start);
    let end = part.end().get().checked_next_multiple_of(UNIT).unwrap_or(vma.end).min(vma.end);
    if start <= part.start().get() && part.end().get() <= end { between(start, end) } else { part }
}

/// The first `count` pages of `part`.
fn first_pages(part: PageRange, count: usize) -> Option<PageRange> {
    PageRange::covering(part.start(), count as u64 * MIN_PAGE, MIN_PAGE).ok()
}

/// Gives `advice` for some pages of `part`, by their indexes.
fn advise(part: PageRange, pages: Range<usize>, advice: Advice) -> Result<(), Errno> {
    let start = part.start().get() as usize + pages.start * MIN_PAGE as usize;
    let at = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: populating changes no content: it does what a read, or a write of the same bytes, of these pages would do.
    unsafe { rustix::mm::madvise(at, pages.len() * MIN_PAGE as usize, advice) }
}

/// What to ask of `PAGEMAP_SCAN`, if it is there: present pages, and guard pages where they are known.
fn reported_categories(pagemap: &Pagemap) -> io::Result<Option<u64>> {
    let local = 0_u8;
    let here = between(&raw const local as u64 & !(MIN_PAGE - 1), (&raw const local as u64 | (MIN_PAGE - 1)) + 1);
    for reported in [REPORTED | PAGE_IS_GUARD, REPORTED] {
        match pagemap.scan(here, reported, reported, &mut |_| {}) {
            Ok(()) => return Ok(Some(reported)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use pagemirror_core::mirror::Mirror;
    use pagemirror_core::wait::Deadline;

    use super::*;
    use crate::config::Config;
    use crate::mapping::Mapping;

    /// The same memory without `PAGEMAP_SCAN`, as before Linux 6.7: page by page, and the page of zeros is not told apart.
    #[test]
    fn without_scans_the_pages_are_the_same() {
        let source = match Userfault::open(Config::default()) {
            Ok(source) => source,
            Err(error) => return println!("SKIPPED: without_scans_the_pages_are_the_same: {error}"),
        };
        let by_scan = ProcessSpace::new(Arc::clone(&source)).unwrap();
        let by_entry = ProcessSpace { reported: None, ..ProcessSpace::new(source).unwrap() };
        let memory = Mapping::new(12 * 4096).unwrap();
        [0, 1, 5, 11].iter().for_each(|page| memory.touch(page * 4096));
        let range = between(memory.start(), memory.start() + memory.len());
        let by = Deadline::after(std::time::Duration::from_secs(10));
        let runs = |host| Mirror::new(Arc::new(host)).snapshot(range, &by).unwrap();
        let (scanned, read) = (runs(by_scan), runs(by_entry));
        assert_eq!(scanned.len(), 5, "{scanned:?}");
        assert_eq!(scanned, read);
    }
}
