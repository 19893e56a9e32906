//! Mirrors: who is told about invalidations of an address space, and about its end.

use std::fmt;

use pagemirror_core::addr::PageRange;
use pagemirror_sync::{Arc, RwLock};

use super::hmm::{Dead, Hmm};

/// What an invalidation announces to a mirror (`struct hmm_update`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// What is being invalidated.
    pub range: PageRange,
    /// Whether the mirror may sleep; if not and it would have to, it refuses.
    pub blockable: bool,
}

/// A mirror would have had to sleep and was not allowed to (`-EAGAIN`). Nothing was changed, and no end will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mirror has to sleep to follow this invalidation: announce it again as one that may block")
    }
}

impl std::error::Error for Refused {}

/// A mirror's side (`struct hmm_mirror_ops`).
pub trait MirrorOps: Send + Sync {
    /// Drops every translation in the range, under the device lock; complete when it returns.
    ///
    /// # Errors
    /// [`Refused`], only for an update that may not block.
    fn sync_cpu_device_pagetables(&self, update: &Update) -> Result<(), Refused>;

    /// The address space goes away: drops everything. It must not unregister the mirror.
    fn release(&self);
}

type Entry = (u64, Arc<dyn MirrorOps>);

/// The list of mirrors (`mirrors` and `mirrors_sem`).
pub(super) struct Mirrors(RwLock<(u64, Vec<Entry>)>);

impl Mirrors {
    pub(super) fn new() -> Self {
        Self(RwLock::new((0, Vec::new())))
    }

    fn add(&self, ops: Arc<dyn MirrorOps>) -> u64 {
        // Allocates outside the lock, because invalidations take it.
        let mut fresh = Vec::new();
        loop {
            let mut list = self.0.write();
            if fresh.capacity() > list.1.len() {
                list.0 += 1;
                let number = list.0;
                fresh.append(&mut list.1);
                fresh.push((number, ops));
                std::mem::swap(&mut list.1, &mut fresh);
                drop(list);
                return number;
            }
            let wanted = list.1.len() + 1;
            drop(list);
            fresh = Vec::with_capacity(wanted);
        }
    }

    fn remove(&self, number: u64) -> Option<Entry> {
        let mut list = self.0.write();
        let at = list.1.iter().position(|entry| entry.0 == number)?;
        Some(list.1.swap_remove(at))
    }

    /// Tells every mirror until one refuses.
    pub(super) fn sync(&self, update: &Update) -> Result<(), Refused> {
        self.0.read().1.iter().try_for_each(|entry| entry.1.sync_cpu_device_pagetables(update))
    }

    pub(super) fn release(&self) {
        self.0.read().1.iter().for_each(|entry| entry.1.release());
    }
}

impl fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirrors").finish_non_exhaustive()
    }
}

/// A registered mirror. It keeps the [`Hmm`] alive, and is unregistered when it is dropped.
///
/// Dropping waits for callbacks that are running: not from a callback, nor with a lock held that a callback takes.
#[derive(Debug)]
#[must_use = "the mirror is unregistered when this is dropped"]
pub struct Mirror {
    hmm: Arc<Hmm>,
    number: u64,
}

impl Mirror {
    /// Makes `ops` known to the address space (`hmm_mirror_register`).
    ///
    /// # Errors
    /// When the address space is gone.
    pub fn register(hmm: &Arc<Hmm>, ops: Arc<dyn MirrorOps>) -> Result<Self, Dead> {
        if hmm.is_dead() {
            return Err(Dead);
        }
        Ok(Self { number: hmm.mirrors().add(ops), hmm: Arc::clone(hmm) })
    }

    /// The address space that is mirrored.
    #[must_use]
    pub fn hmm(&self) -> &Arc<Hmm> {
        &self.hmm
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // The operations are dropped after the lock was released.
        drop(self.hmm.mirrors().remove(self.number));
    }
}
