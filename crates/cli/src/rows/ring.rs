//! The device of the run: one io_uring, shared by all device threads of a row, and the pipes that it writes to.
//!
//! A write to a pipe with room is carried out inside the submission, by the submitting thread: no kernel worker ever runs
//! here, which would keep every doubt. The pipe keeps a copy of what was sent, and the lane reads it back and checks it.
//!
//! # Fields
//! `ring` is locked for one submission, inside the section of the use, or for one look at the completions. Whoever
//! looks takes every completion that is there and puts it where its owner waits.
//!
//! # Unsafe code
//! Pushing a request promises that its memory stays until the completion. Here it does not, on purpose: the request
//! names a registered buffer, whose pages the kernel holds, and never follows the address.
#![expect(unsafe_code, reason = "pushing a request is unsafe in the crate io-uring")]

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use super::oracle;

/// Requests that can be in flight at once.
const ENTRIES: u32 = 64;
/// The pipe's size that is asked for, and the most that one use sends. The kernel allows this much to anybody.
pub(crate) const PIPE_BYTES: usize = 1 << 20;
/// How long a completion may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Looks for a completion before the lane sleeps between looks.
const YIELDS: u32 = 100;
const NAP: Duration = Duration::from_micros(50);
/// No answer yet.
const NONE: i64 = i64::MIN;
/// The name of requests whose answer nobody waits for.
const NOBODY: u64 = u64::MAX;

/// The ring.
pub(crate) struct Ring {
    ring: Mutex<IoUring>,
    answers: Vec<AtomicI64>,
}

impl Ring {
    /// A ring for this many lanes.
    pub(crate) fn new(lanes: usize) -> io::Result<Self> {
        let ring = IoUring::new(ENTRIES)?;
        Ok(Self { ring: Mutex::new(ring), answers: (0..lanes).map(|_| AtomicI64::new(NONE)).collect() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, IoUring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits `entries`, and takes the completions that are there. Allocates nothing.
    fn submit(&self, entries: &[Entry]) -> io::Result<()> {
        let mut ring = self.lock();
        // SAFETY: the requests name registered buffers and a byte that lives as long as its lane; see the module's text.
        let pushed = unsafe { ring.submission().push_multiple(entries) };
        pushed.map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))?;
        let submitted = ring.submit();
        self.take_completions(&mut ring);
        submitted.map(|_| ())
    }

    fn take_completions(&self, ring: &mut IoUring) {
        for completion in ring.completion() {
            if let Some(answer) = self.answers.get(completion.user_data() as usize) {
                // ORDERING: Release pairs with the Acquire of `answer`: the pipe is filled.
                answer.store(i64::from(completion.result()), Ordering::Release);
            }
        }
    }

    fn answer(&self, lane: usize) -> Option<i64> {
        // ORDERING: Acquire, see `take_completions`.
        let answer = self.answers[lane].load(Ordering::Acquire);
        (answer != NONE).then_some(answer)
    }
}

/// A pipe that the device writes to.
#[derive(Debug)]
struct Pipe {
    reader: io::PipeReader,
    writer: io::PipeWriter,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { reader: reader.into(), writer: writer.into() })
    }
}

/// One device thread's way into the ring.
pub(crate) struct Lane<'r> {
    ring: &'r Ring,
    number: usize,
    sent: Pipe,
    /// What holds a linked request back until it is fed a byte.
    hold: Pipe,
    held_byte: Box<u8>,
    largest: usize,
    bytes: Vec<u8>,
}

/// What a use writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) slot: u16,
    pub(crate) address: usize,
    pub(crate) len: usize,
}

impl<'r> Lane<'r> {
    /// Lane `number`. Its pipe is as large as this user may have it.
    pub(crate) fn new(ring: &'r Ring, number: usize) -> io::Result<Self> {
        let (sent, hold) = (Pipe::new()?, Pipe::new()?);
        // Users with many pipes are held to small ones; then a use sends less at a time.
        let _ = fcntl_setpipe_size(&sent.writer, PIPE_BYTES);
        // A write that does not begin on a page of the pipe may need one page more.
        let largest = fcntl_getpipe_size(&sent.writer)? / 2;
        let (held_byte, bytes) = (Box::new(0), vec![0; PIPE_BYTES]);
        Ok(Self { ring, number, sent, hold, held_byte, largest, bytes })
    }

    /// The most that one transfer can send.
    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    /// Submits a write of registered memory. For use inside a section: allocates nothing.
    pub(crate) fn submit(&self, transfer: Transfer) -> io::Result<()> {
        // ORDERING: Relaxed; the completion that is stored over it comes after the submission.
        self.ring.answers[self.number].store(NONE, Ordering::Relaxed);
        self.ring.submit(&[self.write(transfer)])
    }

    /// Submits a write by address, through no registration.
    pub(crate) fn submit_by_address(&self, address: usize, len: usize) -> io::Result<()> {
        // ORDERING: Relaxed, as above.
        self.ring.answers[self.number].store(NONE, Ordering::Relaxed);
        let to = types::Fd(self.sent.writer.as_raw_fd());
        let write = opcode::Write::new(to, std::ptr::without_provenance(address), len as u32);
        self.ring.submit(&[write.build().user_data(self.number as u64)])
    }

    /// Submits the same behind a link that holds it back until [`feed`](Self::feed).
    pub(crate) fn submit_held(&mut self, transfer: Transfer) -> io::Result<()> {
        // ORDERING: Relaxed, as above.
        self.ring.answers[self.number].store(NONE, Ordering::Relaxed);
        let hold = types::Fd(self.hold.reader.as_raw_fd());
        let byte = &raw mut *self.held_byte;
        let read = opcode::Read::new(hold, byte, 1).build().user_data(NOBODY).flags(Flags::IO_LINK);
        self.ring.submit(&[read, self.write(transfer)])
    }

    /// Puts the first `len` bytes of a generation of object `id` where the device will read them.
    pub(crate) fn offer(&mut self, id: u64, generation: u64, len: usize) -> io::Result<()> {
        oracle::write(id, generation, &mut self.bytes[..len]);
        self.sent.writer.write_all(&self.bytes[..len])
    }

    /// Submits a read of what was [offered](Self::offer) into registered memory. For use inside a section.
    pub(crate) fn submit_receive(&self, transfer: Transfer) -> io::Result<()> {
        // ORDERING: Relaxed, as above.
        self.ring.answers[self.number].store(NONE, Ordering::Relaxed);
        let from = types::Fd(self.sent.reader.as_raw_fd());
        let to: *mut u8 = std::ptr::without_provenance_mut(transfer.address);
        let read = opcode::ReadFixed::new(from, to, transfer.len as u32, transfer.slot);
        self.ring.submit(&[read.build().user_data(self.number as u64)])
    }

    fn write(&self, transfer: Transfer) -> Entry {
        let to = types::Fd(self.sent.writer.as_raw_fd());
        let from: *const u8 = std::ptr::without_provenance(transfer.address);
        opcode::WriteFixed::new(to, from, transfer.len as u32, transfer.slot).build().user_data(self.number as u64)
    }

    /// Lets the held request go.
    pub(crate) fn feed(&self) -> io::Result<()> {
        rustix::io::write(&self.hold.writer, &[1]).map(|_| ()).map_err(io::Error::from)
    }

    /// Waits for the completion: how many bytes the device says it sent, or its error.
    pub(crate) fn wait(&self) -> io::Result<usize> {
        let since = Instant::now();
        for look in 0_u32.. {
            if let Some(answer) = self.ring.answer(self.number) {
                let error = |_| io::Error::from_raw_os_error(i32::try_from(-answer).unwrap_or(libc::EIO));
                return usize::try_from(answer).map_err(error);
            }
            if since.elapsed() > LIMIT {
                break;
            }
            self.ring.take_completions(&mut self.ring.lock());
            if look < YIELDS { std::thread::yield_now() } else { std::thread::sleep(NAP) }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no completion came in 5 s"))
    }

    /// What the device sent.
    pub(crate) fn read_back(&mut self, len: usize) -> io::Result<&[u8]> {
        self.sent.reader.read_exact(&mut self.bytes[..len])?;
        Ok(&self.bytes[..len])
    }
}
