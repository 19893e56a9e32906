//! `NotifierCount`: the count of running invalidations as one global lock, and no ranges at all.
//!
//! The origin: the review of the 2019 design asks whether its tracking of ranges is worth its cost, and names the count
//! alone, with a sequence instead of a flag, as the simpler way. GRU and KVM's pfn cache do it so in the kernel.
//!
//! # Guarantee
//! [`read_retry`](CollisionTracker::read_retry) says `Valid` only if *no* invalidation at all has started since
//! `read_begin` returned. It never says `Outrun`.
//!
//! # Fields
//! `started` counts starts, `ended` counts ends; both only grow, and wrap. The *notifier count* is their difference,
//! the *sequence* is `started`. Everybody who invalidates changes them; readers only load.
//!
//! # False retries
//! The whole address space is one unit. A reader waits until everything is quiet, not only its range, and retries when
//! anything has started. Under invalidations that always overlap one another it waits until its deadline.
//!
//! # Interleavings
//! ```text
//! reader                                    invalidation
//! started: 4 (token)                        started := 5
//! ended: 4, all that the token counts       (callbacks wait for the device lock)
//! [Required: who is not counted in the
//!  token is seen at the commit]
//! read the page table                       change, ended := 5
//! lock; started: 5, Hit
//! ```
//! `ended` may also count one that started after the token was taken; then `started` has moved, and the attempt is hit.
//!
//! # Orderings
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | `end`: `ended` | Release | `read_begin`: `ended`, Acquire | the page table is read as it was before the change |
//! | `read_retry`: `started` | Relaxed | the device lock | orders the look behind every callback that has run |
//!
//! # Checked by
//! `tracker_oracle` (proptest, against this rule and the list of everything), `waits`, `stress`; the bugs of
//! [`planted`](crate::planted) show that they can fail.

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::{CollisionTracker, Conservative, InvalidationId, Reader, Token, Verdict};
use pagemirror_core::wait::{Interrupted, Wait, WaitQueue};
use pagemirror_sync::atomic::{AtomicU64, Ordering};
use pagemirror_sync::planted;

use crate::steps::step;

/// The two counters share a line, because who writes one has just written the other and readers look at both; nothing else is
/// on it.
#[derive(Debug)]
#[repr(align(128))]
struct Counters {
    started: AtomicU64,
    ended: AtomicU64,
}

/// The notifier count. See the module's text.
#[derive(Debug)]
pub struct NotifierCount {
    counters: Counters,
    parked: WaitQueue,
}

impl NotifierCount {
    /// A quiet address space whose sequence begins at `sequence`.
    #[must_use]
    pub fn starting_at(sequence: u64) -> Self {
        Self {
            counters: Counters { started: AtomicU64::new(sequence), ended: AtomicU64::new(sequence) },
            parked: WaitQueue::new(),
        }
    }

    /// Whether all that are counted in `sequence` have ended.
    fn is_quiet(&self, sequence: u64) -> bool {
        // ORDERING: Acquire pairs with the Release of `end`: the changes of all that are counted are seen.
        self.counters.ended.load(Ordering::Acquire) == sequence
    }

    /// Whether nothing runs now.
    fn is_quiet_now(&self) -> bool {
        // ORDERING: Relaxed; the token that was waited for is taken anew.
        self.is_quiet(self.counters.started.load(Ordering::Relaxed))
    }
}

impl Default for NotifierCount {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl CollisionTracker for NotifierCount {
    fn start(&self, _range: PageRange) -> InvalidationId {
        // ORDERING: Relaxed; the device lock, which every callback takes, carries it to who commits. What a reader that is
        // not there yet sees does not matter: if it misses this, the sequence moves after its token.
        let before = self.counters.started.fetch_add(1, Ordering::Relaxed);
        step(|| format!("started = {}", before.wrapping_add(1)));
        InvalidationId { number: before.wrapping_add(1), slot: None }
    }

    fn end(&self, _id: InvalidationId) {
        // ORDERING: Release pairs with the Acquire of `is_quiet`. Every end is a read-modify-write, so the last one
        // carries the changes of all.
        let order = if planted("notifier-count-end-relaxed") { Ordering::Relaxed } else { Ordering::Release };
        let before = self.counters.ended.fetch_add(1, order);
        step(|| format!("ended = {}", before.wrapping_add(1)));
        if !planted("notifier-count-end-without-wake") {
            self.parked.wake();
        }
    }

    fn cancel(&self, id: InvalidationId) {
        if !planted("notifier-count-refused-start-leaks") {
            self.end(id);
        }
    }

    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted> {
        let mut waited = false;
        loop {
            // ORDERING: Relaxed; who is not counted here moves the sequence, which the commit sees.
            let mut number = self.counters.started.load(Ordering::Relaxed);
            if self.is_quiet(number) || planted("notifier-count-no-wait") {
                if planted("notifier-count-token-after-look") {
                    number = self.counters.started.load(Ordering::Relaxed);
                }
                step(|| format!("token {number}: all of them have ended"));
                return Ok(Token { range: reader.range, number, slot: None, subscription: None, waited });
            }
            waited = true;
            step(|| "something runs: wait".into());
            // The deadline is looked at in each round: under a storm the condition may hold each time it is asked.
            self.parked.wait(wait, || self.is_quiet_now()).and_then(|()| wait.check())?;
        }
    }

    fn read_retry(&self, token: &Token) -> Verdict {
        // ORDERING: Relaxed; the device lock that our caller holds orders it behind every callback that has run.
        let now = self.counters.started.load(Ordering::Relaxed);
        let moved = if planted("notifier-count-ends-forgotten") {
            !self.is_quiet(now)
        } else if planted("notifier-count-only-ends-compared") {
            !self.is_quiet(token.number)
        } else if planted("notifier-count-compared-by-order") {
            now > token.number
        } else {
            now != token.number
        };
        step(|| format!("token {}, started == {now}", token.number));
        if moved { Verdict::Hit(None) } else { Verdict::Valid }
    }

    fn read_end(&self, _token: Token) {}

    fn wake(&self) {
        self.parked.wake();
    }

    fn conservative(&self) -> Conservative {
        Conservative::default()
    }
}
