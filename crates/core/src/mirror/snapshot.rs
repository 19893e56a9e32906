//! What the process's memory is, without touching it.

use pagemirror_sync::planted;

use super::Mirror;
use super::error::{FaultError, FaultErrorKind};
use super::fault::MAX_COLLISIONS;
use super::host::{HostSpace, Run};
use super::stats::count;
use crate::addr::{MIN_PAGE, PageRange, VirtAddr};
use crate::wait::Deadline;

/// What is described at a time and described again after a collision: absent memory of this size costs one look, and a
/// snapshot of a large busy range makes progress.
const PIECE: u64 = 1 << 30;

impl<H: HostSpace> Mirror<H> {
    /// Describes `range` in runs of equal pages, from its start to its end without gaps. Brings nothing in, installs nothing,
    /// and watches nothing: huge and absent memory costs next to nothing.
    ///
    /// Each page was so at an instant of the call. Where the range is watched, no change of it that reached us ran beside the
    /// look at its gigabyte. A snapshot is a description: only [`range_fault`](Self::range_fault) gives what may be used.
    ///
    /// # Errors
    /// [`FaultErrorKind::Contended`] when a piece changed in each of its attempts, [`FaultErrorKind::Wait`] when a wait ended,
    /// and what the system refuses. What is not mapped is a run, not an error.
    ///
    /// # Blocking
    /// Sleeps while invalidations of the range run.
    pub fn snapshot(&self, range: PageRange, by: &Deadline<'_>) -> Result<Vec<Run>, FaultError> {
        let mut runs = Vec::new();
        let mut at = range.start().get();
        while let Some(piece) = PageRange::from_words(at, range.end().get().min(at.saturating_add(PIECE))) {
            let done = (at - range.start().get()) / MIN_PAGE;
            let described = self.snapshot_piece(piece, by).map_err(|kind| kind.after(done, range))?;
            described.into_iter().for_each(|run| append(&mut runs, run));
            at = piece.end().get();
        }
        Ok(runs)
    }

    fn snapshot_piece(&self, range: PageRange, by: &Deadline<'_>) -> Result<Vec<Run>, FaultErrorKind> {
        let mut runs = Vec::new();
        for collisions in 1..=MAX_COLLISIONS {
            let attempt = self.space().read_begin(range, None, by)?;
            runs.clear();
            let refused = |(at, why): (VirtAddr, _)| FaultErrorKind::refused(at, why);
            self.host.snapshot(range, &mut |run| append(&mut runs, run)).map_err(refused)?;
            // A hint is enough: nothing is installed, so there is no lock under which it would be more.
            if attempt.is_valid() || planted("snapshot-unchecked") {
                return Ok(runs);
            }
            count(&self.counters.collisions);
            if by.expired().is_some() {
                return Err(FaultErrorKind::Contended { collisions });
            }
        }
        Err(FaultErrorKind::Contended { collisions: MAX_COLLISIONS })
    }
}

/// Adds `run`, as a part of the last one where that goes on.
fn append(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.range.end() == run.range.start() && last.page == run.page => {
            if let Some(joined) = PageRange::from_words(last.range.start().get(), run.range.end().get()) {
                last.range = joined;
            }
        }
        _ => runs.push(run),
    }
}
