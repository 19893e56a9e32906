//! How a source is opened, and why it could not be.

use std::io;

use thiserror::Error;

/// How a source is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Config {
    /// What is left out on purpose. Nothing, but in a control run.
    pub control: Control,
}

/// Parts of the protocol that a control run leaves out, to show what they prevent. **Each one makes the source
/// incoherent**; none has any other use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Control {
    /// Read the events before the gate is up.
    pub read_before_gate: bool,
    /// Put nothing in doubt when a discard is announced.
    pub ignore_doubt: bool,
    /// End a doubt as soon as the last page of its range is seen absent.
    pub doubt_ends_at_first_absence: bool,
    /// Run the pump on this CPU only. Harmless, but of use to nobody else.
    pub pump_cpu: Option<usize>,
}

/// Why no source could be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel has no userfaultfd.
    #[error(
        "this kernel has no userfaultfd: it needs one built with CONFIG_USERFAULTFD (any distribution's of Linux 6.7 or later), \
         and in a container a seccomp profile that does not hide it"
    )]
    Missing(#[source] io::Error),
    /// The system call is there and refused.
    #[error(
        "userfaultfd was refused. In a container, allow the system call in its seccomp profile; elsewhere a security module \
         forbids it. No privilege is needed for what pagemirror does with it"
    )]
    Refused(#[source] io::Error),
    /// The kernel lacks an event.
    #[error("this kernel's userfaultfd lacks {what}: Linux 5.7 or later is needed, 6.7 for more than anonymous memory")]
    TooOld {
        /// What it lacks.
        what: &'static str,
    },
    /// A source was opened in this process before, with another configuration.
    #[error("this process has a source already, opened with another configuration; a mapping can have only one")]
    OtherConfig,
    /// Something else went wrong on the way.
    #[error("{doing} failed")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn system(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
