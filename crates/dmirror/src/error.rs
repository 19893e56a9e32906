//! Why an operation of the accelerator did not do all that was asked.

use pagemirror_core::addr::AddrError;
use pagemirror_core::mirror::FaultError;
use thiserror::Error;

/// An operation that ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A page could not be mirrored; its kind says which and why.
    #[error("after {done} bytes: {source}")]
    Fault {
        /// Bytes that were transferred before.
        done: u64,
        /// What the fault path says.
        #[source]
        source: FaultError,
    },
    /// Address and length make no range.
    #[error(transparent)]
    Range(#[from] AddrError),
    /// The system does not let the process copy by address.
    #[error(
        "after {done} bytes: process_vm_readv or process_vm_writev was refused with error {errno}; allow it in the seccomp profile"
    )]
    Copy {
        /// Bytes that were transferred before.
        done: u64,
        /// The error's number.
        errno: i32,
    },
    /// The operands of a kernel have different lengths.
    #[error("the operands have {left} and {right} elements: they must have as many")]
    Lengths {
        /// Elements of one.
        left: usize,
        /// Elements of the other.
        right: usize,
    },
}
