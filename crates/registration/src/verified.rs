//! Check-on-use: what was mapped when it was registered, compared with what is mapped before a use.
//!
//! # Guarantee
//! [`begin_verified`](RegistrationCache::begin_verified) begins no use of a registration whose mapping had lost a right that the device
//! needs, got a guard page, or been replaced or detached, before the call began. For changes that run beside it, only what the
//! source reports is kept away. Pages that were taken out of the file behind the mapping are not seen.
//!
//! # Fields
//! `shown` has one entry for each registration at the device. It is locked for one pass; nothing is registered, looked at or
//! taken back under it, and the pump never takes it.

use std::fmt;
use std::io;

use pagemirror_core::addr::PageRange;
use pagemirror_core::check::{Checked, Rights, Shown};
use pagemirror_core::notify::Event;
use pagemirror_core::source::{Source, WatchError};
use pagemirror_core::wait::Deadline;
use pagemirror_sync::{Arc, Mutex};

use crate::cache::RegistrationCache;
use crate::error::Error;
use crate::lease::{Kind, Lease};
use crate::registrar::{Access, RegisterError, RegisterErrorKind, Registered, Registrar};
use crate::uses::Use;

/// Looks before a registration is given up as one whose mapping changes all the time.
const LOOKS: u32 = 8;

/// A device whose registrations can be checked before each use. Give it to a cache in the device's place, with the cache's
/// own source.
pub struct Verified<R: Registrar> {
    device: R,
    source: Arc<dyn Source>,
    shown: Mutex<Vec<(R::Key, PageRange, Shown)>>,
}

impl<R: Registrar> Verified<R> {
    /// Remembers what is mapped behind each registration of `device`, as `source` sees it.
    pub fn new(source: Arc<dyn Source>, device: R) -> Self {
        Self { device, source, shown: Mutex::new(Vec::new()) }
    }

    /// The device itself.
    pub fn device(&self) -> &R {
        &self.device
    }

    fn look(&self, range: PageRange) -> Result<Shown, RegisterError> {
        let cannot = |reason: &str| {
            let reason = format!("what is mapped there cannot be checked: {reason}");
            RegisterError::new(RegisterErrorKind::Refused, reason, io::ErrorKind::Unsupported.into())
        };
        self.source.look(range).map(|look| look.shown().clone()).map_err(cannot)
    }
}

impl<R: Registrar> Registrar for Verified<R>
where
    R::Key: PartialEq,
{
    type Key = R::Key;

    /// Registers between two looks that agree: what the device has pinned is what was looked at.
    fn register(&self, range: PageRange, access: Access) -> Result<R::Key, RegisterError> {
        let mut before = self.look(range)?;
        for _ in 0..LOOKS {
            let key = self.device.register(range, access)?;
            match self.look(range) {
                Ok(after) if after == before => {
                    self.shown.lock().push((key, range, after));
                    return Ok(key);
                }
                Ok(after) => {
                    self.device.deregister(key)?;
                    before = after;
                }
                Err(error) => {
                    self.device.deregister(key)?;
                    return Err(error);
                }
            }
        }
        let reason = "what is mapped there changed each time that it was registered: retry later";
        Err(RegisterError::new(RegisterErrorKind::Refused, reason, io::ErrorKind::WouldBlock.into()))
    }

    fn deregister(&self, key: R::Key) -> Result<(), RegisterError> {
        // Before, because the device may give the key out again at once.
        let mut shown = self.shown.lock();
        let entry = shown.iter().position(|(of, ..)| *of == key).map(|at| shown.swap_remove(at));
        drop(shown);
        drop(entry);
        self.device.deregister(key)
    }
}

impl<R: Registrar> RegistrationCache<Verified<R>>
where
    R::Key: PartialEq,
{
    /// Whether what is mapped behind `lease` is what was registered, with the rights that its access needs and no guard pages. What
    /// has changed is revoked for everybody, so `begin` then refuses the lease.
    ///
    /// # Blocking
    /// May wait for a change of the address space that runs. Not inside a submission.
    pub fn verify(&self, lease: &Lease<'_, Verified<R>>) -> Checked {
        // One for a single use is registered when its use begins: there is nothing older to compare with.
        let Kind::Cached(leased) = &lease.kind else { return Checked::Same };
        // Stale already, and `begin` says so.
        let Some(registration) = leased.registered::<R::Key>() else { return Checked::Same };
        let verified = self.registrar();
        let entries = verified.shown.lock();
        let earlier = entries.iter().find(|(key, range, _)| *key == registration.key && *range == registration.range);
        let earlier = earlier.map(|(.., shown)| shown.clone());
        drop(entries);
        // Already taken back: the lease is stale, and `begin` says so.
        let Some(earlier) = earlier else { return Checked::Same };
        let rights = match lease.access {
            Access::Read => Rights::Read,
            Access::Write => Rights::Write,
        };
        let checked = match verified.source.look(registration.range) {
            Ok(look) => look.compare(&earlier, rights),
            Err(reason) => Checked::CannotTell(reason),
        };
        if matches!(checked, Checked::Changed(..)) {
            drop(self.shared.space().invalidate_start(registration.range, Event::Requested));
        }
        checked
    }

    /// [`verify`](Self::verify) each lease, then [`begin`](Self::begin).
    ///
    /// # Errors
    /// As `begin`; [`Error::Stale`] also for a lease whose mapping has changed, [`Error::Watch`] where this cannot be checked.
    ///
    /// # Blocking
    /// As both.
    pub fn begin_verified<'c, T>(
        &'c self,
        leases: &[&Lease<'c, Verified<R>>],
        deadline: &Deadline<'_>,
        submit: impl FnOnce(&[Registered<R::Key>]) -> T,
    ) -> Result<(Use<'c, Verified<R>>, T), Error> {
        if pagemirror_sync::section_depth(|depth| depth.get()) > 0 {
            return Err(Error::Nested);
        }
        for lease in leases {
            match self.verify(lease) {
                Checked::Same => {}
                Checked::Changed(..) => return Err(Error::Stale { range: lease.range }),
                Checked::CannotTell(reason) => return Err(WatchError::new(lease.range, reason, None).into()),
            }
        }
        self.begin(leases, deadline, submit)
    }
}

impl<R: Registrar> fmt::Debug for Verified<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("registered", &self.shown.lock().len()).finish_non_exhaustive()
    }
}
