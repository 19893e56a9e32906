//! One request in flight, which is waited for whatever happens.
//!
//! # Guarantee
//! While a [`Flight`] lives the kernel may read or write the bytes that its request names. It ends only when the kernel has
//! posted the completion, or when it is certain that the kernel never took the request and never will. Neither an error
//! of `io_uring_enter`, nor a signal, nor a panic (the value's drop waits too) ends it earlier.
//!
//! # States
//! *Queued*: in the submission queue, not taken. *Taken*: the kernel's head has passed it. *Landed*: its completion was read.
//! Only *taken* must be waited for. What is queued cannot be taken back from the queue, so a queue whose request is given
//! up is never entered again: its owner is told [`Landed::NeverTaken`] and breaks off.
//!
//! # Fields
//! `ring` is borrowed for as long as the flight: nobody else enters it, and there is one request at a time.
//!
//! # Checked by
//! `tests/lost_descriptor.rs`, `tests/ring.rs` (`a_signal_interrupts_no_transfer`).
//!
//! # Not covered
//! A kernel that refuses to take a request for [`TAKE_LIMIT`] because it is out of memory.
//!
//! # Unsafe code
//! Pushing a request hands its pointers to the kernel.
#![expect(unsafe_code, reason = "a pushed request is a promise about the memory that it names")]

use std::io;
use std::time::{Duration, Instant};

use io_uring::{IoUring, squeue};
use pagemirror_sync::thread;

/// Marks the completions of a flight. Any number would do: the ring is ours alone.
const TAG: u64 = 0x70_6167_656d_6972;

/// Pauses between two looks when the kernel gave an error and could not be waited in.
const NAP: Duration = Duration::from_millis(1);

/// How long the kernel may be short of memory for a request that it has not taken, before the ring is given up.
const TAKE_LIMIT: Duration = Duration::from_secs(10);

/// A request that was pushed.
#[must_use = "the flight is waited for when this is dropped"]
pub(crate) struct Flight<'r> {
    ring: &'r mut IoUring,
    landed: bool,
}

/// How a flight ended.
#[derive(Debug)]
pub(crate) enum Landed {
    /// The kernel's result: a count of bytes, or an error number negated.
    Completed(i32),
    /// The kernel never took the request. The ring must not be entered again.
    NeverTaken(io::Error),
}

impl<'r> Flight<'r> {
    /// Pushes `entry` and submits it once. Made for a section: allocates and frees nothing, and does not wait.
    ///
    /// # Errors
    /// [`Landed::NeverTaken`] when the queue is not empty: the ring was given up earlier.
    ///
    /// # Safety
    /// Whatever `entry` names (bytes, slot, descriptor) stays until the flight has ended.
    pub(crate) unsafe fn launch(ring: &'r mut IoUring, entry: squeue::Entry) -> Result<Self, Landed> {
        let mut queue = ring.submission();
        let given_up = || Landed::NeverTaken(io::Error::from_raw_os_error(libc::EBADF));
        if !queue.is_empty() {
            return Err(given_up());
        }
        // SAFETY: the caller's promise covers the entry until the flight has ended.
        let pushed = unsafe { queue.push(&entry.user_data(TAG)) };
        drop(queue);
        pushed.map_err(|_| given_up())?;
        // An error here is met again in `wait`, outside the section.
        let _ = ring.submit();
        Ok(Self { ring, landed: false })
    }

    /// Waits for the end.
    ///
    /// # Blocking
    /// For as long as the transfer takes.
    pub(crate) fn land(mut self) -> Landed {
        self.wait()
    }

    fn wait(&mut self) -> Landed {
        let mut refused_since = None;
        loop {
            let completed = self.ring.completion().find(|completion| completion.user_data() == TAG);
            if let Some(completion) = completed {
                self.landed = true;
                return Landed::Completed(completion.result());
            }
            // Submits, too, what the first call did not.
            let Err(error) = self.ring.submit_and_wait(1) else { continue };
            let passing = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM));
            let queued = !self.ring.submission().is_empty();
            let refused = *refused_since.get_or_insert_with(Instant::now);
            if queued && (!passing || refused.elapsed() > TAKE_LIMIT) {
                self.landed = true;
                return Landed::NeverTaken(error);
            }
            // Taken, but the kernel does not let us wait in it (the descriptor was closed by somebody, say). Completions
            // still arrive in the memory that is mapped here, so looking there is all that can and must be done.
            if error.raw_os_error() != Some(libc::EINTR) {
                thread::sleep(NAP);
            }
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.wait();
        }
    }
}

impl Landed {
    /// The count of bytes, or the error.
    pub(crate) fn into_result(self) -> io::Result<usize> {
        match self {
            Self::Completed(result) => {
                usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()))
            }
            Self::NeverTaken(error) => Err(error),
        }
    }
}
