//! Who is told about invalidations.
//!
//! # Lock order
//! The list is held for reading while callbacks run, so removing a subscriber waits until its callback is over. From a
//! callback, or with a lock held that a callback takes, nobody may subscribe or unsubscribe.

use std::fmt;

use pagemirror_sync::{Arc, RwLock};

use crate::addr::PageRange;

/// What happened to a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// The mapping is gone or replaced: munmap, mmap(MAP_FIXED), brk, the shrunk tail of mremap.
    Unmap,
    /// Pages moved away from here, or were moved over what was here: mremap.
    Remap,
    /// Pages are about to be discarded: madvise with DONTNEED, FREE or REMOVE.
    Remove,
    /// Somebody who knows asked for it.
    Requested,
}

/// A device's side of an invalidation.
pub trait Subscriber: Send + Sync {
    /// Drops every translation that overlaps `range`, also when there is none: it takes the device lock either way.
    ///
    /// # Blocking
    /// Runs in the pump while callers of munmap sleep. It may take the device lock and nothing else that another
    /// thread can hold across a system call that changes memory; it may not allocate, free, log, subscribe, unsubscribe or
    /// start an invalidation. What takes long (deregistration) goes to a worker.
    ///
    /// # Panics
    /// A panic is caught, and coherence is declared lost.
    fn invalidate(&self, range: PageRange, event: Event);
}

type Subscriptions = Vec<(u64, Arc<dyn Subscriber>)>;

/// The list of subscribers.
pub(crate) struct Subscribers {
    list: RwLock<(u64, Subscriptions)>,
}

impl Subscribers {
    pub(crate) fn new() -> Self {
        Self { list: RwLock::new((0, Vec::new())) }
    }

    /// Adds a subscriber; the number removes it. Nothing is allocated or freed while the list is locked, because the
    /// pump waits for this lock.
    pub(crate) fn add(&self, subscriber: Arc<dyn Subscriber>) -> u64 {
        let mut fresh = Vec::new();
        loop {
            let mut list = self.list.write();
            if fresh.capacity() > list.1.len() {
                list.0 += 1;
                let id = list.0;
                fresh.append(&mut list.1);
                fresh.push((id, subscriber));
                std::mem::swap(&mut list.1, &mut fresh);
                drop(list);
                return id;
            }
            let needed = list.1.len() + 1;
            drop(list);
            fresh = Vec::with_capacity(needed);
        }
    }

    pub(crate) fn remove(&self, id: u64) {
        let mut list = self.list.write();
        let removed = list.1.iter().position(|(other, _)| *other == id).map(|at| list.1.swap_remove(at));
        drop(list);
        drop(removed);
    }

    /// Runs every callback. Says whether all came back without a panic.
    #[must_use]
    pub(crate) fn run(&self, range: PageRange, event: Event) -> bool {
        let list = self.list.read();
        list.1.iter().fold(true, |fine, (_, subscriber)| call(subscriber.as_ref(), range, event) && fine)
    }
}

/// A model checker reports its findings by panics, which must not be caught.
#[cfg(any(loom, shuttle))]
fn call(subscriber: &dyn Subscriber, range: PageRange, event: Event) -> bool {
    subscriber.invalidate(range, event);
    true
}

#[cfg(not(any(loom, shuttle)))]
fn call(subscriber: &dyn Subscriber, range: PageRange, event: Event) -> bool {
    // A subscriber whose callback panicked is not trusted again: the caller declares coherence lost.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| subscriber.invalidate(range, event))).is_ok()
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribers").finish_non_exhaustive()
    }
}
