//! The worker that lets go of what was revoked.
//!
//! # Guarantee
//! A registration is deregistered once, after its last use was given back, and never by the pump.
//!
//! # States
//! A revoked registration is *retired* (in the index's own list, linked there by the pump without an allocation, so
//! there is no queue that could be full), then *fresh* (with the worker, until the sections that may still begin a use of it
//! are settled), then *pending* (until its last use ends), then gone, and its place free.
//!
//! A use that is given back rings when it finds its place dead. It does not order the two, so a ring may be missed by
//! nanoseconds: while something is pending the worker also looks by itself.
//!
//! # Checked by
//! `get_against_invalidation`, `last_use_after_revocation` (shuttle), the planted bugs `deregister-before-last-use`,
//! `worker-does-not-settle`.

use std::fmt;
use std::time::Duration;

use pagemirror_core::wait::WaitQueue;
use pagemirror_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pagemirror_sync::{Mutex, planted};

use crate::cache::Shared;
use crate::place::PlaceId;
use crate::registrar::{Key, Registrar};
use crate::stats::count;

/// How long the worker sleeps when nobody rings: a safety net, no step of the protocol.
const NAP: Duration = Duration::from_millis(100);
/// Its first nap while something is pending; each further one is twice as long, up to the other.
const FIRST_NAP: Duration = Duration::from_millis(1);
/// How long the worker waits for sections before it sees to other things, in milliseconds of its own running time.
const SETTLE_TURNS: u32 = if cfg!(any(loom, shuttle)) { u32::MAX / 2 } else { 1_000 };

/// Wakes the worker. Ringing takes no lock that is held across anything slow, and never allocates.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicBool,
    queue: WaitQueue,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self { rung: AtomicBool::new(false), queue: WaitQueue::new() }
    }

    pub(crate) fn ring(&self) {
        // ORDERING: Release pairs with the Acquire below: what was retired before the ring is found by the worker.
        self.rung.store(true, Ordering::Release);
        self.queue.wake();
    }

    fn wait(&self, nap: Duration) {
        // ORDERING: Acquire, see `ring`.
        self.queue.wait_at_most(nap, || self.rung.load(Ordering::Acquire));
        self.rung.store(false, Ordering::Release);
    }
}

/// What the worker and its clients share.
pub(crate) struct Deregistrations<K> {
    /// Registrations for one use, handed over when their use has ended.
    handed: Mutex<Vec<K>>,
    /// How many were deregistered.
    done: AtomicU64,
    closing: AtomicBool,
    closed: AtomicBool,
    /// Where the closer waits for `closed`.
    ended: WaitQueue,
}

impl<K: Key> Deregistrations<K> {
    pub(crate) fn new() -> Self {
        Self {
            handed: Mutex::new(Vec::new()),
            done: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ended: WaitQueue::new(),
        }
    }

    /// Hands over what was registered for one use, which has ended. May allocate: not in a section. Says whether there is a
    /// worker left to take it.
    fn hand_over(&self, key: K) -> bool {
        let mut handed = self.handed.lock();
        let taken = !self.is_closed();
        if taken {
            handed.push(key);
        }
        taken
    }

    /// How many registrations were let go so far.
    pub(crate) fn done(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release of `finish`: the device's room is there.
        self.done.load(Ordering::Acquire)
    }

    pub(crate) fn ended(&self) -> &WaitQueue {
        &self.ended
    }

    pub(crate) fn close(&self) {
        // ORDERING: Release pairs with the Acquire of the worker.
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Acquire pairs with the Release at the worker's end.
        self.closed.load(Ordering::Acquire)
    }
}

impl<K: Key> fmt::Debug for Deregistrations<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deregistrations").field("done", &self.done()).finish_non_exhaustive()
    }
}

/// What the worker has in hand.
#[derive(Default)]
struct Hand {
    /// Revoked; a section may still begin a use of it.
    fresh: Vec<PlaceId>,
    /// No use begins any more; some may not have ended.
    pending: Vec<PlaceId>,
    /// The places with uses that have not ended, when it was last asked.
    in_use: Vec<PlaceId>,
}

/// Runs until the cache is closed and everything was let go.
pub(crate) fn run<R: Registrar>(shared: &Shared<R>) {
    let (mut hand, mut nap) = (Hand::default(), FIRST_NAP);
    loop {
        // ORDERING: Acquire pairs with `close`: what the closer retired is found below.
        let closing = shared.deregistrations.closing.load(Ordering::Acquire);
        collect(shared, &mut hand);
        let let_go = let_go_finished(shared, &mut hand);
        let idle = hand.fresh.is_empty() && hand.pending.is_empty();
        if closing && idle && end(shared) {
            break;
        }
        nap = if idle {
            NAP
        } else if let_go {
            FIRST_NAP
        } else {
            (nap * 2).clamp(FIRST_NAP, NAP)
        };
        shared.bell.wait(nap);
    }
    shared.deregistrations.ended.wake();
}

/// Closes, unless something was handed over meanwhile. What comes later is let go by who brings it.
fn end<R: Registrar>(shared: &Shared<R>) -> bool {
    let handed = shared.deregistrations.handed.lock();
    let empty = handed.is_empty();
    if empty {
        // ORDERING: Release; who sees it closed sees everything let go.
        shared.deregistrations.closed.store(true, Ordering::Release);
    }
    empty
}

/// Takes over what was retired, one at a time under the device lock; growing the list, which may allocate, happens outside
/// it. Lets go at once of what was handed over: its only use has ended.
fn collect<R: Registrar>(shared: &Shared<R>, hand: &mut Hand) {
    loop {
        hand.fresh.reserve(1);
        let retired = shared.table.lock().take_retired();
        let Some(id) = retired else { break };
        hand.fresh.push(id);
    }
    let handed = std::mem::take(&mut *shared.deregistrations.handed.lock());
    for key in handed {
        shared.deregister(key);
    }
}

/// Deregisters what has no use any more. Says whether there was any.
fn let_go_finished<R: Registrar>(shared: &Shared<R>, hand: &mut Hand) -> bool {
    let settle = || planted("worker-does-not-settle") || shared.space().gate().settle(SETTLE_TURNS);
    if !hand.fresh.is_empty() && settle() {
        hand.pending.append(&mut hand.fresh);
    }
    if hand.pending.is_empty() {
        return false;
    }
    shared.registry.in_use(&mut hand.in_use);
    let before = hand.pending.len();
    let in_use = &hand.in_use;
    hand.pending.retain(|id| {
        let finished = shared.registry.is_finished(*id, in_use);
        if finished && let Some(place) = shared.registry.places.get(*id) {
            shared.deregister(place.registered::<R::Key>().key);
            shared.table.lock().free(*id);
        }
        !finished
    });
    hand.pending.len() < before
}

impl<R: Registrar> Shared<R> {
    /// Lets go of what was registered for one use, when that has ended.
    pub(crate) fn let_go(&self, key: R::Key) {
        if !self.deregistrations.hand_over(key) {
            self.deregister(key);
        }
    }

    fn deregister(&self, key: R::Key) {
        if let Err(_error) = self.registrar.deregister(key) {
            count(&self.counters.deregister_failures);
            #[cfg(feature = "tracing")]
            tracing::warn!(?key, error = %_error, "the device did not let go of a registration");
        }
        // ORDERING: Release, see `done`.
        self.deregistrations.done.fetch_add(1, Ordering::Release);
    }
}
