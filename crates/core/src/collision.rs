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

/// What `read_begin` remembers. It may own a place in the tracker, which `read_end` gives back.
#[derive(Debug)]
pub struct Token {
    /// The range that will be read.
    pub range: PageRange,
    /// The tracker's number at which reading began.
    pub number: u64,
    /// A place in the tracker that this reader owns.
    pub slot: Option<u32>,
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

    /// Waits until no overlapping invalidation runs, and takes a token. `previous` is the verdict on the attempt
    /// before, so that a reader that was outrun can ask for the exact answer.
    ///
    /// # Errors
    /// When the wait ended first, and why.
    ///
    /// # Blocking
    /// Sleeps while an overlapping invalidation runs.
    fn read_begin(&self, range: PageRange, previous: Option<Verdict>, wait: &Wait<'_>) -> Result<Token, Interrupted>;

    /// Whether an overlapping invalidation started since the token was taken. Never sleeps.
    fn read_retry(&self, token: &Token) -> Verdict;

    /// The attempt is over; gives back what the token owns.
    fn read_end(&self, token: Token);

    /// Wakes every waiting reader to look at its [`Wait`] again. Never allocates.
    fn wake(&self);

    /// How often the answers were not exact.
    fn conservative(&self) -> Conservative;
}
