//! Waiting with a bound: deadlines, cancellation, and the queue on which readers sleep.
//!
//! # Guarantee
//! Nobody sleeps past the deadline, and nobody misses the wake-up that was meant for them.
//!
//! # Fields
//! `WaitQueue::sleepers` counts who is in [`WaitQueue::wait`]; everybody changes it. `lock` protects nothing but the
//! moment between looking at the condition and falling asleep. Both are held for a few instructions, never across a
//! call that can block on the pump.
//!
//! # Interleavings
//! ```text
//! sleeper                                   waker
//! sleepers += 1                             make the condition true
//! fence(SeqCst)                             fence(SeqCst)
//! lock; look at the condition: false        look at sleepers: 0, go on
//! sleep until notified
//! ```
//! `[Required: not both]`. The fences forbid it: whoever comes second in their one order sees the other's store. With
//! `sleepers > 0` the waker takes the lock, so the sleeper is either before its look or already asleep.
//!
//! # Checked by
//! Loom: `end_with_waiters` with the planted bug `wake-without-fence`, `release_with_waiters` with `release-without-wake`,
//! `lowered_gate_with_waiters`.

use std::fmt;
use std::time::Duration;

use pagemirror_sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use pagemirror_sync::time::Instant;
use pagemirror_sync::{Condvar, Mutex, planted};

use crate::gate::Gate;

/// The longest sleep before the deadline and the cancellation are looked at again. Bounds how late a cancellation is
/// noticed; small beside any deadline that a person would set.
const SLICE: Duration = Duration::from_millis(10);

/// Cancels waits from another thread.
///
/// ```
/// # use std::time::Duration;
/// use pagemirror_core::wait::{CancelToken, Deadline};
/// let token = CancelToken::default();
/// let deadline = Deadline::after(Duration::from_secs(1)).or_cancelled(&token);
/// token.cancel();
/// assert!(deadline.expired().is_some());
/// ```
#[derive(Debug, Default)]
pub struct CancelToken(AtomicBool);

impl CancelToken {
    /// Ends every wait that looks at this token, now and later. A sleeper notices within 10 ms.
    pub fn cancel(&self) {
        // ORDERING: Release pairs with the Acquire in `is_cancelled`: who sees the flag sees what led to it.
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        // ORDERING: Acquire, see `cancel`.
        self.0.load(Ordering::Acquire)
    }
}

/// How long a call may wait: until an instant, or until somebody cancels.
#[derive(Debug, Clone, Copy)]
pub struct Deadline<'c> {
    at: Instant,
    cancel: Option<&'c CancelToken>,
}

/// Why a wait ended without what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// The deadline passed.
    TimedOut,
    /// The token was cancelled.
    Cancelled,
}

impl<'c> Deadline<'c> {
    /// A deadline `limit` from now. Limits beyond a year are a year.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        Self { at: Instant::now() + limit.min(YEAR), cancel: None }
    }

    /// The same deadline, which `token` can end earlier.
    #[must_use]
    pub fn or_cancelled<'t>(self, token: &'t CancelToken) -> Deadline<'t>
    where
        'c: 't,
    {
        Deadline { at: self.at, cancel: Some(token) }
    }

    /// Whether the wait is over, and why.
    #[must_use]
    pub fn expired(&self) -> Option<Expired> {
        if self.cancel.is_some_and(CancelToken::is_cancelled) {
            return Some(Expired::Cancelled);
        }
        // A model checker has no clock: there only cancellation and loss end a wait.
        (!cfg!(any(loom, shuttle)) && Instant::now() >= self.at).then_some(Expired::TimedOut)
    }

    fn slice(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now()).min(SLICE)
    }
}

/// Why a wait inside an address space ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The deadline or the cancellation.
    Expired(Expired),
    /// The address space was declared lost or released meanwhile.
    Lost,
}

/// A wait of one call: its deadline, and the gate that says when waiting has become pointless.
#[derive(Debug, Clone, Copy)]
pub struct Wait<'a> {
    deadline: &'a Deadline<'a>,
    gate: &'a Gate,
}

impl<'a> Wait<'a> {
    /// A wait until `deadline`, or until `gate` says that coherence was lost.
    #[must_use]
    pub fn new(deadline: &'a Deadline<'a>, gate: &'a Gate) -> Self {
        Self { deadline, gate }
    }

    /// Whether to go on waiting.
    ///
    /// # Errors
    /// Says why not: the space is lost, the deadline passed, or the token was cancelled.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.gate.lost().is_some() {
            return Err(Interrupted::Lost);
        }
        self.deadline.expired().map_or(Ok(()), |why| Err(Interrupted::Expired(why)))
    }
}

/// Where readers sleep until a condition holds.
pub struct WaitQueue {
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    bell: Condvar,
}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a queue is part of a protocol, never a default")]
    pub fn new() -> Self {
        Self { sleepers: AtomicUsize::new(0), lock: Mutex::new(()), bell: Condvar::new() }
    }

    /// Sleeps until `condition` holds. It is called with this queue's lock held: it may load, nothing else.
    ///
    /// # Errors
    /// When the wait ended first, and why.
    ///
    /// # Blocking
    /// Sleeps. Not from inside a section, not under a device lock.
    pub fn wait(&self, wait: &Wait<'_>, condition: impl Fn() -> bool) -> Result<(), Interrupted> {
        self.wait_until(
            || if condition() { Some(Ok(())) } else { wait.check().err().map(Err) },
            || wait.deadline.slice(),
        )
    }

    /// Sleeps until `condition` holds or `limit` has passed. Says whether the condition holds.
    ///
    /// # Blocking
    /// Sleeps, as [`wait`](Self::wait). Under a model checker there is no clock, and `limit` never passes.
    pub fn wait_at_most(&self, limit: Duration, condition: impl Fn() -> bool) -> bool {
        let deadline = Deadline::after(limit);
        self.wait_until(
            || if condition() { Some(true) } else { deadline.expired().map(|_| false) },
            || deadline.at.saturating_duration_since(Instant::now()),
        )
    }

    fn wait_until<R>(&self, answer: impl Fn() -> Option<R>, nap: impl Fn() -> Duration) -> R {
        // ORDERING: Relaxed; the fence behind it orders it before the look at the condition (see # Interleavings).
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut guard = self.lock.lock();
        let result = loop {
            if let Some(result) = answer() {
                break result;
            }
            guard = self.bell.wait(guard, nap());
        };
        drop(guard);
        // ORDERING: Relaxed; a waker that still sees the old count only rings once too often.
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Wakes everybody, after the condition was made true. Nearly free when nobody sleeps. Never allocates.
    pub fn wake(&self) {
        if !planted("wake-without-fence") {
            fence(Ordering::SeqCst);
        }
        // ORDERING: Relaxed, behind the fence (see # Interleavings).
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            drop(self.lock.lock());
            self.bell.notify_all();
        }
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").finish_non_exhaustive()
    }
}
