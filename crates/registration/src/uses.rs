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
use pagemirror_core::gate::{Entered, Section};
use pagemirror_core::source::Probe;
use pagemirror_core::wait::{Deadline, Interrupted, Wait};
use pagemirror_sync::atomic::Ordering;
use pagemirror_sync::{Arc, thread};
use smallvec::SmallVec;

use crate::cache::{Freshness, RegistrationCache, Shared};
use crate::error::Error;
use crate::lease::{Kind, Lease};
use crate::registrar::{Access, Registered, Registrar};
use crate::registry::{Begun, Leased, Name};
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
pub struct Use<'c, R: Registrar> {
    /// What a use of one lease holds. Those of several are all in `rest`.
    first: Option<Begun<'c>>,
    rest: Option<Box<Rest<R::Key>>>,
    shared: &'c Arc<Shared<R>>,
}

/// A [`Use`] that owns its part of the cache, so that it can be kept anywhere.
#[must_use = "give the use back when the device has completed"]
pub struct OwnedUse<R: Registrar> {
    first: Option<Name>,
    rest: Option<Box<Rest<R::Key>>>,
    shared: Arc<Shared<R>>,
}

/// What a use of several leases holds. Apart, so that a use of one is small.
struct Rest<K>(Vec<Held<K>>);

enum Held<K> {
    /// A registration of the cache.
    Cached(Name),
    /// One that was made for this use alone.
    OneShot(Registered<K>),
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
    #[inline(always)]
    pub fn begin_at<T>(
        &self,
        address: VirtAddr,
        len: u64,
        access: Access,
        deadline: &Deadline<'_>,
        submit: impl FnOnce(Registered<R::Key>) -> T,
    ) -> Result<(Use<'_, R>, T), Error> {
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
    #[inline(always)]
    pub fn begin<'c, T>(
        &'c self,
        leases: &[&Lease<'c, R>],
        deadline: &Deadline<'_>,
        submit: impl FnOnce(&[Registered<R::Key>]) -> T,
    ) -> Result<(Use<'c, R>, T), Error> {
        let range = leases.first().map_or(PageRange::ALL, |lease| lease.range);
        if let Some(lease) = leases.iter().find(|lease| !Arc::ptr_eq(lease.shared, &self.shared)) {
            return Err(Error::Foreign { range: lease.range });
        }
        if let [Lease { kind: Kind::Cached(leased), .. }] = leases {
            return self.shared.begin_one(*leased, range, deadline, submit);
        }
        match self.shared.begin_all(leases, range, deadline, submit) {
            Ok((using, result)) => Ok((using, result)),
            Err(error) => Err(error),
        }
    }
}

impl<R: Registrar> Shared<R> {
    /// Begins a use of one registration: the path of a hit.
    #[inline(always)]
    fn begin_one<'c, T>(
        self: &'c Arc<Self>,
        leased: Leased<'c>,
        range: PageRange,
        deadline: &Deadline<'_>,
        submit: impl FnOnce(&[Registered<R::Key>]) -> T,
    ) -> Result<(Use<'c, R>, T), Error> {
        let section = self.enter(range, deadline)?;
        let Some((begun, registered)) = self.registry.begin_use(section.lane(), leased) else {
            drop(section);
            return Err(self.refuse_stale(range));
        };
        let using = Use { first: Some(begun), rest: None, shared: self };
        Ok(self.submit(section, using, || submit(&[registered])))
    }

    /// Begins a use of any number of leases, registering first what is for one use.
    #[cold]
    #[inline(never)]
    fn begin_all<T>(
        self: &Arc<Self>,
        leases: &[&Lease<'_, R>],
        range: PageRange,
        deadline: &Deadline<'_>,
        submit: impl FnOnce(&[Registered<R::Key>]) -> T,
    ) -> Result<(Use<'_, R>, T), Error> {
        if pagemirror_sync::section_depth(|depth| depth.get()) > 0 {
            return Err(Error::Nested);
        }
        // Both have room for all: nothing is allocated in the section.
        let rest = Some(Box::new(Rest(Vec::with_capacity(leases.len()))));
        let mut registered: SmallVec<[Registered<R::Key>; INLINE]> = SmallVec::with_capacity(leases.len());
        let mut using = Use { first: None, rest, shared: self };
        for lease in leases {
            using.register_one_shot(lease, deadline)?;
        }
        let section = self.enter(range, deadline)?;
        let mut made = 0;
        for lease in leases {
            match &lease.kind {
                Kind::Cached(leased) => match self.registry.begin_use(section.lane(), *leased) {
                    Some((begun, found)) => {
                        using.rest().push(Held::Cached(self.registry.name(begun)));
                        registered.push(found);
                    }
                    None => {
                        drop(section);
                        return Err(self.refuse_stale(lease.range));
                    }
                },
                Kind::OneShot(_) => {
                    // Those for one use are at the front of what is held, in their own order.
                    registered.extend(using.rest().get(made).and_then(Held::one_shot));
                    made += 1;
                }
            }
        }
        Ok(self.submit(section, using, || submit(&registered)))
    }

    /// Enters a section with the gate open, waiting outside while it is not.
    #[inline(always)]
    fn enter(&self, range: PageRange, deadline: &Deadline<'_>) -> Result<Section<'_>, Error> {
        let gate = self.space().gate();
        loop {
            self.wait_quiet(range, deadline)?;
            match gate.enter() {
                Entered::Open(section) => return Ok(section),
                Entered::Raised => self.wait_gate(range, deadline)?,
                Entered::Lost(cause) => return Err(Error::lost(range, cause)),
                Entered::Nested => return Err(Error::Nested),
            }
        }
    }

    /// Submits in the section, and leaves it.
    #[inline(always)]
    fn submit<'c, T>(&self, section: Section<'_>, using: Use<'c, R>, submit: impl FnOnce() -> T) -> (Use<'c, R>, T) {
        // A panic in `submit` leaves the use forgotten: its pages stay registered for ever.
        let using = ManuallyDrop::new(using);
        let result = submit();
        let lane = section.lane();
        drop(section);
        self.counters.used(lane);
        (ManuallyDrop::into_inner(using), result)
    }

    #[cold]
    fn refuse_stale(&self, range: PageRange) -> Error {
        count(&self.counters.stale);
        Error::Stale { range }
    }
}

impl<R: Registrar> Use<'_, R> {
    /// Gives the use back: the device has completed everything that was submitted in it.
    #[inline(always)]
    pub fn complete(self) {
        drop(self);
    }

    /// The same use, no longer bound to the borrow of the cache: for keeping uses beside it, until the device says that they
    /// have completed. Costs two changes of a count that all threads share.
    pub fn into_owned(mut self) -> OwnedUse<R> {
        let (first, rest) = (self.first.take(), self.rest.take());
        let first = first.map(|begun| self.shared.registry.name(begun));
        OwnedUse { first, rest, shared: Arc::clone(self.shared) }
    }

    fn rest(&mut self) -> &mut Vec<Held<R::Key>> {
        &mut self.rest.get_or_insert_with(|| Box::new(Rest(Vec::new()))).0
    }

    /// What is for one use is registered here, after the request has arrived, and shared with nobody.
    fn register_one_shot(&mut self, lease: &Lease<'_, R>, deadline: &Deadline<'_>) -> Result<(), Error> {
        let Kind::OneShot(used) = &lease.kind else { return Ok(()) };
        // ORDERING: Relaxed; only one caller wins, nothing else hangs on it.
        if used.swap(true, Ordering::Relaxed) {
            return Err(Error::Stale { range: lease.range });
        }
        let key = self.shared.register_key(lease.range, lease.access, deadline)?;
        self.rest().push(Held::OneShot(Registered { key, range: lease.range }));
        Ok(())
    }
}

impl<R: Registrar> Shared<R> {
    /// Gives a use of several back. Says whether the worker may be waiting for that.
    #[cold]
    #[inline(never)]
    fn end_rest(&self, rest: Option<Box<Rest<R::Key>>>) -> bool {
        let mut finished = false;
        for held in rest.into_iter().flat_map(|rest| rest.0) {
            match held {
                Held::Cached(name) => finished |= self.registry.end_named(name),
                Held::OneShot(registered) => {
                    self.let_go(registered.key);
                    finished = true;
                }
            }
        }
        finished
    }
}

impl<K: Copy> Held<K> {
    fn one_shot(&self) -> Option<Registered<K>> {
        match self {
            Self::OneShot(registered) => Some(*registered),
            Self::Cached(_) => None,
        }
    }
}

impl<R: Registrar> Drop for Use<'_, R> {
    #[inline(always)]
    fn drop(&mut self) {
        let mut finished = self.first.is_some_and(|begun| self.shared.registry.end_use(begun));
        if let Some(rest) = self.rest.take() {
            finished |= self.shared.end_rest(Some(rest));
        }
        if finished {
            self.shared.bell.ring();
        }
    }
}

impl<R: Registrar> OwnedUse<R> {
    /// Gives the use back: the device has completed everything that was submitted in it.
    pub fn complete(self) {
        drop(self);
    }
}

impl<R: Registrar> Drop for OwnedUse<R> {
    fn drop(&mut self) {
        let finished = self.first.is_some_and(|name| self.shared.registry.end_named(name));
        if self.shared.end_rest(self.rest.take()) || finished {
            self.shared.bell.ring();
        }
    }
}

impl<R: Registrar> fmt::Debug for OwnedUse<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedUse").finish_non_exhaustive()
    }
}

impl<R: Registrar> fmt::Debug for Use<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Use")
            .field("leases", &(self.rest.as_ref().map_or(0, |rest| rest.0.len()) + usize::from(self.first.is_some())))
            .finish_non_exhaustive()
    }
}

impl<R: Registrar> Shared<R> {
    /// At the strict level: waits until every change that the kernel has begun was read. Asked again until the deadline,
    /// because a change stays under way until its caller has been scheduled again.
    #[inline(always)]
    fn wait_quiet(&self, range: PageRange, deadline: &Deadline<'_>) -> Result<(), Error> {
        if self.options.freshness == Freshness::Ordered {
            return Ok(());
        }
        // The probe may sleep.
        if pagemirror_sync::section_depth(|depth| depth.get()) > 0 {
            return Err(Error::Nested);
        }
        match self.source.probe() {
            Probe::Quiet => Ok(()),
            Probe::Lost(cause) => Err(Error::lost(range, cause)),
            Probe::Changing => self.wait_for_quiet(range, deadline),
        }
    }

    #[cold]
    fn wait_for_quiet(&self, range: PageRange, deadline: &Deadline<'_>) -> Result<(), Error> {
        let since = Instant::now();
        for round in 0_u32.. {
            match self.source.probe() {
                Probe::Quiet => break,
                Probe::Lost(cause) => return Err(Error::lost(range, cause)),
                Probe::Changing => {}
            }
            self.check(range, deadline)?;
            match round {
                0..PROBE_YIELDS => {}
                PROBE_YIELDS..PROBE_NAPS => thread::yield_now(),
                _ => thread::sleep(PROBE_NAP),
            }
        }
        self.counters.waited(WaitCause::Probe, since);
        Ok(())
    }

    #[cold]
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
