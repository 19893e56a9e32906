//! Why a fault, an access or a snapshot did not give what was asked for.

use std::fmt;

use thiserror::Error;

use crate::addr::{PageRange, VirtAddr};
use crate::error::Error as CoreError;
use crate::source::WatchError;
use crate::table::BeyondTable;

use super::host::Refusal;

/// A request that ended before its end. What was done before it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("mirroring {range}: {kind}{}", Kept(*.done))]
pub struct FaultError {
    /// What was asked for.
    pub range: PageRange,
    /// How many pages from its start on were served before, and stay so.
    pub done: u64,
    /// What went wrong.
    pub kind: FaultErrorKind,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FaultErrorKind {
    /// A page was to be written, and its mapping forbids that (EPERM in the kernel's own mirror).
    #[error("{at} may not be written: its mapping is read-only; ask for reading, or change the mapping")]
    PermissionDenied {
        /// The page.
        at: VirtAddr,
    },
    /// A page is not there and cannot be (EFAULT).
    #[error("{at} cannot be reached: nothing is mapped there, or its mapping or its file does not reach so far")]
    BadAddress {
        /// The page.
        at: VirtAddr,
    },
    /// The system has no memory for a page (ENOMEM).
    #[error("no memory for {at}")]
    NoMemory {
        /// The page.
        at: VirtAddr,
    },
    /// The memory of a page is broken (EHWPOISON).
    #[error("the memory at {at} is broken; its content is lost")]
    Poisoned {
        /// The page.
        at: VirtAddr,
    },
    /// Changes of a page cannot be watched, so nothing can be kept of it.
    #[error("{at} cannot be mirrored: {source}")]
    Unwatched {
        /// The page.
        at: VirtAddr,
        /// Why.
        source: WatchError,
    },
    /// The system refused in a way that has no name here.
    #[error("the system refused {at} with error {errno}")]
    System {
        /// The page.
        at: VirtAddr,
        /// Its error's number.
        errno: i32,
    },
    /// Each attempt was hit by a change of the range (EBUSY).
    #[error("the memory changed in each of {collisions} attempts; retry, ask for less at once, or allow more time")]
    Contended {
        /// How many attempts there were.
        collisions: u32,
    },
    /// A wait ended without what it waited for: deadline, cancellation, or coherence is lost.
    #[error(transparent)]
    Wait(#[from] CoreError),
    /// The range is beyond what a process can have.
    #[error(transparent)]
    Beyond(#[from] BeyondTable),
    /// More needs, answers or pages than fit. A bug of the caller.
    #[error("the request is longer than its range, or than one access may be")]
    TooLong,
    /// The calling thread is in a section already. A bug of the caller.
    #[error("an access was begun inside a submission; begin it after the submission")]
    Nested,
}

impl FaultErrorKind {
    pub(super) fn refused(at: VirtAddr, why: Refusal) -> Self {
        match why {
            Refusal::PermissionDenied => Self::PermissionDenied { at },
            Refusal::BadAddress => Self::BadAddress { at },
            Refusal::NoMemory => Self::NoMemory { at },
            Refusal::Poisoned => Self::Poisoned { at },
            Refusal::Unwatched(source) => Self::Unwatched { at, source },
            Refusal::System(errno) => Self::System { at, errno },
        }
    }

    /// The error for `range`, of which `done` pages were served.
    pub(super) fn after(self, done: u64, range: PageRange) -> FaultError {
        FaultError { range, done, kind: self }
    }
}

struct Kept(u64);

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (the page before it was served)"),
            pages => write!(f, " (the {pages} pages before it were served)"),
        }
    }
}
