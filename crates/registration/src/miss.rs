//! The collision-retry loop.

use std::time::{Duration, Instant};

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::Verdict;
use pagemirror_core::device::{Commit, TableGuard};
use pagemirror_core::source::Watched;
use pagemirror_core::wait::{Deadline, Expired};
use pagemirror_sync::{planted, thread};

use crate::cache::Shared;
use crate::error::Error;
use crate::index::{Eviction, Index, Room};
use crate::lease::Kind;
use crate::registrar::{Access, RegisterErrorKind, Registrar};
use crate::stats::{WaitCause, count};

/// Naps of a caller that waits for room, before it asks the device again.
const ROOM_NAPS: u32 = 10;
/// One of them: about what a deregistration takes.
const ROOM_NAP: Duration = Duration::from_micros(100);

impl<R: Registrar> Shared<R> {
    /// Registers `range` and installs the registration **only if no overlapping invalidation started since this attempt
    /// began**. Otherwise what was registered is taken back and the attempt is made again.
    ///
    /// This is the whole algorithm. The order of its five steps carries all of its weight.
    pub(crate) fn fault(&self, range: PageRange, access: Access, by: &Deadline<'_>) -> Result<Kind<'_>, Error> {
        let mut collided = None;
        for collisions in 0..self.options.max_collisions {
            let attempt = self.read_begin(range, collided, by)?; // 1. the token, before anything is asked
            if self.is_in_doubt(range)? {
                return Ok(Kind::one_shot(&self.counters.one_shots_in_doubt)); // 2. then whatever there is to ask
            }
            if !self.make_way(range.len()) {
                return Ok(Kind::one_shot(&self.counters.one_shots_over_limit));
            }
            let key = self.register_key(range, access, by)?; // 3. read the page table: the device pins what is mapped
            let mut table = self.table_with_room(); // 4. the device lock
            if let Some(found) = table.find(&self.registry, range, access) {
                drop(table);
                self.undo(key); // somebody else was faster
                return Ok(Kind::Cached(found));
            }
            if !self.fits(&table, range.len()) {
                drop(table);
                self.undo(key); // others have taken the room that was made
                return Ok(Kind::one_shot(&self.counters.one_shots_over_limit));
            }
            match table.commit(&attempt) {
                // 5. read_retry, under the device lock
                Commit::Permit(permit) => {
                    permit.install((access, key));
                    let installed = table.find(&self.registry, range, access);
                    drop(table);
                    if let Some(leased) = installed {
                        return Ok(Kind::Cached(leased));
                    }
                }
                Commit::Collided(verdict) => {
                    drop(table);
                    self.undo(key);
                    self.count_collision(range, verdict);
                    // Once outrun, the exact answer is asked for to the end.
                    collided = collided.filter(|was| *was == Verdict::Outrun).or(Some(verdict));
                }
            }
            if by.expired().is_some() {
                return Err(Error::Contended { range, collisions: collisions + 1 });
            }
        }
        Ok(Kind::one_shot(&self.counters.one_shots_contended)) // progress: served once, not cached
    }

    fn read_begin(
        &self,
        range: PageRange,
        collided: Option<Verdict>,
        by: &Deadline<'_>,
    ) -> Result<pagemirror_core::space::Attempt<'_>, Error> {
        let since = Instant::now();
        let attempt = self.space().read_begin(range, collided, by)?;
        if attempt.waited() {
            self.counters.waited(WaitCause::Invalidation, since);
        }
        Ok(attempt)
    }

    /// Says whether what is read from the range now may be kept, and has the range watched if so. After the token. The doubt
    /// comes first: watching waits for a discard that is under way, and what is in doubt need not be watched.
    fn is_in_doubt(&self, range: PageRange) -> Result<bool, Error> {
        Ok(self.space().doubt().overlaps(range) || self.source.watch(range)? == Watched::InDoubt)
    }

    /// The device's key for `range`; evicts idle registrations, and waits for the worker, while the device is full.
    pub(crate) fn register_key(&self, range: PageRange, access: Access, by: &Deadline<'_>) -> Result<R::Key, Error> {
        loop {
            let done = self.deregistrations.done();
            match self.registrar.register(range, access) {
                Ok(key) => return Ok(key),
                Err(error) if error.kind == RegisterErrorKind::NoRoom && by.expired().is_none() => {
                    self.make_room(range, done, by)?;
                }
                Err(error) => {
                    count(&self.counters.register_failures);
                    #[cfg(feature = "tracing")]
                    tracing::debug!(%range, ?access, %error, "the device refused a registration");
                    return Err(Error::Register { range, error });
                }
            }
        }
    }

    /// Evicts one idle registration, then waits a moment for something to be let go since `done` was read. A lease that is
    /// dropped tells nobody, so this polls, and the caller asks the device again.
    fn make_room(&self, range: PageRange, done: u64, by: &Deadline<'_>) -> Result<(), Error> {
        let since = Instant::now();
        if self.evict() {
            count(&self.counters.evictions);
        }
        self.bell.ring();
        let mut naps = 0;
        while self.deregistrations.done() == done && naps < ROOM_NAPS {
            if by.expired() == Some(Expired::TimedOut) {
                break; // the device is asked once more, and its answer is the error
            }
            self.check(range, by)?;
            thread::sleep(ROOM_NAP);
            naps += 1;
        }
        self.counters.waited(WaitCause::Room, since);
        Ok(())
    }

    /// Evicts until one more registration of `len` bytes is within the cache's own limits. Says whether it is.
    fn make_way(&self, len: u64) -> bool {
        while !self.fits(&self.table.lock(), len) {
            if len > self.options.max_bytes || !self.evict() {
                return false;
            }
            count(&self.counters.evictions);
        }
        true
    }

    fn fits(&self, table: &Index<R::Key>, len: u64) -> bool {
        let bytes = table.bytes().checked_add(len);
        table.len() < self.options.max_entries && bytes.is_some_and(|bytes| bytes <= self.options.max_bytes)
    }

    /// Sends the evicting hand round, twice at most: the first round only notes what was not asked for since.
    fn evict(&self) -> bool {
        let mut left = 2 * self.table.lock().len();
        while left > 0 {
            match self.table.lock().evict_one() {
                Eviction::Evicted => return true,
                Eviction::Passed(0) => return false,
                Eviction::Passed(steps) => left = left.saturating_sub(steps),
            }
        }
        false
    }

    /// The device lock, with room for one installation. Allocates and frees outside the lock only.
    fn table_with_room(&self) -> TableGuard<'_, Index<R::Key>> {
        loop {
            let table = self.table.lock();
            if table.has_room() {
                return table;
            }
            drop(table);
            // One after the other, so that the table with most room is taken over last.
            let old = self.registry.places.grow(|places, fresh| {
                let room = Room::for_places(places, fresh);
                self.table.lock().grow(room)
            });
            drop(old);
        }
    }

    /// Takes back what was registered by an attempt that did not commit: nobody else knows of it.
    fn undo(&self, key: R::Key) {
        if planted("undo-forgotten") {
            return;
        }
        if self.registrar.deregister(key).is_err() {
            count(&self.counters.deregister_failures);
        }
    }

    fn count_collision(&self, range: PageRange, verdict: Verdict) {
        count(&self.counters.retries);
        #[cfg(feature = "tracing")]
        tracing::debug!(%range, ?verdict, "an attempt collided and is made again");
        if let Verdict::Hit(by) = verdict {
            count(&self.counters.collisions);
            if by.is_some_and(|by| !by.overlaps(range)) {
                count(&self.counters.false_retries);
            }
        }
        thread::yield_now();
    }
}
