//! Locks without poisoning, over this build's primitives.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

#[cfg(sim)]
use crate::sim::lock as imp;
#[cfg(loom)]
use loom::sync as imp;
#[cfg(all(shuttle, not(loom)))]
use shuttle::sync as imp;
#[cfg(not(any(loom, shuttle, sim)))]
use std::sync as imp;

/// A mutual-exclusion lock. A panic while it is held releases it.
pub struct Mutex<T>(imp::Mutex<T>);

/// A held [`Mutex`].
pub struct MutexGuard<'a, T>(imp::MutexGuard<'a, T>);

impl<T> Mutex<T> {
    /// Makes an open lock around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Takes the lock.
    ///
    /// # Blocking
    /// Waits for the holder, without a bound. Never allocates.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A condition variable for [`Mutex`].
pub struct Condvar(imp::Condvar);

impl Condvar {
    /// Makes one without waiters.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default condition variable says nothing to a reader")]
    pub fn new() -> Self {
        Self(imp::Condvar::new())
    }

    /// Releases the lock, sleeps until notified or until `limit` has passed, and takes the lock again.
    ///
    /// # Blocking
    /// Under a model checker there is no clock: there it sleeps until notified.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
        #[cfg(any(loom, shuttle))]
        {
            let _ = limit;
            MutexGuard(self.0.wait(guard.0).unwrap_or_else(PoisonError::into_inner))
        }
        #[cfg(not(any(loom, shuttle)))]
        MutexGuard(self.0.wait_timeout(guard.0, limit).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Wakes everybody who waits.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A lock that many readers or one writer may hold. A panic while it is held releases it.
pub struct RwLock<T>(imp::RwLock<T>);

/// A [`RwLock`] held for reading.
pub struct RwLockReadGuard<'a, T>(imp::RwLockReadGuard<'a, T>);

/// A [`RwLock`] held for writing.
pub struct RwLockWriteGuard<'a, T>(imp::RwLockWriteGuard<'a, T>);

impl<T> RwLock<T> {
    /// Makes an open lock around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::RwLock::new(value))
    }

    /// Takes the lock for reading.
    ///
    /// # Blocking
    /// Waits for a writer, without a bound. Never allocates.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the lock for writing.
    ///
    /// # Blocking
    /// Waits for all holders, without a bound. Never allocates.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard(self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

macro_rules! opaque_debug {
    ($name:ident $(<$($lt:lifetime,)? $t:ident>)?) => {
        impl $(<$($lt,)? $t>)? fmt::Debug for $name $(<$($lt,)? $t>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

opaque_debug!(Mutex<T>);
opaque_debug!(MutexGuard<'a, T>);
opaque_debug!(Condvar);
opaque_debug!(RwLock<T>);
opaque_debug!(RwLockReadGuard<'a, T>);
opaque_debug!(RwLockWriteGuard<'a, T>);
