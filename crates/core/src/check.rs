//! Looking before a use at what nobody is told about: protection, guard pages, a mapping that was silently replaced.
//!
//! # Guarantee
//! A look was true at an instant of the call. So a change that had returned before the look began is seen; one that runs beside
//! it, or later, may not be. Pages that were taken out of a *file* (a hole, a truncation) leave the mapping as it was: no
//! look shows them.

use std::fmt;

use crate::addr::{PageRange, VirtAddr};

/// The part of a file that a mapping shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePart {
    /// The device of the file.
    pub device: (u32, u32),
    /// Its inode.
    pub inode: u64,
    /// Where in the file the part begins, in bytes.
    pub offset: u64,
}

/// One piece of what is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    range: PageRange,
    /// None for memory without a file.
    file: Option<FilePart>,
    shared: bool,
}

/// What a range shows: which file at which offset, or none. Rights are no part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown(Vec<Piece>);

impl Shown {
    fn push(&mut self, piece: Piece) {
        // However the kernel has split it: neighbours that go on with the same thing are one.
        if let Some(last) = self.0.last_mut()
            && last.shared == piece.shared
            && last.range.end() == piece.range.start()
            && goes_on(last, &piece)
            && let Some(joined) = PageRange::from_words(last.range.start().get(), piece.range.end().get())
        {
            last.range = joined;
            return;
        }
        self.0.push(piece);
    }

    /// The first address at which the two differ.
    fn first_difference(&self, other: &Self) -> Option<VirtAddr> {
        let at = |shown: &Self, index: usize| shown.0.get(index).copied();
        let index = (0..self.0.len().max(other.0.len())).find(|&index| at(self, index) != at(other, index))?;
        let start = |piece: Option<Piece>| piece.map(|piece| piece.range.start());
        start(at(self, index)).or(start(at(other, index)))
    }
}

fn goes_on(last: &Piece, next: &Piece) -> bool {
    match (last.file, next.file) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            (before.device, before.inode) == (after.device, after.inode)
                && before.offset + last.range.len() == after.offset
        }
        _ => false,
    }
}

/// What a device needs of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// That it may be read.
    Read,
    /// That it may be written.
    Write,
}

/// What one look at a range found. Made by a [`Source`](crate::source::Source), piece by piece in the order of addresses.
#[derive(Debug, Clone)]
pub struct Look {
    range: PageRange,
    shown: Shown,
    unmapped: Option<VirtAddr>,
    unreadable: Option<VirtAddr>,
    unwritable: Option<VirtAddr>,
    guard: Option<VirtAddr>,
    /// The first address that was not looked at.
    next: VirtAddr,
}

impl Look {
    /// A look at `range` that has found nothing yet.
    #[must_use]
    pub fn at(range: PageRange) -> Self {
        let next = range.start();
        Self { range, shown: Shown::default(), unmapped: None, unreadable: None, unwritable: None, guard: None, next }
    }

    /// A mapping was found, behind those that were found before. `file` is the part that it shows at the start of `part`.
    pub fn found(&mut self, part: PageRange, file: Option<FilePart>, shared: bool, readable: bool, writable: bool) {
        let start = part.start();
        if start > self.next {
            self.unmapped.get_or_insert(self.next);
        }
        if !readable {
            self.unreadable.get_or_insert(start);
        }
        if !writable {
            self.unwritable.get_or_insert(start);
        }
        self.next = part.end();
        self.shown.push(Piece { range: part, file, shared });
    }

    /// A guard page was found.
    pub fn found_guard(&mut self, at: VirtAddr) {
        self.guard.get_or_insert(at);
    }

    /// What the range shows, to be compared with later.
    #[must_use]
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Whether the range still shows what it showed `earlier`, with these rights and without guard pages.
    pub fn compare(&self, earlier: &Shown, rights: Rights) -> Checked {
        let end = (self.next < self.range.end()).then_some(self.next);
        let lacking = match rights {
            Rights::Read => self.unreadable,
            Rights::Write => self.unwritable,
        };
        if let Some(at) = self.unmapped.or(end) {
            Checked::Changed(Change::Unmapped, at)
        } else if let Some(at) = self.shown.first_difference(earlier) {
            Checked::Changed(Change::Replaced, at)
        } else if let Some(at) = lacking {
            Checked::Changed(Change::Protected, at)
        } else if let Some(at) = self.guard {
            Checked::Changed(Change::Guarded, at)
        } else {
            Checked::Same
        }
    }
}

/// What happened to a range that nobody was told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Nothing is mapped there any more.
    Unmapped,
    /// Something else is mapped there.
    Replaced,
    /// A right that the device needs was taken away.
    Protected,
    /// A guard page was installed.
    Guarded,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unmapped => "nothing is mapped there any more",
            Self::Replaced => "something else is mapped there",
            Self::Protected => "a right that the device needs was taken away",
            Self::Guarded => "a guard page was installed",
        })
    }
}

/// The answer of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Checked {
    /// Nothing has changed that a look can show.
    Same,
    /// Something has, first at this address.
    Changed(Change, VirtAddr),
    /// This cannot be checked here, and why.
    CannotTell(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::covering(VirtAddr::new(first * 4096), count * 4096, 4096).unwrap()
    }

    fn file(inode: u64, page: u64) -> Option<FilePart> {
        Some(FilePart { device: (0, 1), inode, offset: page * 4096 })
    }

    /// A look at pages 10 to 14, of pieces with their first page, length, file and rights.
    fn look(pieces: &[(u64, u64, Option<FilePart>, bool, bool)]) -> Look {
        let mut look = Look::at(pages(10, 4));
        for &(first, count, file, readable, writable) in pieces {
            look.found(pages(first, count), file, file.is_some(), readable, writable);
        }
        look
    }

    fn changed(change: Change, page: u64) -> Checked {
        Checked::Changed(change, VirtAddr::new(page * 4096))
    }

    #[test]
    fn a_mapping_that_was_only_split_is_the_same() {
        let whole = look(&[(10, 4, file(7, 2), true, true)]);
        let split = look(&[(10, 1, file(7, 2), true, true), (11, 3, file(7, 3), true, false)]);
        assert_eq!(split.compare(whole.shown(), Rights::Read), Checked::Same);
        assert_eq!(split.compare(whole.shown(), Rights::Write), changed(Change::Protected, 11));
        let anonymous = look(&[(10, 2, None, true, true), (12, 2, None, true, true)]);
        assert_eq!(anonymous.compare(look(&[(10, 4, None, true, true)]).shown(), Rights::Write), Checked::Same);
    }

    #[test]
    fn holes_are_found_at_every_place() {
        let whole = look(&[(10, 4, None, true, true)]);
        let compare = |pieces: &[_]| look(pieces).compare(whole.shown(), Rights::Read);
        assert_eq!(compare(&[]), changed(Change::Unmapped, 10));
        assert_eq!(compare(&[(11, 3, None, true, true)]), changed(Change::Unmapped, 10));
        assert_eq!(compare(&[(10, 1, None, true, true), (12, 2, None, true, true)]), changed(Change::Unmapped, 11));
        assert_eq!(compare(&[(10, 3, None, true, true)]), changed(Change::Unmapped, 13));
    }

    #[test]
    fn another_file_another_place_of_it_and_guard_pages_are_found() {
        let whole = look(&[(10, 4, file(7, 2), true, true)]);
        let compare = |pieces: &[_]| look(pieces).compare(whole.shown(), Rights::Read);
        assert_eq!(compare(&[(10, 4, file(8, 2), true, true)]), changed(Change::Replaced, 10));
        assert_eq!(compare(&[(10, 4, file(7, 3), true, true)]), changed(Change::Replaced, 10));
        assert_eq!(compare(&[(10, 4, None, true, true)]), changed(Change::Replaced, 10));
        let mut guarded = look(&[(10, 4, file(7, 2), true, true)]);
        guarded.found_guard(VirtAddr::new(12 * 4096));
        assert_eq!(guarded.compare(whole.shown(), Rights::Read), changed(Change::Guarded, 12));
    }
}
