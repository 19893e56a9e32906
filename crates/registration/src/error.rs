//! What can go wrong in the cache.

use pagemirror_core::addr::{AddrError, PageRange};
use pagemirror_core::error::Error as CoreError;
use pagemirror_core::gate::LostCause;
use pagemirror_core::source::WatchError;

use crate::registrar::{RegisterError, RegisterErrorKind};

/// An answer of the cache that is no lease and no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address and length are no range.
    #[error(transparent)]
    Range(#[from] AddrError),
    /// A wait ended without its result: deadline, cancellation, or coherence lost.
    #[error(transparent)]
    Wait(#[from] CoreError),
    /// The range cannot be kept coherent, so it is not cached.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The device refused. Nothing was cached.
    #[error("{range} could not be registered: {error}")]
    Register {
        /// What was to be registered.
        range: PageRange,
        /// The device's answer.
        #[source]
        error: RegisterError,
    },
    /// The registration behind a lease was invalidated, or was for one use only. Get a new lease.
    #[error("the registration of {range} is stale: drop the lease and get a new one")]
    Stale {
        /// The range of the lease.
        range: PageRange,
    },
    /// `begin` was called from inside a submission. Name all leases in one call instead.
    #[error("begin was called inside another begin's submission; pass all leases to one call")]
    Nested,
    /// The thread that serves asynchronous misses could not be started.
    #[error(
        "the thread for asynchronous misses could not be started: {source}; raise the limit on threads, or use get"
    )]
    Fetcher {
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The lease was given by another cache: its key means nothing to this one's device.
    #[error("the lease of {range} was given by another cache; use it there")]
    Foreign {
        /// The range of the lease.
        range: PageRange,
    },
    /// Invalidations collided with every attempt until the deadline.
    #[error(
        "{range} was invalidated {collisions} times while it was being registered, until the deadline; retry later"
    )]
    Contended {
        /// What was to be registered.
        range: PageRange,
        /// How often an attempt collided.
        collisions: u32,
    },
}

/// What a caller does about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong; the same request will fail again.
    Invalid,
    /// Get a new lease and try again.
    Stale,
    /// Try again later, or with more time.
    Busy,
    /// Serve this request without a registration.
    Refused,
    /// Nothing can be served from this cache any more.
    Lost,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Range(_) | Self::Nested | Self::Foreign { .. } => ErrorKind::Invalid,
            Self::Stale { .. } => ErrorKind::Stale,
            Self::Wait(CoreError::Lost { .. }) => ErrorKind::Lost,
            Self::Wait(_) | Self::Contended { .. } | Self::Fetcher { .. } => ErrorKind::Busy,
            Self::Register { error, .. } if error.kind == RegisterErrorKind::NoRoom => ErrorKind::Busy,
            Self::Watch(_) | Self::Register { .. } => ErrorKind::Refused,
        }
    }

    /// The error number of the system call behind it, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Watch(error) => error.errno,
            Self::Register { error, .. } => error.source.raw_os_error(),
            Self::Fetcher { source } => source.raw_os_error(),
            _ => None,
        }
    }

    #[cold]
    pub(crate) fn lost(range: PageRange, cause: LostCause) -> Self {
        Self::Wait(CoreError::Lost { range, cause })
    }
}
