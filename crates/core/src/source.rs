//! What the core needs of the operating system, so that everything above runs on a real kernel and in a model alike.

use std::fmt;

use thiserror::Error;

use crate::addr::PageRange;
use crate::check::Look;
use crate::gate::LostCause;
use crate::space::AddressSpace;
use pagemirror_sync::Arc;

/// What the probe says about changes that the kernel has begun and nobody has read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Probe {
    /// None is under way. Everything that had changed has been read.
    Quiet,
    /// One is under way; ask again until the deadline of the use.
    Changing,
    /// The source does not answer: coherence is lost.
    Lost(LostCause),
}

/// What can be said of a range that is being watched from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Watched {
    /// Changes of it are reported from here on, and none was under way.
    Covered,
    /// Changes are reported from here on, but a discard of the file behind it may be under way: it is in doubt.
    InDoubt,
}

/// Why a range cannot be watched, in the words of the answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{range} cannot be kept coherent: {reason}")]
#[non_exhaustive]
pub struct WatchError {
    /// What was asked for.
    pub range: PageRange,
    /// Why not, and what to do.
    pub reason: String,
    /// The error number of the system call that refused, if one did.
    pub errno: Option<i32>,
    /// Whether nothing is mapped in a part of the range.
    pub unmapped: bool,
}

impl WatchError {
    /// A refusal of `range` for this reason.
    #[must_use]
    pub fn new(range: PageRange, reason: impl Into<String>, errno: Option<i32>) -> Self {
        Self { range, reason: reason.into(), errno, unmapped: false }
    }

    /// The same refusal, because a part of the range is not mapped.
    #[must_use]
    pub fn because_unmapped(mut self) -> Self {
        self.unmapped = true;
        self
    }
}

/// A source of invalidations: the kernel through userfaultfd, or a model of it.
pub trait Source: Send + Sync + fmt::Debug {
    /// The address space that this source keeps informed.
    fn space(&self) -> &Arc<AddressSpace>;

    /// The size of a page, in bytes. Ranges handed to [`watch`](Self::watch) are multiples of it.
    fn page_size(&self) -> u64;

    /// Asks whether a change is under way that the pump has not read. Asked before a use enters its section.
    ///
    /// # Blocking
    /// May sleep in the kernel for as long as somebody changes the address space; never waits for the pump.
    fn probe(&self) -> Probe;

    /// Has changes of `range` reported from now on. Called for every miss, after the token was taken: no list is kept of
    /// what is believed to be watched.
    ///
    /// # Errors
    /// When the range cannot be watched, and why; it is then served uncached or refused.
    fn watch(&self, range: PageRange) -> Result<Watched, WatchError>;

    /// Looks at what is mapped at `range`, for changes that are not reported.
    ///
    /// # Errors
    /// Why this source cannot tell.
    ///
    /// # Blocking
    /// May wait for a change of the address space that runs. Not in a section.
    fn look(&self, range: PageRange) -> Result<Look, &'static str> {
        let _ = range;
        Err("this source cannot look at mappings")
    }
}
