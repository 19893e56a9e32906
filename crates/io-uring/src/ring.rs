//! A ring that transfers from and to ordinary buffers, registered behind the scenes and never stale.
//!
//! # Guarantee
//! A call gives the kernel the buffer's own pages: those that are mapped when the transfer begins. It returns after the kernel
//! has let go of the buffer, on every path, so the borrow of the buffer covers everything that the kernel does.
//!
//! # Steps
//! Lease (registered on a miss); begin: in the section push and submit, nothing else; outside it wait for the completion;
//! give the use back. A stale lease: again, until the deadline. A registration that is refused, or good for one use only: by
//! address, counted.
//!
//! # Unsafe code
//! Requests name the buffer by its address. Their promise is the borrow that the caller gave.
//!
//! # Checked by
//! `tests/ring.rs`, and on real memory `tests/coherence.rs`.
#![expect(unsafe_code, reason = "requests name buffers by address; the borrow makes it good")]

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use io_uring::IoUring;
use pagemirror_core::source::Source;
use pagemirror_core::wait::Deadline;
use pagemirror_linux::{Config, Userfault};
use pagemirror_registration::{
    Access, Error as CacheError, ErrorKind as CacheErrorKind, Freshness, Options, RegistrationCache, Stats,
};
use pagemirror_sync::{Arc, thread};

use crate::error::Error;
use crate::explain;
use crate::fixed::FixedBuffers;
use crate::flight::{Flight, Landed};
use crate::request::Request;

/// Entries of the ring: there is one request at a time.
const ENTRIES: u32 = 2;

/// The nap after a blocking file has answered "try again".
const AGAIN_NAP: Duration = Duration::from_micros(200);

/// How a ring behaves.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Buffers that can be registered at the same time, from 1 to 16,384. A few bytes of kernel memory each; what is
    /// pinned is what was used.
    pub slots: u16,
    /// As in [`Options`].
    pub max_collisions: u32,
}

impl Default for RingOptions {
    /// 256 slots: more buffers than one thread cycles through.
    fn default() -> Self {
        Self { slots: 256, max_collisions: Options::default().max_collisions }
    }
}

/// What a ring has done since it was made.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct RingStats {
    /// Requests made through a registration.
    pub fixed: u64,
    /// Requests made by address, because a registration was refused or could serve one request only.
    pub by_address: u64,
    /// Transfers begun again: the lease was stale, the kernel was interrupted, or a blocking file said "try again".
    pub restarts: u64,
    /// The registration cache's counters.
    pub cache: Stats,
}

/// Reads and writes files with registered buffers that the caller never registers. See the crate's text for an example.
pub struct CoherentRing {
    // Before the ring, so that the worker is told to let go first. Either order is sound.
    cache: RegistrationCache<FixedBuffers>,
    ring: IoUring,
    stats: RingStats,
    refusal: Option<CacheError>,
}

impl CoherentRing {
    /// A ring whose registrations are kept right by the source of this process, which is opened if it is not.
    ///
    /// # Errors
    /// [`Error::Source`], [`Error::Setup`], [`Error::Table`] or [`Error::Worker`], with the reason.
    pub fn open(options: RingOptions) -> Result<Self, Error> {
        // Only the default configuration: the others leave out parts of the protocol, and safe code can ask for them.
        let source = Userfault::open(Config::default())?;
        // SAFETY: this source reports every change that its documentation does not except, and what it excepts cannot be
        // done to borrowed memory by safe code.
        unsafe { Self::over(source, options) }
    }

    /// A ring whose registrations are kept right by `source`: one of a simulation, or one that leaves something out.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Safety
    /// `source` tells the truth: it reports every change of what it says is covered. Over a source that conceals
    /// changes, [`read_at`](Self::read_at) can write into pages that the program has moved elsewhere, and the borrow of the
    /// buffer does not cover those.
    pub unsafe fn over(source: Arc<dyn Source>, options: RingOptions) -> Result<Self, Error> {
        let ring = IoUring::new(ENTRIES).map_err(|source| Error::Setup { reason: explain::setup(&source), source })?;
        let buffers = FixedBuffers::new(&ring, options.slots)?;
        // Strict: safe programs hand the addresses of freed memory from thread to thread.
        let cache_options =
            Options { freshness: Freshness::Strict, max_collisions: options.max_collisions, ..Options::default() };
        let cache =
            RegistrationCache::new(source, buffers, cache_options).map_err(|source| Error::Worker { source })?;
        Ok(Self { cache, ring, stats: RingStats::default(), refusal: None })
    }

    /// Writes bytes of `buffer` to `file` from `offset` on, and says how many: one request, so it may be fewer than there
    /// are. Files without a position (pipes, sockets) ignore `offset`.
    ///
    /// # Errors
    /// [`Error::Transfer`] with the file's answer (the error number is in its source); [`Error::Cache`] when the deadline
    /// passed before the transfer began, or coherence is lost; [`Error::Broken`] when the ring is of no more use.
    ///
    /// # Blocking
    /// `deadline` bounds the wait for the transfer to begin. The transfer itself is waited for without a bound, because the
    /// kernel has the buffer; for a pipe or socket without data that is until there is some, in non-blocking mode too.
    pub fn write_at(
        &mut self,
        file: BorrowedFd<'_>,
        buffer: &[u8],
        offset: u64,
        deadline: &Deadline<'_>,
    ) -> Result<usize, Error> {
        self.transfer(&Request::write(file, buffer, offset), deadline)
    }

    /// Reads bytes of `file` from `offset` on into `buffer`, and says how many: one request, so it may be fewer than there
    /// is room for; none at the end of the file.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    ///
    /// # Blocking
    /// As [`write_at`](Self::write_at).
    pub fn read_at(
        &mut self,
        file: BorrowedFd<'_>,
        buffer: &mut [u8],
        offset: u64,
        deadline: &Deadline<'_>,
    ) -> Result<usize, Error> {
        self.transfer(&Request::read(file, buffer, offset), deadline)
    }

    /// A copy of the counters.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        RingStats { cache: self.cache.stats(), ..self.stats }
    }

    /// Slots that are filled now, and the bytes that they pin.
    #[must_use]
    pub fn registered(&self) -> (u16, u64) {
        self.cache.registrar().filled()
    }

    /// Why a registration was refused last, so that a transfer went by address.
    #[must_use]
    pub fn last_refusal(&self) -> Option<&CacheError> {
        self.refusal.as_ref()
    }

    /// One transfer: through a registration; by address when that is refused; again when it did not count.
    fn transfer(&mut self, request: &Request<'_>, deadline: &Deadline<'_>) -> Result<usize, Error> {
        if request.is_empty() {
            return Ok(0);
        }
        let mut by_address = false;
        loop {
            let landed = if by_address { Some(self.by_address(request)) } else { self.by_slot(request, deadline)? };
            let outcome = match landed {
                // Refused: this call goes by address from here on.
                None => {
                    by_address = true;
                    continue;
                }
                Some(Landed::NeverTaken(source)) => return Err(Error::Broken { source }),
                Some(landed) => landed.into_result(),
            };
            let error = match outcome {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            match error.raw_os_error() {
                // Nothing was transferred, and nobody else will say so.
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) if request.blocks() && deadline.expired().is_none() => thread::sleep(AGAIN_NAP),
                // Whatever is wrong with the slot, the address decides.
                Some(libc::EFAULT) if !by_address => by_address = true,
                _ => return Err(request.failed(error)),
            }
            self.stats.restarts += 1;
        }
    }

    /// Transfers through a registration. `None` when there can be none.
    fn by_slot(&mut self, request: &Request<'_>, deadline: &Deadline<'_>) -> Result<Option<Landed>, Error> {
        loop {
            // Fixed buffers are pinned for writing whatever they are for, so one registration serves both ways.
            let lease = match self.cache.get(request.address(), request.len(), Access::Write, deadline) {
                Ok(lease) => lease,
                Err(error) => return refused(&mut self.refusal, error),
            };
            if lease.is_one_shot() {
                // Registered for this request alone it would be pinned, used once, and unpinned by another thread. The
                // kernel does as much for an address, in one call.
                return Ok(None);
            }
            let ring = &mut self.ring;
            let begun = self.cache.begin(&[&lease], deadline, |registered| {
                // SAFETY: the request borrows its bytes and its file, and lives in the caller of `transfer` until the
                // flight has landed; the slot belongs to the use, which is given back behind that.
                request.fixed(&registered[0]).map(|entry| unsafe { Flight::launch(ring, entry) })
            });
            match begun {
                Ok((using, Ok(flight))) => {
                    let landed = flight.map_or_else(|never| never, Flight::land);
                    using.complete();
                    self.stats.fixed += 1;
                    return Ok(Some(landed));
                }
                // The cache gave a registration of something else: nothing was pushed.
                Ok((_, Err(_outside))) => return Ok(None),
                Err(error) if error.kind() == CacheErrorKind::Stale && deadline.expired().is_none() => {
                    self.stats.restarts += 1;
                }
                Err(error) => return refused(&mut self.refusal, error),
            }
        }
    }

    /// Transfers by address, as if there were no registrations.
    fn by_address(&mut self, request: &Request<'_>) -> Landed {
        // SAFETY: as above, without a slot.
        let flight = unsafe { Flight::launch(&mut self.ring, request.plain()) };
        self.stats.by_address += 1;
        flight.map_or_else(|never| never, Flight::land)
    }
}

/// What an error of the cache means for a transfer: where a registration is refused, the address may serve.
fn refused(last: &mut Option<CacheError>, error: CacheError) -> Result<Option<Landed>, Error> {
    if error.kind() != CacheErrorKind::Refused {
        return Err(error.into());
    }
    *last = Some(error);
    Ok(None)
}

impl fmt::Debug for CoherentRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoherentRing").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
