//! `RangeValid`: the 2019 design of `mm/hmm.c` as it was in v5.3, one flag for each range.
//!
//! The origin: `mm/hmm.c` of v5.3, and the review of it, which calls the design precise about "not valid" and lazy about
//! "valid". It is here **with the flaw that the review points to**, to be measured and to be caught.
//!
//! # Guarantee
//! Less than the seam asks for: [`read_retry`](CollisionTracker::read_retry) says `Valid` only if no invalidation
//! that overlaps the registered range *is running*, or has run since the address space was last quiet. **An invalidation
//! that starts after `read_begin` has returned, and is over before `read_retry`, with the whole address space quiet
//! again, is forgotten**: the flag is back at "valid" over what was read before. It never says `Outrun`.
//!
//! # States
//! Of a range: *valid* or *not valid*. Of the address space: *quiet* (`notifiers` is zero, every range is valid),
//! *busy*, or *dead*, for ever.
//!
//! # Fields
//! `ranges_lock` protects the list and `notifiers`. Start counts up and clears the flag of each range that it overlaps.
//! End counts down, and the last one sets *all* flags and wakes everybody. A flag is written under `ranges_lock` and
//! read without it; read under the device lock it is the verdict.
//!
//! # On the seam
//! [`subscribe`](CollisionTracker::subscribe) registers a range for long. A reader without one registers its range for
//! the attempt, as drivers did for each fault. The unit of collision is the registered range. A wait is bounded by the
//! caller; within it, it goes round every [`RANGE_DEFAULT_TIMEOUT`], which is when a driver of that time would have
//! given its fault up as busy; [`RangeValid::timeouts`] counts how often that was. Callbacks are run by whoever drives
//! the seam; the mirrors of [`Hmm`] are for those who use it directly.
//!
//! # Written right where the kernel was wrong
//! None of these is the design: the use of a freed `hmm` (references are counted here), an invalidation beside the
//! range taken for one that overlaps (`end < range.start` with an exclusive end), a count that leaked when a start was
//! refused, a range of a dead address space that an end marked valid. The kernel refuses a start that may not block
//! also when the list of mirrors is being changed; here it waits for that, and so for callbacks that run beside it.
//!
//! # False retries
//! By an invalidation that overlaps the registered range and not what is read of it. Waits without need: once hit,
//! until the *whole* address space is quiet; registered while anything runs, likewise. Starts and last ends walk all
//! ranges.
//!
//! # Lock order
//! `ranges_lock` is held for one walk, with nothing taken under it. `mirrors` is held shared for the callbacks of one
//! invalidation; the callbacks take the device lock.
//!
//! # Interleavings
//! ```text
//! reader                                    invalidation
//! wait: valid
//! read the page table
//!                                           start: notifiers 1, valid := false
//!                                           change; end: notifiers 0, valid := true
//! lock; valid: installs what is stale       [Required: Hit. Not given: this is the flaw]
//! ```
//!
//! # Orderings
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | last end: flag | Release | wait: flag, Acquire | the page table is read as it was before the change |
//! | start: flag | Relaxed | the device lock of the callbacks | orders it before the look of who commits |
//!
//! # Checked by
//! `tracker_oracle` (proptest: it *must* find the flaw, and no other), `range_valid`, `waits`, `stress` (which only
//! asks that it goes on); the bugs of [`planted`](crate::planted) show that they can fail.

mod hmm;
mod list;
mod mirror;

pub use hmm::{Dead, Hmm, HmmRange, RANGE_DEFAULT_TIMEOUT, Waited};
pub use mirror::{Mirror, MirrorOps, Refused, Update};

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::{
    CollisionTracker, Conservative, InvalidationId, Reader, SubscriptionId, Token, Verdict,
};
use pagemirror_core::wait::{Interrupted, Wait};
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::{AtomicU64, Ordering};

use crate::steps::step;

/// The 2019 design on the seam. See the module's text.
#[derive(Debug)]
pub struct RangeValid {
    hmm: Arc<Hmm>,
    timeouts: AtomicU64,
}

impl RangeValid {
    /// The address space behind it.
    #[must_use]
    pub fn hmm(&self) -> &Arc<Hmm> {
        &self.hmm
    }

    /// How often a wait was longer than [`RANGE_DEFAULT_TIMEOUT`].
    #[must_use]
    pub fn timeouts(&self) -> u64 {
        // ORDERING: Relaxed; a statistic.
        self.timeouts.load(Ordering::Relaxed)
    }

    fn wait_until_valid(&self, at: u32, wait: &Wait<'_>) -> Result<bool, Interrupted> {
        if self.hmm.is_valid(at) {
            step(|| "valid == true: no need to wait".into());
            return Ok(false);
        }
        step(|| "valid == false: wait".into());
        while self.hmm.wait_until_valid(at, RANGE_DEFAULT_TIMEOUT, wait)? == Waited::TimedOut {
            // ORDERING: Relaxed; a statistic.
            self.timeouts.fetch_add(1, Ordering::Relaxed);
            wait.check()?;
        }
        Ok(true)
    }
}

impl Default for RangeValid {
    fn default() -> Self {
        Self { hmm: Hmm::new(), timeouts: AtomicU64::new(0) }
    }
}

/// The place of the range that a token was taken for.
fn place(token: &Token) -> Option<u32> {
    token.slot.or(token.subscription.map(|id| id.0 as u32))
}

impl CollisionTracker for RangeValid {
    fn start(&self, range: PageRange) -> InvalidationId {
        self.hmm.mark(range);
        // The design tells invalidations apart by nothing.
        InvalidationId { number: 0, slot: None }
    }

    fn end(&self, _id: InvalidationId) {
        self.hmm.invalidate_range_end();
    }

    fn cancel(&self, _id: InvalidationId) {
        self.hmm.refused();
    }

    fn subscribe(&self, range: PageRange) -> Option<SubscriptionId> {
        // In an address space that is gone nothing is kept; whoever reads there is told so.
        self.hmm.add(range).ok().map(|at| SubscriptionId(at.into()))
    }

    /// Immediate: the design never waits here.
    fn unsubscribe(&self, id: SubscriptionId, _wait: &Wait<'_>) -> Result<(), Interrupted> {
        self.hmm.remove(id.0 as u32);
        Ok(())
    }

    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted> {
        let slot = match reader.subscription {
            Some(_) => None,
            None => Some(self.hmm.add(reader.range).map_err(|Dead| Interrupted::Lost)?),
        };
        let mut token =
            Token { range: reader.range, number: 0, slot, subscription: reader.subscription, waited: false };
        let waited = place(&token).map_or(Ok(false), |at| self.wait_until_valid(at, wait));
        token.waited = match waited {
            Ok(waited) => waited,
            Err(why) => {
                self.read_end(token);
                return Err(why);
            }
        };
        Ok(token)
    }

    fn read_retry(&self, token: &Token) -> Verdict {
        let valid = place(token).is_some_and(|at| self.hmm.is_valid(at));
        step(|| format!("valid == {valid}"));
        if valid { Verdict::Valid } else { Verdict::Hit(None) }
    }

    fn read_end(&self, token: Token) {
        if let Some(at) = token.slot {
            self.hmm.remove(at);
        }
    }

    fn wake(&self) {
        self.hmm.wake();
    }

    fn conservative(&self) -> Conservative {
        Conservative::default()
    }
}
