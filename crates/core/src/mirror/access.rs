//! The device's side: one access through translations, mediated.
//!
//! # Guarantee
//! A translation is used only if no change of its pages had returned before the access began (G1), nor was under way in the
//! kernel (G2).
//!
//! # Steps
//! Outside the section: ask the probe (it may sleep). Then **enter the section; look at the gate; walk the table; use;
//! leave**. Something missing: leave, fault it in, begin again.
//!
//! # Checked by
//! `access_against_the_pump` (loom) with the planted bug `mirror-walk-before-section`.

use std::time::Duration;

use pagemirror_sync::{planted, section_depth, thread};

use super::Mirror;
use super::error::{FaultError, FaultErrorKind};
use super::host::HostSpace;
use super::request::{Need, Request};
use super::stats::count;
use crate::addr::{MIN_PAGE, PageRange, VirtAddr};
use crate::error::Error;
use crate::gate::Entered;
use crate::source::Probe;
use crate::table::Page;
use crate::wait::{Deadline, Interrupted, Wait};

/// Pages of one access: 64 KiB. A section keeps the pump waiting, and it is about as long as copying them takes.
pub const MAX_ACCESS_PAGES: usize = 16;

/// Rounds of fault and walk before an access gives translations up: each means that what was installed was gone again.
const MAX_ROUNDS: u32 = 8;

/// Probes in a row before others are let run, and before the prober sleeps between probes: an unread event is usually read
/// within tens of microseconds, but the caller it frees may be scheduled much later.
const PROBE_YIELDS: u32 = 8;
const PROBE_NAPS: u32 = 64;
/// The nap between two probes.
const PROBE_NAP: Duration = Duration::from_micros(100);

/// Said by a use that found less than its translation promised: the page is gone, or may not be written any more, and nobody
/// was told (mprotect, a hole punched by descriptor).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vanished;

/// Why an access cannot be made through translations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncached {
    /// A discard of the pages may be under way.
    InDoubt,
    /// They change faster than they can be kept.
    Contended,
}

/// What became of an access.
#[derive(Debug)]
#[must_use]
pub enum Accessed<R> {
    /// It was made, with this result.
    Done(R),
    /// It was not made: make it once by address, as the process itself would, and keep nothing.
    Not(Uncached),
}

impl<H: HostSpace> Mirror<H> {
    /// Calls `use_it` with the translations of the pages of `range`, each of which meets `need`, faulting in what is missing.
    ///
    /// `use_it` runs in a section: no allocation, no free, no other access, and no sleep but what a copy in the kernel takes.
    /// It is called again when it says [`Vanished`]; an error and [`Accessed::Not`] mean that it has not said anything else.
    ///
    /// # Errors
    /// As [`range_fault`](Self::range_fault), but never [`FaultErrorKind::Contended`]; [`FaultErrorKind::TooLong`] for more
    /// than [`MAX_ACCESS_PAGES`] pages; [`FaultErrorKind::Nested`] inside another section.
    ///
    /// # Blocking
    /// Sleeps while the pump reads events and while watched memory is changing in the kernel, until the deadline.
    pub fn access<R>(
        &self,
        range: PageRange,
        need: Need,
        by: &Deadline<'_>,
        mut use_it: impl FnMut(&[Page]) -> Result<R, Vanished>,
    ) -> Result<Accessed<R>, FaultError> {
        let failed = |kind: FaultErrorKind| kind.after(0, range);
        let len = range.len() / MIN_PAGE;
        if len > MAX_ACCESS_PAGES as u64 {
            return Err(failed(FaultErrorKind::TooLong));
        }
        let mut pages = [Page::ABSENT; MAX_ACCESS_PAGES];
        let pages = &mut pages[..len as usize];
        for _ in 0..MAX_ROUNDS {
            match self.use_once(range, need, by, pages, &mut use_it).map_err(failed)? {
                Used::Done(result) => {
                    count(&self.counters.accesses);
                    return Ok(Accessed::Done(result));
                }
                Used::Missing => {}
                Used::Vanished => {
                    count(&self.counters.vanished);
                    self.forget(range);
                }
            }
            match self.range_fault(range, Request::all(need), by) {
                Ok(faulted) if faulted.in_doubt == 0 => {}
                Ok(_) => return Ok(self.uncached(Uncached::InDoubt)),
                Err(FaultError { kind: FaultErrorKind::Contended { .. }, .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.uncached(Uncached::Contended))
    }

    fn uncached<R>(&self, why: Uncached) -> Accessed<R> {
        count(&self.counters.uncached);
        Accessed::Not(why)
    }

    /// One section: walks the table and uses what is there, if all of it is.
    fn use_once<R>(
        &self,
        range: PageRange,
        need: Need,
        by: &Deadline<'_>,
        pages: &mut [Page],
        use_it: &mut impl FnMut(&[Page]) -> Result<R, Vanished>,
    ) -> Result<Used<R>, FaultErrorKind> {
        if section_depth(|depth| depth.get()) > 0 {
            return Err(FaultErrorKind::Nested);
        }
        let gate = self.space().gate();
        loop {
            self.wait_quiet(range, by)?;
            let walked_early = planted("mirror-walk-before-section") && self.walk(range, need, pages);
            match gate.enter() {
                Entered::Open(section) => {
                    if !walked_early && !self.walk(range, need, pages) {
                        return Ok(Used::Missing);
                    }
                    let used = use_it(pages);
                    drop(section);
                    return Ok(used.map_or(Used::Vanished, Used::Done));
                }
                Entered::Raised => gate.wait_open(&Wait::new(by, gate)).map_err(|why| self.interrupted(range, why))?,
                Entered::Lost(cause) => return Err(Error::Lost { range, cause }.into()),
                Entered::Nested => return Err(FaultErrorKind::Nested),
            }
        }
    }

    /// Reads the table into `pages`; says whether each meets `need`. Takes no lock.
    fn walk(&self, range: PageRange, need: Need, pages: &mut [Page]) -> bool {
        let addresses = (range.start().get()..range.end().get()).step_by(MIN_PAGE as usize);
        addresses.zip(pages).all(|(address, page)| {
            *page = self.table.walk(VirtAddr::new(address));
            need.is_met_by(*page)
        })
    }

    /// Waits until every change that the kernel has begun was read. Asked again until the deadline, because a change stays
    /// under way until its caller has been scheduled again.
    fn wait_quiet(&self, range: PageRange, by: &Deadline<'_>) -> Result<(), FaultErrorKind> {
        let gate = self.space().gate();
        for round in 0_u32.. {
            match self.host.probe() {
                Probe::Quiet => break,
                Probe::Lost(cause) => return Err(Error::Lost { range, cause }.into()),
                Probe::Changing => Wait::new(by, gate).check().map_err(|why| self.interrupted(range, why))?,
            }
            match round {
                0..PROBE_YIELDS => {}
                PROBE_YIELDS..PROBE_NAPS => thread::yield_now(),
                _ => thread::sleep(PROBE_NAP),
            }
        }
        Ok(())
    }

    fn interrupted(&self, range: PageRange, why: Interrupted) -> FaultErrorKind {
        Error::interrupted(why, range, self.space().gate().lost()).into()
    }
}

/// What became of one section.
enum Used<R> {
    Done(R),
    Missing,
    Vanished,
}
