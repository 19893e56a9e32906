//! Calls that change memory and say so first: `protect`, `discard`, `unmap`, `truncate`, `punch`, and `invalidate` for what
//! somebody else does.
//!
//! # Guarantee
//! While the kernel changes the range, an invalidation of it runs: everything that was cached is stale before the change
//! begins, nothing new is cached before it is over, and no use that begins after the call has returned gets the old pages
//! or the old rights. This holds for mprotect, which userfaultfd does not tell, and for operations on files, which act on every
//! mapping of the file in this process.
//!
//! # Interleavings
//! ```text
//! caller                                   miss                          pump
//! invalidation starts: log, callbacks
//!                                          read_begin: waits
//! system call: event, sleep                                              reads, revokes what is left; never waits
//! returns; invalidation ends               takes its token               for a running invalidation
//! ```
//! No lock is held across the system call: a running invalidation is a slot of the log.
//!
//! # Where not
//! Not inside a submission (the pump would wait for the section, and this call for the pump): refused with
//! [`CallError`]. Not from a callback. In a forked child the call is made and nothing else.
//!
//! # Not covered
//! Other processes that change a file. A mapping of the file that is made while the operation runs is looked for once
//! more when it is over, and revoked then.
//!
//! # Checked by
//! `tests/calls.rs`.
#![expect(unsafe_code, reason = "mprotect, madvise and munmap take raw addresses")]

mod file;
mod own_doubt;

use std::ffi::c_void;
use std::io;

use pagemirror_core::addr::PageRange;
use pagemirror_core::holder::Holder;
use pagemirror_core::notify::Event;
use pagemirror_core::space::Invalidation;
use pagemirror_core::wait::Deadline;
use rustix::io::Errno;
use rustix::mm::{Advice, MprotectFlags};
use thiserror::Error;

use crate::source::Userfault;

/// A call that the kernel refused. What had been cached of the range is stale all the same.
#[derive(Debug, Error)]
#[error("{call} of {target} failed: {source}{advice}")]
#[non_exhaustive]
pub struct CallError {
    /// What was to be done.
    pub call: &'static str,
    /// To what.
    pub target: String,
    /// What to do about it; empty, or behind a semicolon.
    pub advice: &'static str,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

impl CallError {
    pub(crate) fn new(call: &'static str, target: impl ToString, errno: Errno) -> Self {
        let advice = match errno {
            Errno::NOMEM => {
                "; a part of it is not mapped, or the process has too many mappings: map it first, or raise vm.max_map_count"
            }
            Errno::PERM => "; the memory or its file is sealed: nothing can be done about that on purpose",
            Errno::ACCESS => "; its file was opened without the rights that are asked for",
            Errno::INVAL => "; this kind of memory does not have the operation, or it is locked (munlock it first)",
            Errno::OPNOTSUPP => "; the file system does not have the operation",
            Errno::BADF => "; open the file for writing",
            Errno::DEADLK => "; it was called inside a submission: make the call before begin or after it",
            _ => "",
        };
        Self { call, target: target.to_string(), advice, source: errno.into() }
    }

    /// The error number of the system call.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// What a discard does to the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// `MADV_DONTNEED`: gone at once; anonymous memory reads as zero, a file's as the file.
    Now,
    /// `MADV_FREE`: gone when the kernel wants them. Pinned pages stay.
    Lazily,
    /// `MADV_REMOVE`: gone from the file too, for every mapping of it.
    FromFile,
}

impl Discard {
    fn advice(self) -> (Advice, &'static str) {
        match self {
            Self::Now => (Advice::LinuxDontNeed, "a discard (MADV_DONTNEED)"),
            Self::Lazily => (Advice::LinuxFree, "a discard (MADV_FREE)"),
            Self::FromFile => (Advice::LinuxRemove, "a discard (MADV_REMOVE)"),
        }
    }
}

/// Whether the end of a discard is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// It is over and nothing else is in doubt: the range can be cached at once.
    Known,
    /// Something else may still be discarding it, or that could not be ruled out: the range is served uncached until
    /// every thread was seen elsewhere, as after any discard.
    InDoubt,
}

/// What an unmapping does about uses of the pages that are under way.
#[derive(Clone, Copy)]
pub enum Uses<'u> {
    /// Lets them finish on the pages, which stay pinned until then.
    Detach,
    /// Waits for them, and for the devices to let go, before it unmaps; at the deadline it goes on as `Detach`. Only uses
    /// of what these holders registered are waited for.
    ///
    /// A use that can only complete after this call has returned is waited for until the deadline.
    Block(&'u [&'u dyn Holder], &'u Deadline<'u>),
}

impl std::fmt::Debug for Uses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Detach => f.write_str("Detach"),
            Self::Block(holders, deadline) => f.debug_tuple("Block").field(&holders.len()).field(deadline).finish(),
        }
    }
}

/// How an unmapping ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Unmapped {
    /// No device held a page of it when it was unmapped.
    Released,
    /// Uses may be under way on the old pages, which stay pinned for them.
    Detached,
}

impl Userfault {
    /// An invalidation of `range`, for a change that somebody else makes: it runs until the value is dropped. Make the
    /// change in between. Dropped at once, it only revokes.
    ///
    /// # Blocking
    /// Runs the callbacks. Not inside a submission, not from a callback.
    pub fn invalidate(&self, range: PageRange) -> Invalidation<'_> {
        self.space.invalidate_start(range, Event::Requested)
    }

    /// `mprotect`: no use that begins after it has returned has a registration that was made under the old rights.
    ///
    /// # Errors
    /// [`CallError`] with the kernel's answer.
    ///
    /// # Blocking
    /// Runs the callbacks. Not inside a submission, not from a callback.
    ///
    /// # Safety
    /// As mprotect: nothing that is borrowed lies in the range and needs a right that is taken away.
    pub unsafe fn protect(&self, range: PageRange, rights: MprotectFlags) -> Result<(), CallError> {
        let call = "a change of protection";
        outside_sections(call, range)?;
        let running = self.invalidate(range);
        // SAFETY: the caller's promise.
        let changed = unsafe { rustix::mm::mprotect(pointer(range), range.len() as usize, rights) };
        drop(running);
        changed.map_err(|errno| CallError::new(call, range, errno))
    }

    /// `madvise` that discards. The caller is known, so where it can be shown that nobody else was discarding the range,
    /// the doubt that every other discard leaves behind is over when this returns; see [`Discarded`].
    ///
    /// # Errors
    /// [`CallError`] with the kernel's answer.
    ///
    /// # Blocking
    /// Runs the callbacks, then waits in the kernel for the pump. Not inside a submission, not from a callback.
    ///
    /// # Safety
    /// As madvise: nothing that is borrowed lies in the range, and whoever owns the memory expects its content to go.
    pub unsafe fn discard(&self, range: PageRange, how: Discard) -> Result<Discarded, CallError> {
        let (advice, call) = how.advice();
        outside_sections(call, range)?;
        let shown = if how == Discard::FromFile { self.mappings_behind(range) } else { Vec::new() };
        let running = self.invalidate_all(std::iter::once(range).chain(shown), Event::Remove);
        let before = self.before_own_discard(range);
        // SAFETY: the caller's promise.
        let discarded = unsafe { rustix::mm::madvise(pointer(range), range.len() as usize, advice) };
        drop(running);
        discarded.map_err(|errno| CallError::new(call, range, errno))?;
        let known = before.is_some_and(|before| self.end_own_doubt(range, before));
        Ok(if known { Discarded::Known } else { Discarded::InDoubt })
    }

    /// `munmap`. With [`Uses::Block`] it returns, and unmaps, only after the uses have ended.
    ///
    /// # Errors
    /// [`CallError`] with the kernel's answer.
    ///
    /// # Blocking
    /// Runs the callbacks, waits as `uses` says, then waits in the kernel for the pump. Not inside a submission, not from a
    /// callback, and with `Block` not while this thread itself holds a use of the range.
    ///
    /// # Safety
    /// As munmap: nothing that is borrowed lies in the range, and the memory is the caller's to unmap.
    pub unsafe fn unmap(&self, range: PageRange, uses: Uses<'_>) -> Result<Unmapped, CallError> {
        let call = "an unmapping";
        outside_sections(call, range)?;
        let running = self.space.invalidate_start(range, Event::Unmap);
        let released = match uses {
            Uses::Detach => false,
            Uses::Block(holders, deadline) => holders.iter().all(|holder| holder.wait_released(range, deadline)),
        };
        // SAFETY: the caller's promise.
        let unmapped = unsafe { rustix::mm::munmap(pointer(range), range.len() as usize) };
        drop(running);
        unmapped.map_err(|errno| CallError::new(call, range, errno))?;
        Ok(if released { Unmapped::Released } else { Unmapped::Detached })
    }

    fn invalidate_all(&self, ranges: impl Iterator<Item = PageRange>, event: Event) -> Vec<Invalidation<'_>> {
        ranges.map(|range| self.space.invalidate_start(range, event)).collect()
    }
}

fn pointer(range: PageRange) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(range.start().get() as usize)
}

/// Refuses a call from inside a submission, which would wait for itself.
fn outside_sections(call: &'static str, target: impl ToString) -> Result<(), CallError> {
    if pagemirror_sync::section_depth(|depth| depth.get()) > 0 {
        return Err(CallError::new(call, target, Errno::DEADLK));
    }
    Ok(())
}
