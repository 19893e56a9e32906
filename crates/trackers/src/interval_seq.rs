//! `IntervalSeq`: what Linux does today, a sequence that is odd while subscribed intervals are being invalidated.
//!
//! The origin: `mm/mmu_notifier.c`, the comment above `mn_itree_is_invalidating` to `mmu_interval_notifier_remove`.
//!
//! # Guarantee
//! [`read_retry`](CollisionTracker::read_retry) says `Valid` only if no invalidation that overlaps the subscription has
//! started since `read_begin` returned, `Hit` only if one has that overlaps it and started after `read_begin` looked.
//! It never says `Outrun`.
//!
//! # States
//! *Idle*: nothing runs, `seq` is even. *Partially excluded*: something runs that hits no subscription, `seq` is even,
//! the tree may change. *Fully excluded*: something hit one, `seq` is odd, the tree is frozen; insertions and removals
//! are deferred. It stays so until *everything* has ended, also what hit nothing.
//!
//! # Fields
//! `book` is the lock: `seq`, the count of running invalidations, the tree, the deferred list. `released` repeats `seq`
//! for those who sleep until it moves. Each subscription has a sequence of its own, `cells`: the `seq` of the last odd
//! period that it was hit or inserted in. A reader's token is that number; while it equals `seq`, the period is not
//! over.
//!
//! # On the seam
//! The kernel's callback stores the subscription's sequence under the driver's lock (`mmu_interval_set_seq`); the seam
//! has no such step, so `start` does it for every subscription that overlaps, under `book`. That is earlier, and so is
//! seen by every commit that the kernel's would be seen by. The walk is under the lock, where the kernel walks the
//! frozen tree without one. `read_begin` has a deadline, the kernel's has none. A reader without a subscription inserts
//! one for the attempt, as nouveau does for each fault; `read_end` removes it without waiting.
//!
//! A refused start ends itself, whoever refused it. (In the kernel, if an interval was told and another notifier then
//! refuses, nobody seems to end it, and `seq` stays odd.)
//!
//! # False retries
//! By an invalidation that overlaps the subscription and not what is read of it. Waits without need: once hit, or
//! inserted while anything runs, until the whole address space is quiet, and so do removals.
//!
//! # Interleavings
//! ```text
//! reader                                    invalidation
//! cell: 3, seq: 4: token 3                  seq := 5; cell := 5
//! read the page table                       (callbacks wait for the device lock)
//!                                           change; the last one has ended: seq := 6
//! lock; cell: 5, Hit                        [Required: no later period is called 3 again]
//! ```
//! A reader that begins in the period gets token 5, equal to `seq`, and sleeps until it is over.
//!
//! # Orderings
//! | site | ordering | pairs with | without it |
//! |---|---|---|---|
//! | last end: `released` | Release | the wait: Acquire | the page table is read as it was before the change |
//! | next period: `released` | Release | the wait: Acquire | the same, for who sees only that the next one has begun |
//! | `start`: cell | Relaxed | the device lock of the callbacks | orders it before the look of who commits |
//!
//! # Checked by
//! `tracker_oracle` (proptest, against this rule and the list of everything), `interval_seq`, `waits`, `stress`; the
//! bugs of [`planted`](crate::planted) show that they can fail.

mod book;

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::{
    CollisionTracker, Conservative, InvalidationId, Reader, SubscriptionId, Token, Verdict,
};
use pagemirror_core::wait::{Interrupted, Wait, WaitQueue};
use pagemirror_sync::atomic::{AtomicU64, Ordering};
use pagemirror_sync::{Mutex, planted};

use self::book::{Book, Exclusion, Removal, Spare, is_odd};
use crate::cells::Cells;
use crate::steps::step;

/// Where the kernel's sequence begins. Even, and not zero, so that a fresh subscription's odd number is a small one.
const FIRST_SEQ: u64 = 2;

/// The interval notifiers of one address space. See the module's text.
#[derive(Debug)]
pub struct IntervalSeq {
    book: Mutex<Book>,
    /// `book.seq`, for those who sleep. Stored under the lock, and by the last end only after the deferred list was carried
    /// out: who sees it move may rely on that.
    released: AtomicU64,
    /// The sequence of each subscription.
    cells: Cells<AtomicU64>,
    parked: WaitQueue,
}

impl IntervalSeq {
    /// An idle address space whose sequence begins at `seq`; an odd number is taken for the even one before it.
    #[must_use]
    pub fn starting_at(seq: u64) -> Self {
        let seq = seq & !1;
        Self {
            book: Mutex::new(Book::new(seq)),
            released: AtomicU64::new(seq),
            cells: Cells::new(|| AtomicU64::new(0)),
            parked: WaitQueue::new(),
        }
    }

    /// How many subscriptions are in the tree or on their way into or out of it, those for one attempt included.
    #[must_use]
    pub fn subscribed(&self) -> usize {
        self.book.lock().len()
    }

    /// Opens an odd period, or joins the one that is open. Under the lock.
    fn exclude(&self, book: &mut Book) {
        book.seq |= 1;
        step(|| format!("sequence = {}", book.seq));
        // ORDERING: Release, though nobody waits for it to become odd: who waited for the period before may see this number
        // first, and needs the changes of that period all the same. `book` has brought them here.
        let order = if planted("interval-seq-next-period-relaxed") { Ordering::Relaxed } else { Ordering::Release };
        self.released.store(book.seq, order);
    }

    fn set_cell(&self, at: u32, seq: u64) {
        if let Some(cell) = self.cells.get(at) {
            // ORDERING: Relaxed; the device lock, which every callback takes next, carries it to who commits; `book` does to
            // who begins.
            cell.store(seq, Ordering::Relaxed);
        }
    }

    fn cell(&self, at: u32) -> u64 {
        // ORDERING: Relaxed, see `set_cell`.
        self.cells.get(at).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Inserts a subscription (`mmu_interval_notifier_insert`). Allocates outside the lock, because invalidations take it.
    fn insert(&self, range: PageRange) -> u32 {
        let (mut spare, mut capacity) = (Spare::with_capacity(0), 0);
        loop {
            let mut book = self.book.lock();
            let old = book.reserve_from(spare, capacity);
            let inserted = book.has_room().then(|| self.insert_into(&mut book, range));
            capacity = book.larger();
            drop(book);
            drop(old);
            if let Some(at) = inserted {
                return at;
            }
            self.cells.reserve(capacity);
            spare = Spare::with_capacity(capacity);
        }
    }

    fn insert_into(&self, book: &mut Book, range: PageRange) -> u32 {
        let (at, seq) = match book.exclusion() {
            // The odd number before: no period that is to come is called so.
            Exclusion::Idle => (book.insert(range), book.seq.wrapping_sub(1)),
            Exclusion::Partial if planted("interval-seq-inserted-as-idle") => {
                (book.insert(range), book.seq.wrapping_sub(1))
            }
            // What runs may overlap, and nobody was told: as if it had hit, so that the first reader waits for it.
            Exclusion::Partial => {
                self.exclude(book);
                (book.insert(range), book.seq)
            }
            Exclusion::Full if planted("interval-seq-deferred-as-idle") => {
                (book.defer_insert(range), book.seq.wrapping_sub(2))
            }
            Exclusion::Full => (book.defer_insert(range), book.seq),
        };
        self.set_cell(at, seq);
        step(|| format!("subscription {at} inserted: its sequence = {seq}"));
        at
    }

    /// Removes a subscription, and says in which period it will happen if not now.
    fn remove(&self, at: u32) -> Option<u64> {
        let mut book = self.book.lock();
        (book.remove(at) == Removal::Deferred).then_some(book.seq)
    }

    /// Sleeps until the period `seq` is over.
    fn wait_released(&self, seq: u64, wait: &Wait<'_>) -> Result<(), Interrupted> {
        // ORDERING: Acquire pairs with the Release of the last end: the changes of all that have ended are seen, and what was
        // deferred is carried out.
        self.parked.wait(wait, || self.released.load(Ordering::Acquire) != seq)
    }

    /// The sequence of the subscription, and whether the period that it names is still open.
    fn look(&self, at: u32) -> (u64, bool) {
        let book = self.book.lock();
        let seq = self.cell(at);
        (seq, seq == book.seq)
    }

    fn begin_at(&self, at: u32, wait: &Wait<'_>) -> Result<(u64, bool), Interrupted> {
        let (seq, invalidating) = self.look(at);
        step(|| if invalidating { format!("token {seq}: the period is open, wait") } else { format!("token {seq}") });
        if invalidating {
            // No second look: if it was hit again meanwhile, the commit says so, and the caller bounds the whole.
            self.wait_released(seq, wait)?;
        }
        Ok((seq, invalidating))
    }
}

impl Default for IntervalSeq {
    fn default() -> Self {
        Self::starting_at(FIRST_SEQ)
    }
}

/// The place of the subscription that a token was taken for.
fn place(token: &Token) -> Option<u32> {
    token.slot.or(token.subscription.map(|id| id.0 as u32))
}

impl CollisionTracker for IntervalSeq {
    fn start(&self, range: PageRange) -> InvalidationId {
        let mut book = self.book.lock();
        book.active += 1;
        let period = book.seq | 1;
        let mut hit = false;
        book.for_each_overlapping(range, |at| {
            hit = true;
            if !planted("interval-seq-sequence-not-set") {
                self.set_cell(at, period);
                step(|| format!("subscription {at}: sequence = {period}"));
            }
        });
        if hit {
            self.exclude(&mut book);
        }
        InvalidationId { number: book.seq, slot: None }
    }

    fn end(&self, _id: InvalidationId) {
        let mut book = self.book.lock();
        book.active = book.active.saturating_sub(1);
        let last = book.active == 0 || planted("interval-seq-ends-with-first");
        if !last || !is_odd(book.seq) {
            return;
        }
        let next = if planted("interval-seq-goes-back") { book.seq & !1 } else { book.seq.wrapping_add(1) };
        book.seq = next;
        book.apply_deferred();
        // ORDERING: Release pairs with the Acquire of `wait_released`.
        let order = if planted("interval-seq-released-relaxed") { Ordering::Relaxed } else { Ordering::Release };
        self.released.store(next, order);
        step(|| format!("sequence = {next}"));
        drop(book);
        if !planted("interval-seq-end-without-wake") {
            self.parked.wake();
        }
    }

    fn cancel(&self, id: InvalidationId) {
        if !planted("interval-seq-refused-start-leaks") {
            self.end(id);
        }
    }

    fn subscribe(&self, range: PageRange) -> Option<SubscriptionId> {
        Some(SubscriptionId(self.insert(range).into()))
    }

    fn unsubscribe(&self, id: SubscriptionId, wait: &Wait<'_>) -> Result<(), Interrupted> {
        match self.remove(id.0 as u32) {
            Some(seq) if !planted("interval-seq-removed-without-waiting") => self.wait_released(seq, wait),
            _ => Ok(()),
        }
    }

    fn read_begin(&self, reader: &Reader, wait: &Wait<'_>) -> Result<Token, Interrupted> {
        let slot = reader.subscription.is_none().then(|| self.insert(reader.range));
        let mut token =
            Token { range: reader.range, number: 0, slot, subscription: reader.subscription, waited: false };
        match place(&token).map_or(Ok((0, false)), |at| self.begin_at(at, wait)) {
            Ok((number, waited)) => {
                (token.number, token.waited) = (number, waited);
                Ok(token)
            }
            Err(why) => {
                self.read_end(token);
                Err(why)
            }
        }
    }

    fn read_retry(&self, token: &Token) -> Verdict {
        let now = place(token).map(|at| self.cell(at));
        step(|| format!("token {}, sequence == {}", token.number, now.unwrap_or_default()));
        if now == Some(token.number) { Verdict::Valid } else { Verdict::Hit(None) }
    }

    fn read_end(&self, token: Token) {
        if let Some(at) = token.slot {
            self.remove(at);
        }
    }

    fn wake(&self) {
        self.parked.wake();
    }

    fn conservative(&self) -> Conservative {
        Conservative::default()
    }
}
