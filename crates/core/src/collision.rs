//! The seam: how the fault side learns that an invalidation ran beside it.
//!
//! Every tracker answers one question: did an invalidation that overlaps this range start since I began? What they
//! differ in is the unit of collision, the cost on each side, and who is hit without need. [`AddressSpace`] is generic
//! over the tracker, so that one set of tests, models and benchmarks runs on all of them.
//!
//! [`AddressSpace`]: crate::space::AddressSpace

use std::fmt;

use crate::addr::PageRange;
use crate::wait::{Interrupted, Wait};

/// Names an invalidation that is running, from `start` to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidationId {
    /// The tracker's number of it.
    pub number: u64,
    /// Where the tracker keeps it; `None` where it found no room and stands for everything.
    pub slot: Option<u32>,
}

/// Names a range that a tracker keeps, from `subscribe` to `unsubscribe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionId(pub u64);

/// Who is about to read the page table, and what it already knows.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// What will be read; inside the range of the subscription, if there is one.
    pub range: PageRange,
    /// The range under which the tracker knows this reader. Without one, a tracker that tracks ranges takes one for the
    /// attempt alone.
    pub subscription: Option<SubscriptionId>,
    /// The verdict on the attempt before.
    pub previous: Option<Verdict>,
}

impl Reader {
    /// The first attempt of a reader whom the tracker does not know.
    #[must_use]
    pub const fn of(range: PageRange) -> Self {
        Self { range, subscription: None, previous: None }
    }
}

/// What `read_begin` remembers. It may own a place in the tracker, which `read_end` gives back.
#[derive(Debug)]
pub struct Token {
    /// The range that will be read.
    pub range: PageRange,
    /// The tracker's number at which reading began.
    pub number: u64,
    /// A place in the tracker that this reader owns.
    pub slot: Option<u32>,
    /// The subscription under which it reads, where the tracker keeps ranges.
    pub subscription: Option<SubscriptionId>,
    /// Whether the reader had to wait for a running invalidation.
    pub waited: bool,
}

/// What `read_retry` says, asked under the device lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// No overlapping invalidation started since: what was read may be installed.
    Valid,
    /// An overlapping invalidation started since. With its range, where the tracker still knows it.
    Hit(Option<PageRange>),
    /// More invalidations started than the tracker remembers. Treated as a hit, counted apart.
    Outrun,
}

/// How often a tracker gave an answer that was safe but not exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conservative {
    /// `read_retry` answered [`Verdict::Outrun`].
    pub outrun: u64,
    /// An invalidation found no running slot and stood for everything while it ran.
    pub overflow: u64,
}

/// A tracker of collisions between readers of the page table and invalidations.
///
/// # Contract
/// `start` returns before the callbacks of the invalidation run; they take the device lock; `read_retry` is called
/// under that lock. A `Valid` then means: no invalidation that overlaps the token's range has started since
/// `read_begin` returned, *of those whose callbacks have taken the lock before*; later ones revoke by their callback.
pub trait CollisionTracker: Send + Sync + fmt::Debug {
    /// An invalidation of `range` starts. Never sleeps on a reader, never allocates.
    fn start(&self, range: PageRange) -> InvalidationId;

    /// The invalidation has ended; wakes those who waited for it. Never allocates.
    fn end(&self, id: InvalidationId);

    /// The start was refused by a callback, so nothing is changed: what `start` did is undone, and no end will come.
    fn cancel(&self, id: InvalidationId) {
        self.end(id);
    }

    /// Makes `range` known to a tracker that keeps the ranges of its readers; the others answer `None`.
    ///
    /// # Blocking
    /// Never sleeps. Not from a callback.
    fn subscribe(&self, range: PageRange) -> Option<SubscriptionId> {
        let _ = range;
        None
    }

    /// Forgets a range; once it has returned without an error, nothing of the tracker refers to it.
    ///
    /// # Errors
    /// When the wait ended first, and why. The range is forgotten all the same, later.
    ///
    /// # Blocking
    /// May sleep until invalidations have ended. Not from a callback, nor with a lock held that a callback takes.
    fn unsubscribe(&self, id: SubscriptionId, wait: &Wait<'_>) -> Result<(), Interrupted> {
        let _ = (id, wait);
        Ok(())
    }

    /// Waits until no overlapping invalidation runs, and takes a token. `reader.previous` is the verdict on the attempt
    /// before, so that a reader that was outrun can ask for the exact answer.
    ///
    /// # Errors
    /// When the wait ended first, and why.
    ///
    /// # Blocking
    /// Sleeps while an overlapping invalidation runs.
    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted>;

    /// Whether an overlapping invalidation started since the token was taken. Never sleeps.
    fn read_retry(&self, token: &Token) -> Verdict;

    /// The attempt is over; gives back what the token owns.
    fn read_end(&self, token: Token);

    /// Wakes every waiting reader to look at its [`Wait`] again. Never allocates.
    fn wake(&self);

    /// How often the answers were not exact.
    fn conservative(&self) -> Conservative;
}

/// A tracker that was chosen at run time.
impl<T: CollisionTracker + ?Sized> CollisionTracker for Box<T> {
    fn start(&self, range: PageRange) -> InvalidationId {
        (**self).start(range)
    }
    fn end(&self, id: InvalidationId) {
        (**self).end(id);
    }
    fn cancel(&self, id: InvalidationId) {
        (**self).cancel(id);
    }
    fn subscribe(&self, range: PageRange) -> Option<SubscriptionId> {
        (**self).subscribe(range)
    }
    fn unsubscribe(&self, id: SubscriptionId, wait: &Wait<'_>) -> Result<(), Interrupted> {
        (**self).unsubscribe(id, wait)
    }
    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted> {
        (**self).read_begin(reader, wait)
    }
    fn read_retry(&self, token: &Token) -> Verdict {
        (**self).read_retry(token)
    }
    fn read_end(&self, token: Token) {
        (**self).read_end(token);
    }
    fn wake(&self) {
        (**self).wake();
    }
    fn conservative(&self) -> Conservative {
        (**self).conservative()
    }
}
