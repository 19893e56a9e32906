//! The fault path: the collision-retry loop of a mirror.

use pagemirror_sync::{planted, thread};

use super::Mirror;
use super::error::{FaultError, FaultErrorKind};
use super::host::{HostSpace, Look, Refusal};
use super::request::{Need, Request};
use super::stats::count;
use crate::addr::{MIN_PAGE, PageRange, VirtAddr};
use crate::collision::Verdict;
use crate::table::{Commit, Page, UNIT_PAGES};
use crate::wait::Deadline;

/// Attempts of one piece before the request is given up. Each one that collides was hit by a real change of these very pages,
/// so a program that gets here changes them faster than a device can read them.
pub const MAX_COLLISIONS: u32 = 16;

/// What became of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faulted {
    /// Pages that the host told and the table holds, if valid.
    pub installed: u64,
    /// Pages that were told and not kept, because a discard of them may be under way: use them once, by their address.
    pub in_doubt: u64,
}

/// What became of one piece: how many pages were told, whether nothing may be kept of them, and why the next one was refused.
#[derive(Debug)]
struct Piece {
    told: usize,
    in_doubt: bool,
    refused: Option<Refusal>,
}

/// What may be done with an answer of the host.
enum Judged {
    /// Install it, if nothing collided.
    Told(Piece),
    /// Use it once.
    NotKept(Piece),
    /// Ask again.
    Changed,
}

impl<H: HostSpace> Mirror<H> {
    /// Brings the pages of one piece in and installs what was read **only if no overlapping invalidation started since this
    /// attempt began**. Otherwise it goes round again.
    ///
    /// This is the whole algorithm. The order of its five steps carries all of its weight.
    fn fault_piece(
        &self,
        range: PageRange,
        needs: &[Need],
        pages: &mut [Page],
        by: &Deadline<'_>,
    ) -> Result<Piece, FaultErrorKind> {
        self.table.prepare(range)?; // nothing is allocated under the lock
        let mut collided = None;
        for collisions in 1..=MAX_COLLISIONS {
            let attempt = self.space().read_begin(range, collided, by)?; // 1. the token, before anything is asked
            let doubtful = self.space().doubt().overlaps(range); // 2. then whatever there is to ask
            let look = self.host.range_fault(range, needs, pages); // 3. the CPU's page table; what is needed is brought in
            let verdict = match self.judge(look, doubtful, range) {
                Judged::NotKept(piece) => return Ok(piece), // told, and used once
                Judged::Changed => Verdict::Hit(None),
                Judged::Told(piece) => {
                    let mut table = self.table.lock(range); // 4. the device lock, over the whole range
                    match table.commit(&attempt) {
                        // 5. read_retry, under the device lock
                        Commit::Permit(permit) => {
                            permit.install(&pages[..piece.told]);
                            return Ok(piece);
                        }
                        Commit::Collided(verdict) => verdict,
                    }
                }
            };
            collided = Some(self.count_collision(range, verdict, collided));
            if by.expired().is_some() {
                return Err(FaultErrorKind::Contended { collisions });
            }
        }
        Err(FaultErrorKind::Contended { collisions: MAX_COLLISIONS })
    }

    /// Brings in what `request` asks for and installs it, piece by piece; a piece is at most 2 MiB, and one deadline holds for
    /// all of them together.
    ///
    /// # Errors
    /// At the first page that cannot be had, with its address: [`FaultErrorKind::PermissionDenied`] for a write to a mapping
    /// that is read-only, [`FaultErrorKind::BadAddress`] where nothing is mapped or every access is forbidden; neither is
    /// tried again. [`FaultErrorKind::Contended`] when a piece changed in each of its attempts, or changed until the deadline.
    /// [`FaultErrorKind::Wait`] when a wait ended. The pages before it are installed, and answered, whatever the error.
    ///
    /// # Blocking
    /// Faults pages in, and sleeps while invalidations of the range run. Not in a section, not in a callback.
    pub fn range_fault(
        &self,
        range: PageRange,
        mut request: Request<'_>,
        by: &Deadline<'_>,
    ) -> Result<Faulted, FaultError> {
        if !request.fits(range) {
            return Err(FaultErrorKind::TooLong.after(0, range));
        }
        let mut faulted = Faulted::default();
        let (mut needs, mut pages) = ([Need::NOTHING; UNIT_PAGES], [Page::ABSENT; UNIT_PAGES]);
        let mut first = 0;
        for piece in pieces(range) {
            let len = (piece.len() / MIN_PAGE) as usize;
            for (index, need) in needs[..len].iter_mut().enumerate() {
                *need = request.need(first + index);
            }
            let done = self
                .fault_piece(piece, &needs[..len], &mut pages[..len], by)
                .map_err(|kind| kind.after(first as u64, range))?;
            request.answer(first, &pages[..done.told], done.refused.is_some());
            *(if done.in_doubt { &mut faulted.in_doubt } else { &mut faulted.installed }) += done.told as u64;
            if let Some(why) = done.refused {
                let at = VirtAddr::new(piece.start().get() + done.told as u64 * MIN_PAGE);
                return Err(FaultErrorKind::refused(at, why).after((first + done.told) as u64, range));
            }
            first += len;
        }
        Ok(faulted)
    }

    /// What may be done with what the host has told.
    fn judge(&self, look: Look, doubtful: bool, range: PageRange) -> Judged {
        let Look::Told { told, in_doubt, refused } = look else {
            count(&self.counters.changed);
            return Judged::Changed;
        };
        // Planted: asked after the host. A doubt that has ended meanwhile was one when the pages were looked at.
        let doubtful = if planted("mirror-doubt-after-look") { self.space().doubt().overlaps(range) } else { doubtful };
        let in_doubt = in_doubt || doubtful;
        count(if in_doubt { &self.counters.in_doubt } else { &self.counters.faults });
        let piece = Piece { told, in_doubt, refused };
        if in_doubt { Judged::NotKept(piece) } else { Judged::Told(piece) }
    }

    /// Counts a collision, lets others run, and says what the next attempt should know.
    fn count_collision(&self, range: PageRange, verdict: Verdict, before: Option<Verdict>) -> Verdict {
        count(&self.counters.collisions);
        if matches!(verdict, Verdict::Hit(Some(by)) if !by.overlaps(range)) {
            count(&self.counters.false_retries);
        }
        thread::yield_now();
        // Once outrun, the exact answer is asked for to the end.
        before.filter(|was| *was == Verdict::Outrun).unwrap_or(verdict)
    }
}

/// The parts of `range` that lie in one unit of the table each.
fn pieces(range: PageRange) -> impl Iterator<Item = PageRange> {
    let unit = UNIT_PAGES as u64 * MIN_PAGE;
    let end = range.end().get();
    let mut at = range.start().get();
    std::iter::from_fn(move || {
        let to = end.min((at / unit + 1).saturating_mul(unit));
        let piece = PageRange::from_words(at, to);
        at = to;
        piece
    })
}
