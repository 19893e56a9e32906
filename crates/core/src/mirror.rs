//! The mirror: a device that shares the process's address space, by its own page table.
//!
//! # Guarantee
//! What [`range_fault`](Mirror::range_fault) installs was true at an instant of the call, and no overlapping invalidation
//! that reached us started since; a later one takes it away. An [`access`](Mirror::access) uses a translation only inside
//! a section of the gate, after the probe: never one whose change has returned before the access began.
//!
//! # What an autonomous device must hold
//! A device that walks its own page table at any time does not ask before each use. The caller of munmap is released when
//! the pump reads the event; the revoking callback runs after that. In between such a device would use what is gone. So it
//! is one of two things: it *holds pins* (as the registrations of `pagemirror-registration` do), and what it reads late are
//! pages that are still its own; or each of its accesses is *mediated*, as here:
//! ```text
//! access                                    pump
//! probe: is a change under way? wait        gate up; wait until sections are left
//! enter a section; gate up? leave, wait     read the events (their callers go on)
//! walk the table; all there? use it         append, revoke
//! leave the section                         gate down
//! ```
//! An access that has begun before a change may be made beside it, as a load of the CPU may. Invalidations that do not come
//! through the pump ([`Event::Requested`]) do not wait for sections: there a use that has begun may end after them.
//!
//! # Lock order
//! A cursor of the table (rank 2) for the last step of a fault. The host is asked without any lock, outside sections.
//!
//! # Checked by
//! `tests/models/mirror.rs` (loom), `tests/mirror.rs`, and on real memory the tests of `pagemirror-dmirror`.
//!
//! [`Event::Requested`]: crate::notify::Event::Requested

mod access;
mod error;
mod fault;
mod host;
mod request;
mod snapshot;
mod stats;

use pagemirror_sync::Arc;

use crate::addr::PageRange;
use crate::space::AddressSpace;
use crate::table::PageTable;

pub use access::{Accessed, MAX_ACCESS_PAGES, Uncached, Vanished};
pub use error::{FaultError, FaultErrorKind};
pub use fault::{Faulted, MAX_COLLISIONS};
pub use host::{HostSpace, Look, Refusal, Run};
pub use request::{Need, Request};
use stats::Counters;
pub use stats::MirrorStats;

/// One device's mirror of an address space. Several on one space are independent of each other.
#[derive(Debug)]
pub struct Mirror<H: HostSpace> {
    table: PageTable,
    host: Arc<H>,
    counters: Counters,
}

impl<H: HostSpace> Mirror<H> {
    /// An empty mirror of the space that `host` keeps informed.
    ///
    /// # Blocking
    /// As [`AddressSpace::subscribe`].
    pub fn new(host: Arc<H>) -> Self {
        Self { table: PageTable::new(host.space()), host, counters: Counters::default() }
    }

    /// The device's page table, for its walk.
    pub fn table(&self) -> &PageTable {
        &self.table
    }

    /// The memory that is mirrored.
    pub fn host(&self) -> &Arc<H> {
        &self.host
    }

    /// Drops the translations of `range`, so that the next access asks the host again.
    ///
    /// # Blocking
    /// Takes the device lock of the range.
    pub fn forget(&self, range: PageRange) {
        self.table.lock(range).clear();
    }

    /// What was counted since the mirror was made.
    #[must_use]
    pub fn stats(&self) -> MirrorStats {
        self.counters.snapshot()
    }

    fn space(&self) -> &Arc<AddressSpace> {
        self.host.space()
    }
}
