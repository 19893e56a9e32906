//! A ring's table of fixed buffers, as a device that registers ranges.
//!
//! # Guarantee
//! A slot holds the pages that were mapped when it was filled, until it is cleared; what [`Registrar`] asks of keys is
//! the part of `slots.rs`.
//!
//! # Fields
//! `ring` is a duplicate of the ring's descriptor, so that registrations can be taken back by the cache's worker after
//! the program has dropped its `IoUring`. It names the same ring: the ring, its table and its pinned pages live until
//! both are gone. `slots` is held for a few instructions, never across a system call.
//!
//! # Unsafe code
//! One system call whose argument the crate `io-uring` would ask a promise for that cannot be given: that the memory
//! stays. It may go, and then the slot keeps the old pages alive; nothing here follows the address.
#![expect(unsafe_code, reason = "io_uring_register takes a pointer to its argument")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use io_uring::{IoUring, cqueue, squeue};
use pagemirror_core::addr::PageRange;
use pagemirror_registration::{Access, Key, RegisterError, RegisterErrorKind, Registrar};
use pagemirror_sync::Mutex;
use rustix::io_uring::{IoringRegisterOp, io_uring_ptr, io_uring_register, io_uring_rsrc_update2, iovec};
use rustix::process::{Pid, Resource, getpid, getrlimit};

use crate::error::Error;
use crate::explain;
use crate::slots::Slots;

/// A place in a ring's table of fixed buffers: what the `buf_index` of a request names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(u16);

impl Slot {
    pub(crate) const fn new(index: u16) -> Self {
        Self(index)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The number to give to the kernel.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Key for Slot {
    fn into_words(self) -> [u64; 2] {
        [self.0.into(), 0]
    }

    fn from_words([index, _]: [u64; 2]) -> Self {
        Self(index as u16)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// The fixed buffers of one ring, for a [`RegistrationCache`](pagemirror_registration::RegistrationCache).
///
/// ```no_run
/// # use std::sync::Arc;
/// use io_uring::IoUring;
/// use pagemirror_io_uring::FixedBuffers;
/// use pagemirror_registration::{Options, RegistrationCache};
/// # fn open() -> Arc<dyn pagemirror_core::source::Source> { unimplemented!() }
///
/// let ring = IoUring::new(64)?;
/// let cache = RegistrationCache::new(open(), FixedBuffers::new(&ring, 256)?, Options::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Pages are pinned for writing and for as long as their slot is filled, and charged to the user's `RLIMIT_MEMLOCK` unless
/// the ring was created with `CAP_IPC_LOCK`. A registration serves reads and writes, whichever it was made for.
///
/// When the value goes away, so does the table. A cache gives its registrar up a moment after it was dropped, when its worker
/// and the last use have ended; until then the ring takes no other table, and ours is not to be unregistered by hand.
pub struct FixedBuffers {
    ring: OwnedFd,
    slots: Mutex<Slots>,
    /// A forked child shares the ring, and must leave its parent's table alone.
    owner: Pid,
}

impl FixedBuffers {
    /// Registers a table of `slots` empty slots with `ring`. The ring must have none, and must not be bound to one thread
    /// (`setup_single_issuer`, `setup_defer_taskrun`). A ring that is still disabled is fine.
    ///
    /// # Errors
    /// [`Error::Table`], with the reason.
    pub fn new<S, C>(ring: &IoUring<S, C>, slots: u16) -> Result<Self, Error>
    where
        S: squeue::EntryMarker,
        C: cqueue::EntryMarker,
    {
        let refused = |reason: String, source| Error::Table { slots, reason, source };
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        if slots == 0 || slots > explain::MAX_SLOTS {
            return Err(refused(format!("a table has between 1 and {} slots", explain::MAX_SLOTS), invalid()));
        }
        if ring.params().is_setup_single_issuer() {
            return Err(refused(explain::SINGLE_ISSUER.into(), invalid()));
        }
        // The descriptor first: a table that was registered is unregistered when the value goes away.
        let own = rustix::io::fcntl_dupfd_cloexec(ring.as_fd(), 0).map_err(|errno| {
            refused(format!("the ring's descriptor could not be duplicated: {errno}"), errno.into())
        })?;
        let registered = ring.submitter().register_buffers_sparse(u32::from(slots));
        registered.map_err(|error| refused(explain::table(&error), error))?;
        Ok(Self { ring: own, slots: Mutex::new(Slots::new(slots)), owner: getpid() })
    }

    /// How many slots are filled, and how many bytes they pin.
    #[must_use]
    pub fn filled(&self) -> (u16, u64) {
        self.slots.lock().filled()
    }

    /// Points `slot` at `buffer`; an empty one clears it. Requests that the kernel has issued keep what they found.
    fn update(&self, slot: Slot, buffer: iovec) -> io::Result<()> {
        if getpid() != self.owner {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let mut update = io_uring_rsrc_update2::default();
        update.offset = u32::from(slot.get());
        update.data = io_uring_ptr::new((&raw const buffer).cast_mut().cast());
        update.nr = 1;
        let size = size_of_val(&update) as u32;
        let operation = IoringRegisterOp::RegisterBuffersUpdate;
        // SAFETY: the argument and the vector that it points to are alive and of the kernel's layout, and are only read.
        // The memory that the vector names is pinned, or refused, by the kernel; no content is touched by this call.
        unsafe { io_uring_register(&self.ring, operation, (&raw const update).cast(), size) }?;
        Ok(())
    }

    /// Whether letting go of other registrations of this table could make room for `range`.
    fn could_fit(&self, range: PageRange) -> bool {
        let allowed = getrlimit(Resource::Memlock).current.is_none_or(|limit| range.len() <= limit);
        allowed && self.filled().0 > 0
    }
}

impl Registrar for FixedBuffers {
    type Key = Slot;

    /// Fills a free slot. `access` makes no difference: the kernel pins for writing.
    fn register(&self, range: PageRange, _access: Access) -> Result<Slot, RegisterError> {
        let error = |kind, reason: String, errno| RegisterError::new(kind, reason, io::Error::from_raw_os_error(errno));
        if range.len() > explain::MAX_BUFFER {
            return Err(error(RegisterErrorKind::Refused, explain::too_large(range), libc::EFAULT));
        }
        let Some(slot) = self.slots.lock().take(range.len()) else {
            return Err(error(RegisterErrorKind::NoRoom, "every slot of the table is filled".into(), libc::ENOSPC));
        };
        let start = std::ptr::without_provenance_mut(range.start().get() as usize);
        self.update(slot, iovec { iov_base: start, iov_len: range.len() as usize }).map_err(|source| {
            self.slots.lock().give_back(slot);
            let full = source.raw_os_error() == Some(libc::ENOMEM) && self.could_fit(range);
            let kind = if full { RegisterErrorKind::NoRoom } else { RegisterErrorKind::Refused };
            RegisterError::new(kind, explain::register(&source, range), source)
        })?;
        Ok(slot)
    }

    /// Clears the slot and unpins its pages. Requests that were issued before keep them; those that are issued later
    /// fail with EFAULT, so the cache calls this after the last completion.
    fn deregister(&self, slot: Slot) -> Result<(), RegisterError> {
        if !self.slots.lock().begin_clear(slot) {
            let source = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(RegisterError::new(RegisterErrorKind::Refused, format!("{slot:?} is not filled"), source));
        }
        let empty = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let cleared = self.update(slot, empty);
        self.slots.lock().end_clear(slot, cleared.is_ok());
        cleared.map_err(|source| {
            let reason = format!("{slot:?} could not be cleared ({source}); its pages stay pinned");
            RegisterError::new(RegisterErrorKind::Refused, reason, source)
        })
    }
}

/// Gives the ring its table back, and unpins what a failed deregistration left behind.
impl Drop for FixedBuffers {
    fn drop(&mut self) {
        if getpid() != self.owner {
            return;
        }
        let operation = IoringRegisterOp::UnregisterBuffers;
        // Somebody may have unregistered it already, and nothing is left to be done about any other answer.
        // SAFETY: takes no argument. Requests that were issued hold their buffers themselves.
        let _ = unsafe { io_uring_register(&self.ring, operation, std::ptr::null(), 0) };
    }
}

impl fmt::Debug for FixedBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slots, bytes) = self.filled();
        f.debug_struct("FixedBuffers").field("filled", &slots).field("bytes", &bytes).finish_non_exhaustive()
    }
}
