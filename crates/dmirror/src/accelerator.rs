//! The accelerator: its mirror, and transfers through it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use pagemirror_core::addr::{MIN_PAGE, PageRange, VirtAddr};
use pagemirror_core::error::Error as CoreError;
use pagemirror_core::mirror::{
    Accessed, FaultError, FaultErrorKind, MAX_ACCESS_PAGES, Mirror, MirrorStats, Need, Vanished,
};
use pagemirror_core::table::{Page, UNIT_PAGES};
use pagemirror_core::wait::{Deadline, Expired};
use pagemirror_linux::{ProcessSpace, memory};

use crate::error::Error;

/// The error of a copy that found nothing to copy from or to.
const EFAULT: i32 = 14;

/// What a transfer used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfer {
    /// The oldest look of the host ([`ProcessSpace::looks`]) that a translation came from; none where none was used.
    pub oldest_look: Option<u64>,
    /// Parts that were made once by address, without a translation.
    pub uncached: u64,
}

/// An emulated accelerator on this process's memory.
#[derive(Debug)]
pub struct Accelerator {
    mirror: Mirror<ProcessSpace>,
}

impl Accelerator {
    /// A device with an empty page table. Several on one host are several devices of one address space.
    ///
    /// # Blocking
    /// Waits for callbacks that are running.
    #[must_use]
    pub fn new(host: Arc<ProcessSpace>) -> Self {
        Self { mirror: Mirror::new(host) }
    }

    /// Its mirror: the page table and the fault path.
    #[must_use]
    pub fn mirror(&self) -> &Mirror<ProcessSpace> {
        &self.mirror
    }

    /// What its mirror counted.
    #[must_use]
    pub fn stats(&self) -> MirrorStats {
        self.mirror.stats()
    }

    /// Reads the bytes from `address` on into `buffer`.
    ///
    /// # Errors
    /// [`Error::Fault`] at the first page that cannot be had: nothing mapped, every access forbidden, the deadline.
    ///
    /// # Blocking
    /// Faults pages in, and sleeps while watched memory is changing, until the deadline.
    pub fn read(&self, address: VirtAddr, buffer: &mut [u8], by: &Deadline<'_>) -> Result<Transfer, Error> {
        let len = buffer.len();
        self.transfer(address, len, Need::READ, by, &mut |at, part| memory::read(at, &mut buffer[part]))
    }

    /// Makes `copy` for each part of the `len` bytes at `address`, once its pages are translated.
    pub(crate) fn transfer(
        &self,
        address: VirtAddr,
        len: usize,
        need: Need,
        by: &Deadline<'_>,
        copy: &mut dyn FnMut(VirtAddr, Range<usize>) -> io::Result<usize>,
    ) -> Result<Transfer, Error> {
        let mut transfer = Transfer::default();
        if len == 0 {
            return Ok(transfer);
        }
        PageRange::covering(address, len as u64, MIN_PAGE)?;
        for part in parts(address, len) {
            let done = part.start as u64;
            let at = VirtAddr::new(address.get() + done);
            let range = PageRange::covering(at, part.len() as u64, MIN_PAGE)?;
            let copied = self.part(range, need, by, &mut transfer, &mut || copy_whole(copy, at, &part));
            match copied.map_err(|source| Error::Fault { done, source })? {
                Copied::Whole => {}
                Copied::Refused(errno) => return Err(Error::Copy { done, errno }),
            }
        }
        Ok(transfer)
    }

    /// Makes one copy: through translations, or once by address where none can be kept.
    fn part(
        &self,
        range: PageRange,
        need: Need,
        by: &Deadline<'_>,
        transfer: &mut Transfer,
        copy: &mut dyn FnMut() -> Result<Copied, Vanished>,
    ) -> Result<Copied, FaultError> {
        loop {
            let mut oldest = transfer.oldest_look;
            let accessed = self.mirror.access(range, need, by, |pages| {
                oldest = older(transfer.oldest_look, pages);
                copy()
            })?;
            match accessed {
                Accessed::Done(copied) => {
                    transfer.oldest_look = oldest;
                    return Ok(copied);
                }
                Accessed::Not(_) => match copy() {
                    Ok(copied) => {
                        transfer.uncached += 1;
                        return Ok(copied);
                    }
                    // The fault path says why, in the next round.
                    Err(Vanished) => expired(range, by)?,
                },
            }
        }
    }
}

/// What the kernel said of a copy.
pub(crate) enum Copied {
    Whole,
    Refused(i32),
}

fn copy_whole(
    copy: &mut dyn FnMut(VirtAddr, Range<usize>) -> io::Result<usize>,
    at: VirtAddr,
    part: &Range<usize>,
) -> Result<Copied, Vanished> {
    match copy(at, part.clone()) {
        Ok(copied) if copied == part.len() => Ok(Copied::Whole),
        Ok(_) => Err(Vanished),
        Err(error) if error.raw_os_error() == Some(EFAULT) => Err(Vanished),
        Err(error) => Ok(Copied::Refused(error.raw_os_error().unwrap_or(0))),
    }
}

fn expired(range: PageRange, by: &Deadline<'_>) -> Result<(), FaultError> {
    let error = match by.expired() {
        None => return Ok(()),
        Some(Expired::TimedOut) => CoreError::TimedOut { range },
        Some(Expired::Cancelled) => CoreError::Cancelled { range },
    };
    Err(FaultError { range, done: 0, kind: FaultErrorKind::Wait(error) })
}

/// The oldest look of `pages` and of what was before.
fn older(before: Option<u64>, pages: &[Page]) -> Option<u64> {
    pages.iter().map(|page| page.frame() / UNIT_PAGES as u64).chain(before).min()
}

/// The parts of `len` bytes at `address` that one access takes each: up to the next multiple of its size.
fn parts(address: VirtAddr, len: usize) -> impl Iterator<Item = Range<usize>> {
    let most = MAX_ACCESS_PAGES * MIN_PAGE as usize;
    let mut at = 0;
    std::iter::from_fn(move || {
        let to_boundary = most - (address.get() + at as u64) as usize % most;
        let part = at..len.min(at + to_boundary);
        at = part.end;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_bytes_once_and_none_crosses_an_access() {
        for (address, len) in [(0, 1), (4095, 65_537), (65_535, 2), (65_536, 131_072), (70_000, 200_000)] {
            let mut next = 0;
            for part in parts(VirtAddr::new(address), len) {
                assert_eq!(part.start, next);
                next = part.end;
                let (first, last) = (address + part.start as u64, address + part.end as u64 - 1);
                assert_eq!(first / 65_536, last / 65_536);
            }
            assert_eq!(next, len);
        }
    }
}
