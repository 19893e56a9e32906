//! What can go wrong in the core.

use thiserror::Error;

use crate::addr::PageRange;
use crate::gate::LostCause;
use crate::wait::{Expired, Interrupted};

/// An attempt or a wait that ended without its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The deadline passed while an invalidation of the range, or a change in the kernel, was still running.
    #[error("the deadline passed while waiting for changes of {range} to end; allow more time or retry")]
    TimedOut {
        /// What was asked for.
        range: PageRange,
    },
    /// The wait was cancelled through its token.
    #[error("waiting for {range} was cancelled")]
    Cancelled {
        /// What was asked for.
        range: PageRange,
    },
    /// Coherence is lost: nothing that was cached may be used, and nothing new can be.
    #[error("coherence is lost, nothing is served from {range} any more: {cause}")]
    Lost {
        /// What was asked for.
        range: PageRange,
        /// Why.
        cause: LostCause,
    },
}

impl Error {
    /// The error for a wait for `range` that was interrupted; `lost` is what the gate says.
    #[must_use]
    pub fn interrupted(why: Interrupted, range: PageRange, lost: Option<LostCause>) -> Self {
        match why {
            Interrupted::Expired(Expired::TimedOut) => Self::TimedOut { range },
            Interrupted::Expired(Expired::Cancelled) => Self::Cancelled { range },
            Interrupted::Lost => Self::Lost { range, cause: lost.unwrap_or(LostCause::Released) },
        }
    }
}
