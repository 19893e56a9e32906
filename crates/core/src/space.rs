//! The address space: one tracker, one gate, one set of doubts, and who is told.
//!
//! # Lock order
//! From the outside in; a thread takes them only downwards.
//!
//! | rank | lock | held for |
//! |---|---|---|
//! | 1 | the list of subscribers | the callbacks of one invalidation |
//! | 2 | a device lock ([`DeviceTable`](crate::device::DeviceTable)) | one commit, one revocation |
//! | 3 | the log's writer lock, the doubts' writer lock | a few stores |
//! | 4 | a wait queue's lock | one look at a condition |
//!
//! None is held across a system call that changes memory, an allocation or a free.

use std::fmt;

use pagemirror_sync::{Arc, planted};

use crate::addr::PageRange;
use crate::collision::{CollisionTracker, InvalidationId, Reader, Token, Verdict};
use crate::doubt::{DOUBTS, DoubtSet};
use crate::error::Error;
use crate::gate::{Gate, LostCause};
use crate::log::CollisionLog;
use crate::notify::{Event, Subscriber, Subscribers};
use crate::wait::{Deadline, Wait};

/// What devices believe about one process's memory, and what makes it stop being true.
///
/// ```
/// use std::time::Duration;
/// use pagemirror_core::addr::{PageRange, VirtAddr};
/// use pagemirror_core::notify::Event;
/// use pagemirror_core::space::AddressSpace;
/// use pagemirror_core::wait::Deadline;
///
/// let space: AddressSpace = AddressSpace::default();
/// let range = PageRange::covering(VirtAddr::new(0x10000), 0x2000, 4096)?;
/// let attempt = space.read_begin(range, None, &Deadline::after(Duration::from_secs(1)))?;
/// drop(space.invalidate_start(range, Event::Requested)); // starts and ends between the two looks
/// assert!(!attempt.is_valid());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AddressSpace<T: CollisionTracker = CollisionLog> {
    tracker: T,
    gate: Gate,
    doubt: DoubtSet,
    subscribers: Subscribers,
}

impl Default for AddressSpace {
    fn default() -> Self {
        Self::new(CollisionLog::default(), Gate::in_ordinary_memory())
    }
}

impl<T: CollisionTracker> AddressSpace<T> {
    /// An address space over this tracker and gate.
    pub fn new(tracker: T, gate: Gate) -> Self {
        Self::with_doubts(tracker, gate, DOUBTS)
    }

    /// As [`new`](Self::new), with room for so many doubts that are kept apart; one more puts everything in doubt.
    pub fn with_doubts(tracker: T, gate: Gate, doubts: usize) -> Self {
        Self { tracker, gate, doubt: DoubtSet::with_room(doubts), subscribers: Subscribers::new() }
    }

    /// The gate in front of uses.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The addresses in doubt.
    pub fn doubt(&self) -> &DoubtSet {
        &self.doubt
    }

    /// The tracker, for its statistics.
    pub fn tracker(&self) -> &T {
        &self.tracker
    }

    /// Tells `subscriber` about every invalidation that starts from now on, until the subscription is dropped.
    ///
    /// # Blocking
    /// Waits for callbacks that are running. Not from a callback, nor with a lock held that a callback takes.
    pub fn subscribe(self: &Arc<Self>, subscriber: Arc<dyn Subscriber>) -> Subscription<T> {
        Subscription { id: self.subscribers.add(subscriber), space: Arc::clone(self) }
    }

    /// An invalidation of `range` starts: it is in the log before the callbacks run, and runs until the value that is
    /// returned is dropped, by whatever way that happens. The change itself belongs in between, if it is ours to make.
    ///
    /// In a forked child it does nothing: the locks may be held by threads that do not exist there, and nothing that was
    /// cached can be used there anyway.
    ///
    /// # Blocking
    /// Runs the callbacks, each under its device lock. Never allocates. Not from a signal handler, not from a callback.
    pub fn invalidate_start(&self, range: PageRange, event: Event) -> Invalidation<'_, T> {
        if self.gate.lost() == Some(LostCause::Forked) {
            return Invalidation { space: self, id: None, range };
        }
        let invalidation = Invalidation { space: self, id: Some(self.tracker.start(range)), range };
        if !self.subscribers.run(range, event) {
            self.lose(LostCause::CallbackPanicked);
        }
        invalidation
    }

    /// Begins to read the page table of `range`: waits while an overlapping invalidation runs, then takes the token.
    /// `previous` is the verdict on the attempt before, if there was one.
    ///
    /// # Errors
    /// When the deadline passed, the wait was cancelled, or coherence is lost.
    ///
    /// # Blocking
    /// Sleeps until the overlapping invalidations have ended. Not in a section, not under a device lock.
    pub fn read_begin(
        &self,
        range: PageRange,
        previous: Option<Verdict>,
        deadline: &Deadline<'_>,
    ) -> Result<Attempt<'_, T>, Error> {
        self.read_begin_as(&Reader { previous, ..Reader::of(range) }, deadline)
    }

    /// As [`read_begin`](Self::read_begin), for a reader whom the tracker may know by a subscription.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Blocking
    /// As there.
    pub fn read_begin_as(&self, reader: &Reader, deadline: &Deadline<'_>) -> Result<Attempt<'_, T>, Error> {
        let range = reader.range;
        let wait = Wait::new(deadline, &self.gate);
        let interrupted = |why| Error::interrupted(why, range, self.gate.lost());
        if self.gate.lost().is_some() {
            return Err(interrupted(crate::wait::Interrupted::Lost));
        }
        let token = self.tracker.read_begin(reader, &wait).map_err(interrupted)?;
        Ok(Attempt { space: self, token: Some(token) })
    }

    /// Declares coherence lost, for ever: every wait ends, every use and every attempt says so from now on.
    /// Never allocates, takes no device lock, runs no callback.
    pub fn lose(&self, cause: LostCause) {
        self.gate.lose(cause);
        if !planted("release-without-wake") {
            self.tracker.wake();
        }
    }

    /// The address space goes away: as [`lose`](Self::lose), on purpose.
    pub fn release(&self) {
        self.lose(LostCause::Released);
    }
}

/// A running invalidation. It ends when this is dropped: on return, early return and panic alike.
#[derive(Debug)]
#[must_use = "the invalidation ends when this is dropped"]
pub struct Invalidation<'s, T: CollisionTracker = CollisionLog> {
    space: &'s AddressSpace<T>,
    /// None in a forked child, where nothing was started.
    id: Option<InvalidationId>,
    range: PageRange,
}

impl<T: CollisionTracker> Invalidation<'_, T> {
    /// What is being invalidated.
    pub fn range(&self) -> PageRange {
        self.range
    }
}

impl<T: CollisionTracker> Drop for Invalidation<'_, T> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.space.tracker.end(id);
        }
    }
}

/// An attempt to read the page table and install what was read. It proves nothing until a device's locked table has
/// [committed](crate::device::TableGuard::commit) it.
pub struct Attempt<'s, T: CollisionTracker = CollisionLog> {
    space: &'s AddressSpace<T>,
    /// Taken out only when the attempt is dropped.
    token: Option<Token>,
}

impl<T: CollisionTracker> Attempt<'_, T> {
    /// What the attempt reads.
    pub fn range(&self) -> PageRange {
        self.token.as_ref().map_or(PageRange::ALL, |token| token.range)
    }

    /// Whether beginning had to wait for a running invalidation.
    pub fn waited(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.waited)
    }

    /// Whether no overlapping invalidation is known to have started since. A hint when asked outside a device lock:
    /// only a commit under the lock is an answer.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.read_retry() == Verdict::Valid
    }

    pub(crate) fn read_retry(&self) -> Verdict {
        self.token.as_ref().map_or(Verdict::Outrun, |token| self.space.tracker.read_retry(token))
    }

    pub(crate) fn space(&self) -> &AddressSpace<T> {
        self.space
    }
}

impl<T: CollisionTracker> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.space.tracker.read_end(token);
        }
    }
}

impl<T: CollisionTracker> fmt::Debug for Attempt<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Keeps a subscriber subscribed; dropping it waits for callbacks that are running.
#[must_use = "the subscriber is removed when this is dropped"]
pub struct Subscription<T: CollisionTracker = CollisionLog> {
    id: u64,
    space: Arc<AddressSpace<T>>,
}

impl<T: CollisionTracker> Drop for Subscription<T> {
    fn drop(&mut self) {
        self.space.subscribers.remove(self.id);
    }
}

impl<T: CollisionTracker> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}
