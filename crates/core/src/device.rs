//! A device's table of translations behind its lock, and the typed way to put something into it.
//!
//! # Guarantee
//! What is installed was valid when it was installed, and is revoked by every overlapping invalidation that starts
//! later. The first half is the [`Permit`], the second the subscription that every table has from its first moment.
//!
//! # Types
//! A held lock is a [`TableGuard`]. Only it can [`commit`](TableGuard::commit) an attempt; the answer borrows the guard
//! mutably, so the permit cannot outlive the lock, and installing consumes it.
//!
//! Without a permit nothing is installed:
//! ```compile_fail
//! # use pagemirror_core::{addr::PageRange, device::{DeviceTable, Granted, Mappings}};
//! fn install<M: Mappings>(table: &DeviceTable<M>, item: M::Item) {
//!     table.lock().install(Granted(()), PageRange::ALL, item); // only a permit can make `Granted`
//! }
//! ```
//! Without the lock nothing is committed:
//! ```compile_fail
//! # use pagemirror_core::{device::{DeviceTable, Mappings}, space::Attempt};
//! fn commit<M: Mappings>(table: &DeviceTable<M>, attempt: &Attempt<'_>) {
//!     let _ = table.commit(attempt); // a method of the guard, not of the table
//! }
//! ```
//! A permit does not outlive its lock:
//! ```compile_fail
//! # use pagemirror_core::{device::{Commit, DeviceTable, Mappings}, space::Attempt};
//! fn keep<'t, M: Mappings>(table: &'t DeviceTable<M>, attempt: &Attempt<'_>) -> Commit<'t, M> {
//!     table.lock().commit(attempt) // borrows the guard, which ends here
//! }
//! ```
//! It cannot be used twice:
//! ```compile_fail
//! # use pagemirror_core::device::{Mappings, Permit};
//! fn twice<M: Mappings>(permit: Permit<'_, M>, one: M::Item, two: M::Item) {
//!     permit.install(one);
//!     permit.install(two); // moved
//! }
//! ```
//! Nor on another table: a permit *is* the borrow of its own, and takes none.
//! ```compile_fail
//! # use pagemirror_core::device::{Mappings, Permit, TableGuard};
//! fn elsewhere<M: Mappings>(permit: Permit<'_, M>, other: &mut TableGuard<'_, M>, item: M::Item) {
//!     permit.install_in(other, item); // no such method
//! }
//! ```
//! What is right compiles:
//! ```
//! # use pagemirror_core::{device::{Commit, DeviceTable, Mappings}, space::Attempt};
//! fn fault<M: Mappings>(table: &DeviceTable<M>, attempt: &Attempt<'_>, item: M::Item) -> bool {
//!     let mut table = table.lock();
//!     match table.commit(attempt) {
//!         Commit::Permit(permit) => { permit.install(item); true }
//!         Commit::Collided(_) => false,
//!     }
//! }
//! ```
//!
//! # Checked by
//! The examples above; `begin_commit_under_a_device_lock_of_its_own` (loom) with the planted bugs `callback-skips-empty` and
//! `commit-before-lock`.

use std::fmt;
use std::ops::{Deref, DerefMut};

use pagemirror_sync::{Arc, Mutex, MutexGuard};

use crate::addr::PageRange;
use crate::collision::{CollisionTracker, Verdict};
use crate::log::CollisionLog;
use crate::notify::{Event, Subscriber};
use crate::space::{AddressSpace, Attempt, Subscription};

/// The translations that a device holds. Its methods run under the device lock: they do not allocate, free, sleep, or
/// call into anything that does.
pub trait Mappings: Send + 'static {
    /// What is installed for a range.
    type Item;

    /// Installs `item` for `range`. Only a [`Permit`] can make the [`Granted`] that this takes.
    fn install(&mut self, granted: Granted, range: PageRange, item: Self::Item);

    /// Drops every translation that overlaps `range`. What takes long is handed to a worker.
    fn revoke(&mut self, range: PageRange, event: Event);
}

/// Says that a permit was consumed. Nothing outside this module can make one.
#[derive(Debug)]
pub struct Granted(());

/// A device's table: [`Mappings`] behind the device lock, told about every invalidation of its address space.
#[derive(Debug)]
pub struct DeviceTable<M: Mappings, T: CollisionTracker = CollisionLog> {
    // The subscription goes first, so that no callback runs while the rest is taken down.
    _subscription: Subscription<T>,
    locked: Arc<Locked<M>>,
    space: Arc<AddressSpace<T>>,
}

struct Locked<M>(Mutex<M>);

impl<M> fmt::Debug for Locked<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").finish_non_exhaustive()
    }
}

impl<M: Mappings> Subscriber for Locked<M> {
    fn invalidate(&self, range: PageRange, event: Event) {
        // The lock is taken whatever the table holds: a fault that has passed its check but has not installed yet
        // holds it, and is waited for here.
        self.0.lock().revoke(range, event);
    }
}

impl<M: Mappings, T: CollisionTracker + 'static> DeviceTable<M, T> {
    /// A table for translations of `space`, subscribed to its invalidations.
    ///
    /// # Blocking
    /// As [`AddressSpace::subscribe`].
    pub fn new(space: &Arc<AddressSpace<T>>, mappings: M) -> Self {
        let locked = Arc::new(Locked(Mutex::new(mappings)));
        let subscription = space.subscribe(Arc::clone(&locked) as Arc<dyn Subscriber>);
        Self { _subscription: subscription, locked, space: Arc::clone(space) }
    }

    /// The address space whose translations these are.
    pub fn space(&self) -> &Arc<AddressSpace<T>> {
        &self.space
    }

    /// Takes the device lock.
    ///
    /// # Blocking
    /// Waits for the holder, who by the rules of [`Mappings`] is quick. While it is held: no fault, no allocation, no
    /// free, no sleep; the pump waits for this lock, and others wait for the pump.
    pub fn lock(&self) -> TableGuard<'_, M, T> {
        TableGuard { mappings: self.locked.0.lock(), space: &self.space }
    }
}

/// The held device lock.
#[derive(Debug)]
pub struct TableGuard<'t, M: Mappings, T: CollisionTracker = CollisionLog> {
    mappings: MutexGuard<'t, M>,
    space: &'t Arc<AddressSpace<T>>,
}

impl<M: Mappings, T: CollisionTracker> TableGuard<'_, M, T> {
    /// Asks whether what `attempt` has read may be installed.
    ///
    /// # Panics
    /// When the attempt belongs to another address space: that is a bug of the caller.
    pub fn commit(&mut self, attempt: &Attempt<'_, T>) -> Commit<'_, M> {
        match verdict(self.space, attempt) {
            Verdict::Valid => Commit::Permit(Permit { mappings: &mut *self.mappings, range: attempt.range() }),
            collided => Commit::Collided(collided),
        }
    }
}

/// What a device lock of `space` that is held has to say to `attempt`.
///
/// # Panics
/// When the attempt belongs to another address space.
pub(crate) fn verdict<T: CollisionTracker>(space: &Arc<AddressSpace<T>>, attempt: &Attempt<'_, T>) -> Verdict {
    assert!(
        std::ptr::eq(attempt.space(), Arc::as_ptr(space)),
        "an attempt was committed to the table of another address space"
    );
    // Once coherence is lost nobody revokes what would be installed. The next attempt is told why.
    if space.gate().lost().is_some() { Verdict::Outrun } else { attempt.read_retry() }
}

impl<M: Mappings, T: CollisionTracker> Deref for TableGuard<'_, M, T> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.mappings
    }
}

impl<M: Mappings, T: CollisionTracker> DerefMut for TableGuard<'_, M, T> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.mappings
    }
}

/// The answer to a commit. A collision is an outcome, not an error: go round again with the verdict.
#[derive(Debug)]
#[must_use]
pub enum Commit<'g, M: Mappings> {
    /// Nothing collided: install while the lock is held.
    Permit(Permit<'g, M>),
    /// An overlapping invalidation started, or the log was outrun.
    Collided(Verdict),
}

/// The right to install once what was read, while the lock that it borrows is held.
#[must_use]
pub struct Permit<'g, M: Mappings> {
    mappings: &'g mut M,
    range: PageRange,
}

impl<M: Mappings> Permit<'_, M> {
    /// Installs `item` for the range of the attempt.
    pub fn install(self, item: M::Item) {
        self.mappings.install(Granted(()), self.range, item);
    }
}

impl<M: Mappings> fmt::Debug for Permit<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("range", &self.range).finish_non_exhaustive()
    }
}
