//! A device thread: gets leases, begins uses, and checks every byte that was sent.

use std::io;
use std::time::Duration;

use pagemirror::{Access, Deadline, Error, ErrorKind, FixedBuffers, Lease, Use, VirtAddr};

use super::generations::Generations;
use super::oracle;
use super::region::Region;
use super::rig::Rig;
use super::ring::{Lane, Transfer};

/// What one use may take, waits and all. Far beyond any wait of a healthy run: reaching it is a finding.
const LIMIT: Duration = Duration::from_secs(5);

/// Uses between two rests of a device thread, and how long one is. A thread that never blocks is never seen to be outside
/// a discard, and keeps every doubt.
const USES_TO_REST: u32 = 8;
const REST: Duration = Duration::from_micros(100);

/// Something that a device sends: where it is, and which states it has had.
pub(crate) trait Object {
    /// What it is called in a finding.
    fn name(&self) -> &'static str;
    fn id(&self) -> u64;
    fn address(&self) -> usize;
    fn generations(&self) -> &Generations;
}

/// The bytes of an object that a use sends.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'o> {
    pub(crate) object: &'o dyn Object,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl<'o> Piece<'o> {
    /// All of a region.
    pub(crate) fn whole(region: &'o Region) -> Self {
        Self { object: region, offset: 0, len: region.span().len() }
    }

    fn address(&self) -> usize {
        self.object.address() + self.offset
    }
}

/// A use that was begun.
pub(crate) struct Begun<'r> {
    pub(crate) lease: Lease<'r, FixedBuffers>,
    pub(crate) using: Use<'r, FixedBuffers>,
    /// The newest complete generation just before it began.
    pub(crate) since: u64,
}

/// A device thread.
pub(crate) struct Device<'r> {
    pub(crate) rig: &'r Rig,
    pub(crate) lane: Lane<'r>,
    turns: u32,
}

impl<'r> Device<'r> {
    /// Device thread `number`; halts the row if it cannot be made.
    pub(crate) fn new(rig: &'r Rig, number: usize) -> Option<Self> {
        match Lane::new(&rig.ring, number) {
            Ok(lane) => Some(Self { rig, lane, turns: 0 }),
            Err(error) => {
                rig.tally.halt(format!("a pipe could not be made: {error}"));
                None
            }
        }
    }

    /// Rests now and then; called once for each use by a thread that does nothing else.
    pub(crate) fn rest(&mut self) {
        self.turns += 1;
        if self.turns.is_multiple_of(USES_TO_REST) {
            std::thread::sleep(REST);
        }
    }

    /// Sends `piece` through a lease, `held` if that is still good, and checks what arrived. Gives the lease back if it can
    /// be used again.
    pub(crate) fn send(
        &mut self,
        piece: Piece<'_>,
        held: Option<Lease<'r, FixedBuffers>>,
    ) -> Option<Lease<'r, FixedBuffers>> {
        let begun = self.begin(piece, Access::Read, held, |lane, transfer| lane.submit(transfer))?;
        let checked = self.check(piece, begun.since);
        begun.using.complete();
        if let Err(error) = checked {
            self.failed(piece, &error);
            return None;
        }
        (!begun.lease.is_one_shot()).then_some(begun.lease)
    }

    /// Has the device fill `piece`, all of its object, with the next generation; the caller looks at what arrived. Says
    /// whether it did.
    pub(crate) fn receive(&mut self, piece: Piece<'_>) -> bool {
        let generation = piece.object.generations().done() + 1;
        let received = self.lane.offer(piece.object.id(), generation, piece.len).and_then(|()| {
            let Some(begun) = self.begin(piece, Access::Write, None, |lane, transfer| lane.submit_receive(transfer))
            else {
                self.lane.read_back(piece.len)?; // what nobody took
                return Ok(false);
            };
            let received = self.lane.wait()?;
            begun.using.complete();
            Ok(received == piece.len)
        });
        received.unwrap_or_else(|error| {
            self.failed(piece, &error);
            false
        })
    }

    /// Begins a use of `piece`: gets leases until one is good, and submits in its section.
    pub(crate) fn begin(
        &mut self,
        piece: Piece<'_>,
        access: Access,
        held: Option<Lease<'r, FixedBuffers>>,
        submit: impl Fn(&mut Lane<'r>, Transfer) -> io::Result<()>,
    ) -> Option<Begun<'r>> {
        let rig = self.rig;
        let cache = &rig.cache;
        let deadline = Deadline::after(LIMIT);
        let (address, len, generations) = (piece.address(), piece.len, piece.object.generations());
        let get = || cache.get(VirtAddr::new(address as u64), len as u64, access, &deadline);
        let mut held = held;
        loop {
            let since = generations.done();
            let lease = match held.take().map_or_else(get, Ok) {
                Ok(lease) => lease,
                Err(error) => return self.refused(piece, since, &error),
            };
            // Anew, as late as can be: every change that is over by now must be seen.
            let since = generations.done();
            let lane = &mut self.lane;
            let mut submit = |slot| submit(lane, Transfer { slot, address, len });
            match cache.begin(&[&lease], &deadline, |device| submit(device[0].key.get())) {
                Ok((using, Ok(()))) => return Some(Begun { lease, using, since }),
                Ok((_, Err(error))) => {
                    self.failed(piece, &error);
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::Stale && deadline.expired().is_none() => {}
                Err(error) => return self.refused(piece, since, &error),
            }
        }
    }

    /// Waits for the completion and checks what was sent, for a use that began when `since` was done.
    pub(crate) fn check(&mut self, piece: Piece<'_>, since: u64) -> io::Result<()> {
        let sent = self.lane.wait()?;
        let window = piece.object.generations().window(since);
        let bytes = self.lane.read_back(sent)?;
        let (object, id) = (piece.object, piece.object.id());
        let stale = oracle::check(id, piece.offset, bytes, window);
        object.generations().note_used(since);
        self.rig.tally.checked(object.name(), id, sent, window, stale);
        if sent != piece.len {
            self.rig.tally.finding(format!("{} {id}: {sent} of {} bytes were sent", object.name(), piece.len));
        }
        Ok(())
    }

    /// An answer that is no use. It is right only while the memory was being changed.
    fn refused(&self, piece: Piece<'_>, since: u64, error: &Error) -> Option<Begun<'r>> {
        let window = piece.object.generations().window(since);
        let tally = &self.rig.tally;
        if error.kind() == ErrorKind::Refused && window.until > window.since {
            tally.unmapped();
            return None;
        }
        if error.errno() == Some(libc::ENOMEM) {
            // The user may lock less memory than the row needs.
            tally.lacks(error.to_string());
            return None;
        }
        let text = format!("{} {}: {error}", piece.object.name(), piece.object.id());
        if error.kind() == ErrorKind::Lost {
            tally.halt(text)
        } else {
            tally.finding(text)
        }
        None
    }

    fn failed(&self, piece: Piece<'_>, error: &io::Error) {
        let (object, id) = (piece.object.name(), piece.object.id());
        self.rig.tally.halt(format!("a transfer of {object} {id} failed: {error}"));
    }
}
