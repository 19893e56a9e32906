//! The worker that lets go of what was revoked.
//!
//! # Guarantee
//! A registration is deregistered once, after its last use was given back, and never by the pump.
//!
//! # States
//! A revoked registration is *retired* (in the index's own list, linked there by the pump without an allocation, so
//! there is no queue that could be full), then *pending* (with the worker, until its last use ends), then gone.
//!
//! # Checked by
//! `get_against_invalidation`, `last_use_after_revocation` (shuttle), the planted bug `deregister-before-last-use`.

use std::fmt;
use std::time::Duration;

use pagemirror_core::wait::WaitQueue;
use pagemirror_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pagemirror_sync::{Arc, Mutex};

use crate::cache::Shared;
use crate::registrar::Registrar;
use crate::registration::Registration;
use crate::stats::count;

/// How long the worker sleeps when nobody rings: a safety net, no step of the protocol.
const NAP: Duration = Duration::from_millis(100);

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

    fn wait(&self) {
        // ORDERING: Acquire, see `ring`.
        self.queue.wait_at_most(NAP, || self.rung.load(Ordering::Acquire));
        self.rung.store(false, Ordering::Release);
    }
}

/// What the worker and its clients share.
pub(crate) struct Deregistrations<K> {
    /// Registrations for one use, handed over when their use has ended.
    handed: Mutex<Vec<Arc<Registration<K>>>>,
    /// How many were deregistered.
    done: AtomicU64,
    closing: AtomicBool,
    closed: AtomicBool,
    /// Where the closer waits for `closed`.
    ended: WaitQueue,
}

impl<K> Deregistrations<K> {
    pub(crate) fn new() -> Self {
        Self {
            handed: Mutex::new(Vec::new()),
            done: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ended: WaitQueue::new(),
        }
    }

    /// Hands a finished registration over. May allocate: not in a section.
    pub(crate) fn hand_over(&self, registration: Arc<Registration<K>>) {
        self.handed.lock().push(registration);
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

impl<K> fmt::Debug for Deregistrations<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deregistrations").field("done", &self.done()).finish_non_exhaustive()
    }
}

/// Runs until the cache is closed and everything was let go.
pub(crate) fn run<R: Registrar>(shared: &Shared<R>) {
    let mut pending = Vec::new();
    loop {
        // ORDERING: Acquire pairs with `close`: what the closer retired is found below.
        let closing = shared.deregistrations.closing.load(Ordering::Acquire);
        collect(shared, &mut pending);
        pending.retain(|registration: &Arc<Registration<R::Key>>| !finish(shared, registration));
        if closing && pending.is_empty() {
            break;
        }
        shared.bell.wait();
    }
    // ORDERING: Release; who sees it closed sees everything let go.
    shared.deregistrations.closed.store(true, Ordering::Release);
    shared.deregistrations.ended.wake();
}

/// Takes over what was retired or handed over. One at a time under the device lock; growing the list, which may
/// allocate, happens outside it.
fn collect<R: Registrar>(shared: &Shared<R>, pending: &mut Vec<Arc<Registration<R::Key>>>) {
    loop {
        pending.reserve(1);
        let retired = shared.table.lock().intervals().take_retired();
        let Some(registration) = retired else { break };
        pending.push(registration);
    }
    let handed = std::mem::take(&mut *shared.deregistrations.handed.lock());
    pending.extend(handed);
}

/// Deregisters if the last use is over. Says whether it is out of the worker's hands.
fn finish<R: Registrar>(shared: &Shared<R>, registration: &Registration<R::Key>) -> bool {
    if !registration.is_finished() {
        return false;
    }
    if shared.registrar.deregister(registration.key).is_err() {
        count(&shared.counters.deregister_failures);
    }
    // ORDERING: Release, see `done`.
    shared.deregistrations.done.fetch_add(1, Ordering::Release);
    true
}
