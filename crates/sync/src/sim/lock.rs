//! Locks that block the coroutine, in the shape of the standard library's. A standard lock inside each holds the value and
//! is only ever tried: who does not get it parks until it is given back.

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use super::point::{park, point, wake_all};
use super::run::{deaf, name_of_current};

/// Wakes who waits for a lock. Stands behind the guard that it goes with, so that the lock is free before.
#[derive(Debug)]
struct Wake(usize);

impl Drop for Wake {
    fn drop(&mut self) {
        wake_all(self.0);
    }
}

/// Tries until it succeeds, parked under `key` in between.
fn until_free<G>(key: usize, attempt: impl Fn() -> TryLockResult<G>) -> G {
    point();
    loop {
        match attempt() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let blocked = std::thread::panicking();
                assert!(
                    !blocked,
                    "{}: a destructor needs a lock that is held, while a panic unwinds",
                    name_of_current()
                );
                park(key, None);
            }
        }
    }
}

fn key_of<T>(lock: &T) -> usize {
    std::ptr::from_ref(lock).addr()
}

/// A mutual-exclusion lock.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

/// A held [`Mutex`].
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    inner: std::sync::MutexGuard<'a, T>,
    wake: Wake,
    lock: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    /// Makes an open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// Never here: these locks do not poison.
    ///
    /// # Blocking
    /// Waits for the holder.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let key = key_of(self);
        let inner = until_free(key, || self.0.try_lock());
        Ok(MutexGuard { inner, wake: Wake(key), lock: self })
    }
}

/// A condition variable.
#[derive(Debug, Default)]
pub struct Condvar {
    /// It is known by its place, so it must have one.
    _place: u8,
}

impl Condvar {
    /// Makes one without waiters.
    #[must_use]
    pub const fn new() -> Self {
        Self { _place: 0 }
    }

    /// Releases the lock, sleeps until notified or until `limit` has passed, and takes the lock again.
    ///
    /// # Errors
    /// Never here.
    ///
    /// # Blocking
    /// Sleeps; nobody runs between the release and its falling asleep. Where the run is deaf to time, the limit is longer.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let MutexGuard { inner, wake, lock } = guard;
        drop(inner);
        drop(wake);
        park(key_of(self), Some(limit.saturating_mul(deaf())));
        let guard = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok((guard, ()))
    }

    /// Wakes everybody who waits.
    pub fn notify_all(&self) {
        wake_all(key_of(self));
    }
}

/// A lock that many readers or one writer may hold.
#[derive(Debug, Default)]
pub struct RwLock<T>(std::sync::RwLock<T>);

/// A [`RwLock`] held for reading.
#[derive(Debug)]
#[expect(dead_code, reason = "the second field is there for its destructor")]
pub struct RwLockReadGuard<'a, T>(std::sync::RwLockReadGuard<'a, T>, Wake);

/// A [`RwLock`] held for writing.
#[derive(Debug)]
#[expect(dead_code, reason = "the second field is there for its destructor")]
pub struct RwLockWriteGuard<'a, T>(std::sync::RwLockWriteGuard<'a, T>, Wake);

impl<T> RwLock<T> {
    /// Makes an open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }

    /// Takes the lock for reading.
    ///
    /// # Errors
    /// Never here.
    ///
    /// # Blocking
    /// Waits for a writer.
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        let key = key_of(self);
        Ok(RwLockReadGuard(until_free(key, || self.0.try_read()), Wake(key)))
    }

    /// Takes the lock for writing.
    ///
    /// # Errors
    /// Never here.
    ///
    /// # Blocking
    /// Waits for all holders.
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        let key = key_of(self);
        Ok(RwLockWriteGuard(until_free(key, || self.0.try_write()), Wake(key)))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
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
