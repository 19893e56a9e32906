//! What can go wrong between a caller and the ring.

use std::io;

use pagemirror_core::addr::VirtAddr;
use pagemirror_linux::OpenError;
use pagemirror_registration::{Error as CacheError, ErrorKind as CacheErrorKind};

/// An answer that is no transfer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nobody who says what happens to memory.
    #[error("registrations cannot be kept right: {source}")]
    Source {
        /// Why not.
        #[from]
        source: OpenError,
    },
    /// There is no ring.
    #[error("no io_uring could be made: {reason}")]
    Setup {
        /// What happened and what to do about it.
        reason: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The ring has no table of fixed buffers for us.
    #[error("no table of {slots} fixed buffers could be registered: {reason}")]
    Table {
        /// How many slots were asked for.
        slots: u16,
        /// What happened and what to do about it.
        reason: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The cache's worker could not be started.
    #[error("the thread that deregisters could not be started: {source}; look at the limit on threads (ulimit -u)")]
    Worker {
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The transfer never began: the cache gave no use of a registration, for a reason that reading or writing by
    /// address would not have helped.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The transfer was made, or tried, and this is the file's answer.
    #[error("{direction} of {len} bytes at {address}, file offset {offset}, failed: {source}")]
    Transfer {
        /// Which way.
        direction: Direction,
        /// The first byte of the buffer.
        address: VirtAddr,
        /// How many bytes were asked for.
        len: usize,
        /// Where in the file.
        offset: u64,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The kernel does not take requests from this ring any more. None is in flight.
    #[error("the ring takes no more requests ({source}); make a new one, and look for close() of a foreign descriptor")]
    Broken {
        /// The error that said so.
        #[source]
        source: io::Error,
    },
}

/// Which way a transfer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the file into memory.
    Read,
    /// From memory into the file.
    Write,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "a read",
            Self::Write => "a write",
        })
    }
}

/// What a caller does about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// This machine or this process does not allow it; the message says what would.
    Unavailable,
    /// The request is wrong.
    Invalid,
    /// Allow more time, or try again later.
    Busy,
    /// The file said no: the error number is in the source.
    Transfer,
    /// Nothing is served from this ring any more: make another one.
    Lost,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source { .. } | Self::Setup { .. } | Self::Table { .. } | Self::Worker { .. } => {
                ErrorKind::Unavailable
            }
            Self::Transfer { .. } => ErrorKind::Transfer,
            Self::Broken { .. } => ErrorKind::Lost,
            Self::Cache(error) => match error.kind() {
                CacheErrorKind::Invalid => ErrorKind::Invalid,
                CacheErrorKind::Lost => ErrorKind::Lost,
                CacheErrorKind::Refused => ErrorKind::Unavailable,
                _ => ErrorKind::Busy,
            },
        }
    }

    /// The error number of the system call behind it, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Cache(error) => error.errno(),
            Self::Source { .. } => None,
            Self::Setup { source, .. }
            | Self::Table { source, .. }
            | Self::Worker { source }
            | Self::Transfer { source, .. }
            | Self::Broken { source } => source.raw_os_error(),
        }
    }
}

/// For callers whose own errors are those of files: the kind is kept, the whole error is inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match (&error, error.kind()) {
            (Error::Transfer { source, .. } | Error::Setup { source, .. }, _) => source.kind(),
            (_, ErrorKind::Busy) => io::ErrorKind::TimedOut,
            (_, ErrorKind::Invalid) => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
