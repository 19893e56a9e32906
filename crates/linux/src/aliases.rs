//! Shared mappings that are watched: which file they show, and whether a discard of it may be under way unannounced.
//!
//! `madvise(MADV_REMOVE)` acts on the file: it takes the pages from every mapping of it and is announced for one. So every
//! watched shared mapping is remembered with its file and offset, and a discard that is announced for one is applied to
//! all that are known.
//!
//! A discard that entered the kernel *before* a mapping was registered is not announced at all, and registering does not
//! wait for it. So a shared mapping starts in doubt. When a proof that began later has seen every thread elsewhere, the
//! addresses count as cleared, until an event unmaps or moves them.
//!
//! # Fields
//! The table is changed by who watches (adds, refreshes) and by the pump (drops), under one lock that is held for one pass
//! over it. Its memory is allocated once: nothing allocates or frees under the lock.

use pagemirror_core::addr::{PageRange, VirtAddr};

/// Shared mappings that can be watched at once. A pass over a full table takes some tens of microseconds.
const CAPACITY: usize = 4096;

/// Parts of files that one discard may touch before it is treated as a discard of everything.
const SPANS: usize = 16;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSpan {
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    /// First byte in the file.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) len: u64,
}

impl FileSpan {
    fn same_file(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }
}

#[derive(Debug, Clone, Copy)]
struct Alias {
    range: PageRange,
    file: FileSpan,
    /// The doubt that was set when it was first watched; once a proof has ended it, the addresses are cleared.
    mark: u64,
    /// Dropped by an event: it still tells which file an announced range showed, but is not cleared any more.
    dropped: bool,
}

/// The table. See the module's text.
#[derive(Debug)]
pub(crate) struct Aliases {
    entries: Vec<Alias>,
    /// Something that is watched, or was, was forgotten: a range that is not here may show a file all the same.
    forgetful: bool,
}

/// What is known of a mapping that is being watched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was watched before, with the doubt of this mark.
    Known(u64),
    /// It is new, or was dropped: put it in doubt, then [`add`](Aliases::add) it.
    New,
}

/// Discards of everything that is watched: the table or a list was too small to be exact.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Aliases {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::with_capacity(CAPACITY), forgetful: false }
    }

    pub(crate) fn standing(&self, range: PageRange, file: FileSpan) -> Standing {
        let known = |alias: &&Alias| !alias.dropped && shows(alias, range, file);
        self.entries.iter().find(known).map_or(Standing::New, |alias| Standing::Known(alias.mark))
    }

    /// Remembers a mapping whose doubt has this mark.
    pub(crate) fn add(&mut self, range: PageRange, file: FileSpan, mark: u64) -> Result<(), TooMany> {
        let alias = Alias { range, file, mark, dropped: false };
        if let Some(place) = self.entries.iter_mut().find(|old| old.range == range) {
            *place = alias;
            return Ok(());
        }
        if self.entries.len() == CAPACITY {
            self.entries.retain(|alias| !alias.dropped);
            self.forgetful |= self.entries.len() < CAPACITY;
        }
        if self.entries.len() == CAPACITY {
            return Err(TooMany);
        }
        self.entries.push(alias);
        Ok(())
    }

    /// Drops the clearance of what an event names.
    pub(crate) fn drop_named(&mut self, range: PageRange) {
        self.entries.iter_mut().filter(|alias| alias.range.overlaps(range)).for_each(|alias| alias.dropped = true);
    }

    /// What was shown at `from` is shown at `to` now. It stays watched, and a discard of it there is announced with the new
    /// addresses, so they must tell their file; cleared they are not.
    pub(crate) fn moved(&mut self, from: PageRange, to: PageRange) {
        for index in 0..self.entries.len() {
            let Some(file) = span_of(&self.entries[index], from) else { continue };
            let part = self.entries[index].range.intersection(from);
            let into = part.map_or(0, |part| part.start().get() - from.start().get());
            let start = VirtAddr::new(to.start().get() + into);
            let Ok(range) = PageRange::covering(start, file.len, pagemirror_core::addr::MIN_PAGE) else { continue };
            if self.entries.iter().any(|alias| alias.range == range && alias.file == file) {
                continue;
            }
            // Its memory is not to grow here: the pump does not allocate.
            if self.entries.len() == CAPACITY {
                self.forgetful = true;
                return;
            }
            self.entries.push(Alias { range, file, mark: 0, dropped: true });
        }
    }

    /// Calls `each` for everything that is watched, if a discard of `range` might take pages from any of it: when the kernel
    /// cannot be asked what `range` shows, and something was forgotten that might have said so.
    pub(crate) fn for_each_if_forgetful(&self, range: PageRange, mut each: impl FnMut(PageRange)) -> bool {
        if self.forgetful {
            let watched = self.entries.iter().filter(|alias| !alias.dropped && !range.contains(alias.range));
            watched.for_each(|alias| each(alias.range));
        }
        self.forgetful
    }

    /// Calls `each` for every other watched range that a discard of `range` takes pages from. `shown` is what the kernel
    /// says is mapped there now.
    pub(crate) fn for_each_alias(
        &self,
        range: PageRange,
        shown: Option<FileSpan>,
        mut each: impl FnMut(PageRange),
    ) -> Result<(), TooMany> {
        let mut spans = [None; SPANS];
        let mut used = 0;
        let remembered = self.entries.iter().filter_map(|alias| span_of(alias, range));
        for span in remembered.chain(shown) {
            if spans[..used].contains(&Some(span)) {
                continue;
            }
            *spans.get_mut(used).ok_or(TooMany)? = Some(span);
            used += 1;
        }
        for span in spans.iter().flatten() {
            for alias in self.entries.iter().filter(|alias| !alias.dropped) {
                if let Some(other) = addresses_of(alias, span).filter(|other| !range.contains(*other)) {
                    each(other);
                }
            }
        }
        Ok(())
    }
}

/// Whether this entry covers `range` and shows that part of the file there.
fn shows(alias: &Alias, range: PageRange, file: FileSpan) -> bool {
    alias.range.contains(range)
        && alias.file.same_file(&file)
        && alias.file.offset + (range.start().get() - alias.range.start().get()) == file.offset
}

/// The part of the file that an entry shows at `range`.
fn span_of(alias: &Alias, range: PageRange) -> Option<FileSpan> {
    let part = alias.range.intersection(range)?;
    let into = part.start().get() - alias.range.start().get();
    Some(FileSpan { offset: alias.file.offset + into, len: part.len(), ..alias.file })
}

/// The addresses at which an entry shows `span`.
fn addresses_of(alias: &Alias, span: &FileSpan) -> Option<PageRange> {
    if !alias.file.same_file(span) {
        return None;
    }
    let first = span.offset.max(alias.file.offset);
    let last = (span.offset + span.len).min(alias.file.offset + alias.file.len);
    let start = alias.range.start().get() + first.checked_sub(alias.file.offset)?;
    // Both are multiples of the page, so this only fails when there is no overlap.
    PageRange::covering(VirtAddr::new(start), last.checked_sub(first)?, pagemirror_core::addr::MIN_PAGE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::covering(VirtAddr::new(first * 4096), count * 4096, 4096).unwrap()
    }

    fn file(inode: u64, first: u64, count: u64) -> FileSpan {
        FileSpan { device: (0, 1), inode, offset: first * 4096, len: count * 4096 }
    }

    fn found(aliases: &Aliases, range: PageRange, shown: Option<FileSpan>) -> Vec<PageRange> {
        let mut found = Vec::new();
        aliases.for_each_alias(range, shown, |other| found.push(other)).unwrap();
        found
    }

    #[test]
    fn a_discard_reaches_every_known_mapping_of_the_same_part_of_the_file() {
        let mut aliases = Aliases::new();
        aliases.add(pages(100, 8), file(7, 0, 8), 1).unwrap();
        aliases.add(pages(200, 8), file(7, 4, 8), 2).unwrap();
        aliases.add(pages(300, 8), file(9, 0, 8), 3).unwrap();
        assert_eq!(found(&aliases, pages(100, 8), None), [pages(200, 4)]);
        assert_eq!(found(&aliases, pages(100, 4), None), []);
        assert_eq!(found(&aliases, pages(500, 1), Some(file(7, 5, 1))), [pages(105, 1), pages(201, 1)]);
    }

    #[test]
    fn what_was_unmapped_is_not_cleared_but_still_tells_its_file() {
        let mut aliases = Aliases::new();
        aliases.add(pages(100, 8), file(7, 0, 8), 1).unwrap();
        aliases.add(pages(200, 8), file(7, 0, 8), 2).unwrap();
        assert_eq!(aliases.standing(pages(102, 2), file(7, 2, 2)), Standing::Known(1));
        assert_eq!(aliases.standing(pages(102, 2), file(7, 3, 2)), Standing::New, "another part of the file");
        aliases.drop_named(pages(107, 10));
        assert_eq!(aliases.standing(pages(102, 2), file(7, 2, 2)), Standing::New);
        assert_eq!(found(&aliases, pages(100, 8), None), [pages(200, 8)]);
        assert_eq!(found(&aliases, pages(200, 8), None), [], "a dropped mapping holds no registration");
    }

    #[test]
    fn what_was_moved_tells_its_file_at_its_new_place() {
        let mut aliases = Aliases::new();
        aliases.add(pages(100, 8), file(7, 0, 8), 1).unwrap();
        aliases.add(pages(200, 8), file(7, 0, 8), 2).unwrap();
        aliases.moved(pages(102, 4), pages(300, 4));
        aliases.moved(pages(102, 4), pages(300, 4));
        aliases.drop_named(pages(102, 4));
        assert_eq!(aliases.entries.len(), 3, "once is enough");
        assert_eq!(found(&aliases, pages(301, 1), None), [pages(203, 1)]);
        assert_eq!(aliases.standing(pages(301, 1), file(7, 3, 1)), Standing::New, "it is not cleared");
    }

    #[test]
    fn another_device_s_file_of_the_same_number_is_another_file() {
        let mut aliases = Aliases::new();
        aliases.add(pages(100, 8), file(7, 0, 8), 1).unwrap();
        let other = FileSpan { device: (0, 2), ..file(7, 0, 8) };
        aliases.add(pages(200, 8), other, 2).unwrap();
        assert_eq!(found(&aliases, pages(100, 8), None), []);
        assert_eq!(aliases.standing(pages(100, 8), other), Standing::New);
    }

    #[test]
    fn a_full_table_forgets_what_was_dropped_and_then_says_so() {
        let mut aliases = Aliases::new();
        for page in 0..CAPACITY as u64 {
            aliases.add(pages(page * 2, 1), file(1, page, 1), 1).unwrap();
        }
        assert_eq!(aliases.add(pages(1_000_000, 1), file(2, 0, 1), 1), Err(TooMany));
        aliases.drop_named(pages(0, 1));
        let mut taken = 0;
        assert!(!aliases.for_each_if_forgetful(pages(0, 1), |_| taken += 1));
        assert_eq!(aliases.add(pages(1_000_000, 1), file(2, 0, 1), 1), Ok(()));
        assert!(aliases.for_each_if_forgetful(pages(2, 1), |_| taken += 1));
        assert_eq!(taken, CAPACITY - 1, "everything but the range itself");
    }
}
