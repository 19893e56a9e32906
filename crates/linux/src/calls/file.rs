//! Operations on files, which take pages from every mapping of the file.

use std::os::fd::BorrowedFd;

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::notify::Event;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{CallError, outside_sections};
use crate::aliases::FileSpan;
use crate::maps::Vma;
use crate::source::{Userfault, shown};

/// A file as the list of mappings names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: (u32, u32),
    inode: u64,
}

impl Userfault {
    /// Sets the length of `file`. Pages behind the new end are taken from every mapping of it in this process, also from
    /// private ones, and each of them is invalidated, however it was mapped and whether or not it is watched.
    ///
    /// # Errors
    /// [`CallError`] with the kernel's answer.
    ///
    /// # Blocking
    /// Reads the list of mappings, runs the callbacks. Not inside a submission, not from a callback.
    pub fn truncate(&self, file: BorrowedFd<'_>, len: u64) -> Result<(), CallError> {
        let (call, target) = ("a truncation", format!("the file at {len} bytes"));
        // The page that holds the new end keeps its frame, but what lies behind the end in it is zeroed: revoked as well.
        self.change_file(call, &target, file, (len, u64::MAX - len), || rustix::fs::ftruncate(file, len))
    }

    /// Punches a hole of `len` bytes at `offset` into `file`, whose length stays. As [`truncate`](Self::truncate) otherwise.
    ///
    /// # Errors
    /// [`CallError`] with the kernel's answer.
    ///
    /// # Blocking
    /// As [`truncate`](Self::truncate).
    pub fn punch(&self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), CallError> {
        let (call, target) = ("a hole", format!("{len} bytes of the file at {offset}"));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.change_file(call, &target, file, (offset, len), || rustix::fs::fallocate(file, flags, offset, len))
    }

    fn change_file(
        &self,
        call: &'static str,
        target: &str,
        file: BorrowedFd<'_>,
        (offset, len): (u64, u64),
        change: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), CallError> {
        outside_sections(call, target)?;
        let failed = |errno| CallError::new(call, target, errno);
        let id = self.id_of(file).map_err(failed)?;
        let before = self.mappings_of(id, offset, len);
        let running = self.invalidate_all(before.iter().copied(), Event::Remove);
        let changed = change();
        drop(running);
        // What was mapped meanwhile may show, and have had registered, pages that are gone by now.
        let late = self.mappings_of(id, offset, len).into_iter().filter(|range| !before.contains(range));
        drop(self.invalidate_all(late, Event::Remove));
        changed.map_err(failed)
    }

    /// Every mapping of the same part of the file that `range` shows, but `range` itself.
    pub(super) fn mappings_behind(&self, range: PageRange) -> Vec<PageRange> {
        let mut found = Vec::new();
        for vma in self.each_mapping(range) {
            let Some((_, FileSpan { device, inode, offset, len })) = shown(range, &vma).filter(|_| vma.inode != 0)
            else {
                continue;
            };
            found.extend(self.mappings_of(FileId { device, inode }, offset, len));
        }
        found.retain(|other| !range.contains(*other));
        found
    }

    /// The addresses at which this process shows `len` bytes of the file from `offset`. Everything, when the kernel does not
    /// say.
    fn mappings_of(&self, file: FileId, offset: u64, len: u64) -> Vec<PageRange> {
        let of_file = |vma: &Vma| (vma.dev_major, vma.dev_minor) == file.device && vma.inode == file.inode;
        let part = |vma: Vma| {
            let first = offset.max(vma.offset);
            let last = offset.saturating_add(len).min(vma.offset + (vma.end - vma.start));
            let start = vma.start + first.checked_sub(vma.offset)?;
            PageRange::covering(VirtAddr::new(start), last.checked_sub(first)?, MIN_PAGE).ok()
        };
        self.each_mapping(PageRange::ALL).into_iter().filter(of_file).filter_map(part).collect()
    }

    /// The mappings that overlap `range`, in the order of their addresses.
    fn each_mapping(&self, range: PageRange) -> Vec<Vma> {
        let mut found = Vec::new();
        let mut at = range.start().get();
        while let Ok(Some(vma)) = self.maps.query(at, true) {
            if vma.start >= range.end().get() {
                break;
            }
            at = vma.end;
            found.push(vma);
        }
        found
    }

    /// What the list of mappings calls this file. A file system may show another device there than to fstat, so the file is
    /// mapped for a moment and looked at; a descriptor that does not permit that is taken at fstat's word.
    fn id_of(&self, file: BorrowedFd<'_>) -> Result<FileId, Errno> {
        if let Ok(probe) = crate::mapping::Mapping::of_descriptor(file)
            && let Ok(Some(vma)) = self.maps.query(probe.start(), false)
        {
            return Ok(FileId { device: (vma.dev_major, vma.dev_minor), inode: vma.inode });
        }
        let status = rustix::fs::fstat(file)?;
        let device = (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
        Ok(FileId { device, inode: status.st_ino })
    }
}
