//! Uses: one submission to the device on one or several leases.
//!
//! # Guarantee
//! The submission happens while every lease is valid: nothing that returned before `begin` was called, and (at the strict
//! level) nothing whose addresses the kernel has given out again, has taken the pages away. They stay registered, and
//! their keys are not given out again, until the use is given back.
//!
//! # Steps
//! Outside the section: register what is for one use; ask the probe (it may sleep). Then **enter the section; look at the
//! gate; count the use on each lease (stale: leave); submit; leave**. Up or lost: leave, wait outside, begin again.
//!
//! # Checked by
//! `get_against_invalidation`, `last_use_after_revocation` (shuttle); on real memory by the stress run.

use std::fmt;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::error::Error as CoreError;
use pagemirror_core::gate::Entered;
use pagemirror_core::source::Probe;
use pagemirror_core::wait::{Deadline, Interrupted, Wait};
use pagemirror_sync::atomic::Ordering;
use pagemirror_sync::{Arc, thread};
use smallvec::SmallVec;

use crate::cache::{Freshness, RegistrationCache, Shared};
use crate::error::Error;
use crate::lease::{Kind, Lease};
use crate::registrar::{Access, Registered, Registrar};
use crate::registration::Registration;
use crate::stats::{WaitCause, count};

/// Leases of one use that need no allocation.
const INLINE: usize = 4;

/// Probes in a row before the prober lets others run, and before it sleeps between probes: an unread event is usually
/// read within tens of microseconds, but the caller it frees may be scheduled much later.
const PROBE_YIELDS: u32 = 8;
const PROBE_NAPS: u32 = 64;
/// The nap between two probes.
const PROBE_NAP: Duration = Duration::from_micros(100);

/// A submission that is under way. Give it back when the device has completed everything that was submitted: by
/// [`complete`](Self::complete), or by dropping it. Until then the pages stay registered.
#[must_use = "give the use back when the device has completed"]
pub struct Use<R: Registrar> {
    held: SmallVec<[Held<R::Key>; INLINE]>,
    shared: Arc<Shared<R>>,
}

struct Held<K> {
    registration: Arc<Registration<K>>,
    one_shot: bool,
    begun: bool,
}

impl<R: Registrar> RegistrationCache<R> {
    /// [`get`](Self::get) and [`begin`](Self::begin) in one, made again while the lease turns out stale: what a caller with
    /// one buffer wants. `submit` is called once, when it is called at all; an error means that it was not.
    ///
    /// # Errors
    /// As `get` and `begin`, but never [`Error::Stale`].
    ///
    /// # Blocking
    /// As both.
    pub fn begin_at<T>(
        &self,
        address: VirtAddr,
        len: u64,
        access: Access,
        deadline: &Deadline<'_>,
        submit: impl FnOnce(Registered<R::Key>) -> T,
    ) -> Result<(Use<R>, T), Error> {
        let mut submit = Some(submit);
        loop {
            let lease = self.get(address, len, access, deadline)?;
            let once = |registered: &[Registered<R::Key>]| submit.take().map(|submit| submit(registered[0]));
            match self.begin(&[&lease], deadline, once) {
                Ok((using, Some(result))) => return Ok((using, result)),
                // `submit` is there until it is called, and calling it ends the loop.
                Ok((_, None)) => return Err(Error::Stale { range: lease.range() }),
                Err(Error::Stale { .. }) => self.shared.check(lease.range(), deadline)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins a use of `leases` and calls `submit` with their registrations, in the same order. What `submit` returns
    /// comes back beside the use. An error means that `submit` was not called.
    ///
    /// `submit` runs in a section: no fault, no allocation, no free, no sleep, no other `begin`. If it panics, the
    /// registrations are never let go, because nobody knows what was submitted.
    ///
    /// # Errors
    /// [`Error::Stale`] when a lease was invalidated: get a new one. [`Error::Wait`] when the deadline passed, the wait
    /// was cancelled, or coherence is lost. [`Error::Register`] when a lease was for one use and the device refused.
    /// [`Error::Nested`] inside another submission.
    ///
    /// # Blocking
    /// Sleeps while the pump reads events and, at the strict level, while the kernel changes memory that is watched.
    pub fn begin<T>(
        &self,
        leases: &[&Lease<R>],
        deadline: &Deadline<'_>,
        submit: impl FnOnce(&[Registered<R::Key>]) -> T,
    ) -> Result<(Use<R>, T), Error> {
        let all = leases.first().map_or(PageRange::ALL, |lease| lease.range);
        let mut using = Use { held: SmallVec::new(), shared: Arc::clone(&self.shared) };
        if pagemirror_sync::section_depth(|depth| depth.get()) > 0 {
            return Err(Error::Nested);
        }
        for lease in leases {
            if !Arc::ptr_eq(&lease.shared, &self.shared) {
                return Err(Error::Foreign { range: lease.range });
            }
            using.hold(lease, deadline)?;
        }
        let registered: SmallVec<[Registered<R::Key>; INLINE]> = using.held.iter().map(Held::registered).collect();
        let gate = self.shared.space().gate();
        loop {
            self.shared.wait_quiet(all, deadline)?;
            match gate.enter() {
                Entered::Open(section) => {
                    if let Err(stale) = using.begin_all() {
                        drop(section);
                        count(&self.shared.counters.stale);
                        // The worker may have seen the count that was taken back just now.
                        self.shared.bell.ring();
                        return Err(stale);
                    }
                    // A panic in `submit` leaves the use forgotten: its pages stay registered for ever.
                    let using = ManuallyDrop::new(using);
                    let result = submit(&registered);
                    drop(section);
                    count(&self.shared.counters.uses);
                    return Ok((ManuallyDrop::into_inner(using), result));
                }
                Entered::Raised => self.shared.wait_gate(all, deadline)?,
                Entered::Lost(cause) => return Err(Error::lost(all, cause)),
                Entered::Nested => return Err(Error::Nested),
            }
        }
    }
}

impl<R: Registrar> Use<R> {
    /// Gives the use back: the device has completed everything that was submitted in it.
    pub fn complete(self) {
        drop(self);
    }

    /// Holds the registration behind `lease`. What is for one use is registered here, after the request has arrived, and
    /// shared with nobody.
    fn hold(&mut self, lease: &Lease<R>, deadline: &Deadline<'_>) -> Result<(), Error> {
        let held = match &lease.kind {
            Kind::Cached(registration) => {
                Held { registration: Arc::clone(registration), one_shot: false, begun: false }
            }
            Kind::OneShot(used) => {
                // ORDERING: Relaxed; only one caller wins, nothing else hangs on it.
                if used.swap(true, Ordering::Relaxed) {
                    return Err(Error::Stale { range: lease.range });
                }
                let key = self.shared.register_key(lease.range, lease.access, deadline)?;
                let registration = Arc::new(Registration::for_one_use(lease.range, lease.access, key));
                Held { registration, one_shot: true, begun: true }
            }
        };
        self.held.push(held);
        Ok(())
    }

    /// Counts the use on every registration, or says which is stale. In the section: frees and allocates nothing.
    fn begin_all(&mut self) -> Result<(), Error> {
        for held in &mut self.held {
            if !held.begun && !held.registration.begin_use() {
                return Err(Error::Stale { range: held.registration.range });
            }
            held.begun = true;
        }
        Ok(())
    }
}

impl<K: Copy> Held<K> {
    fn registered(&self) -> Registered<K> {
        Registered { key: self.registration.key, range: self.registration.range }
    }
}

impl<R: Registrar> Drop for Use<R> {
    fn drop(&mut self) {
        let mut finished = false;
        for held in self.held.drain(..).filter(|held| held.begun) {
            finished |= held.registration.end_use();
            if held.one_shot {
                self.shared.deregistrations.hand_over(held.registration);
            }
        }
        if finished {
            self.shared.bell.ring();
        }
    }
}

impl<R: Registrar> fmt::Debug for Use<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.held.iter().map(|held| &held.registration)).finish()
    }
}

impl<R: Registrar> Shared<R> {
    /// At the strict level: waits until every change that the kernel has begun was read. Asked again until the deadline,
    /// because a change stays under way until its caller has been scheduled again.
    fn wait_quiet(&self, range: PageRange, deadline: &Deadline<'_>) -> Result<(), Error> {
        if self.options.freshness == Freshness::Ordered {
            return Ok(());
        }
        let mut since = None;
        for round in 0_u32.. {
            match self.source.probe() {
                Probe::Quiet => break,
                Probe::Lost(cause) => return Err(Error::lost(range, cause)),
                Probe::Changing => {}
            }
            since.get_or_insert_with(Instant::now);
            self.check(range, deadline)?;
            match round {
                0..PROBE_YIELDS => {}
                PROBE_YIELDS..PROBE_NAPS => thread::yield_now(),
                _ => thread::sleep(PROBE_NAP),
            }
        }
        if let Some(since) = since {
            self.counters.waited(WaitCause::Probe, since);
        }
        Ok(())
    }

    fn wait_gate(&self, range: PageRange, deadline: &Deadline<'_>) -> Result<(), Error> {
        let since = Instant::now();
        let gate = self.space().gate();
        let outcome = gate.wait_open(&Wait::new(deadline, gate));
        self.counters.waited(WaitCause::Gate, since);
        outcome.or_else(|why| self.interrupted(range, why))
    }

    /// Whether to go on waiting, as an error that names the range.
    pub(crate) fn check(&self, range: PageRange, deadline: &Deadline<'_>) -> Result<(), Error> {
        Wait::new(deadline, self.space().gate()).check().or_else(|why| self.interrupted(range, why))
    }

    pub(crate) fn interrupted(&self, range: PageRange, why: Interrupted) -> Result<(), Error> {
        Err(CoreError::interrupted(why, range, self.space().gate().lost()).into())
    }
}
