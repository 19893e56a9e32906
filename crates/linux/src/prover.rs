//! The prover: ends doubts once every thread that could be in the discard has been seen elsewhere.
//!
//! # Guarantee
//! A doubt ends only after every thread of the process that was alive when its event was read has been seen outside
//! `madvise`, later than that read. Absence of a page, a changed page frame, a second event prove nothing: a running
//! program broke each of these.
//!
//! # Steps
//! Remember the newest doubt; list the threads; look at each until it was seen elsewhere; end the doubts up to the one
//! that was remembered. Threads that were made later cannot be in a discard whose event was read before.

use std::io;
use std::time::Duration;

use pagemirror_core::source::Source;
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::Ordering;

use crate::pagemap::Pagemap;
use crate::source::Userfault;
use crate::stats::count;
use crate::tasks::{Progress, Proof};
use crate::threads;

/// How long it sleeps when nothing is in doubt and nobody wakes it.
const IDLE: Duration = Duration::from_millis(500);
/// The first nap between two looks at threads that were running, and the longest: a look costs some ten microseconds for
/// each thread, and a thread that computes is not proven before it sleeps.
const FIRST_NAP: Duration = Duration::from_micros(100);
const LAST_NAP: Duration = Duration::from_millis(5);
/// Pause after a failure to read `/proc`.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Starts the prover.
pub(crate) fn start(source: &Arc<Userfault>) -> io::Result<()> {
    let source = Arc::clone(source);
    threads::spawn("pagemirror-proof", move || run(&source))
}

fn run(source: &Userfault) {
    let doubt = source.space.doubt();
    while source.space.gate().lost().is_none() {
        if !source.doubtful.wait_at_most(IDLE, || doubt.any()) {
            continue;
        }
        if source.config.control.doubt_ends_at_first_absence {
            end_what_is_absent(source);
            continue;
        }
        match source.prove() {
            Ok(()) => {}
            // Threads come and go too fast for a list of them.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(LAST_NAP),
            Err(_refused) => {
                // Every doubt then stays: what was discarded once is served uncached from then on.
                // ORDERING: Relaxed; a statistic.
                source.counters.proof_unavailable.store(1, Ordering::Relaxed);
                std::thread::sleep(AFTER_FAILURE);
            }
        }
    }
}

impl Userfault {
    /// One proof, for the doubts that are there now.
    fn prove(&self) -> io::Result<()> {
        let mark = self.space.doubt().mark();
        let mut proof = Proof::begin()?;
        let mut nap = FIRST_NAP;
        loop {
            match proof.advance()? {
                Progress::Done => break,
                Progress::Waiting { io_workers, .. } => {
                    // ORDERING: Relaxed; a statistic.
                    self.counters.io_workers.store(io_workers as u64, Ordering::Relaxed);
                }
            }
            if self.space.gate().lost().is_some() {
                return Ok(());
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(LAST_NAP);
        }
        // ORDERING: Release pairs with the Acquire in `watch`: who sees the mark comes after the proof.
        self.proved.fetch_max(mark, Ordering::Release);
        self.space.doubt().end(mark);
        count(&self.counters.proofs);
        Ok(())
    }
}

/// The control run's weaker evidence: a doubt ends when the last page of its range is absent.
fn end_what_is_absent(source: &Userfault) {
    let Ok(pagemap) = Pagemap::open() else { return };
    let doubt = source.space.doubt();
    let absent = |range: pagemirror_core::addr::PageRange| {
        matches!(pagemap.present(range.end().get() - source.page_size()), Ok(false))
    };
    doubt.end_where(doubt.mark(), absent);
    std::thread::sleep(FIRST_NAP);
}
