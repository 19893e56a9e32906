//! One case, in a process of its own: registers a scratch with a real device, fires the operation while the pump is held
//! just before its next read, and looks at what the device and the processor see before and after the read.
//!
//! # Interleavings
//! ```text
//! this thread                    the firing thread              pump
//! pin; hold the pump
//!                                the operation: event, sleep    held before its read
//! asleep and probe says changing
//! compare: changed already?
//! let the pump go                                               reads, revokes
//!                                awake, (discards,) returns
//! compare: diverged? stale?
//! ```
//! Pages that have changed while the event is unread were changed *before* it could be noticed.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use io_uring::IoUring;
use pagemirror::core::check::{Checked, Rights};
use pagemirror::{
    Access, Config, Deadline, Error, FixedBuffers, Lease, LostCause, Options, Probe, RegistrationCache, Source, Use,
    Userfault, VirtAddr,
};
use serde::{Deserialize, Serialize};

use super::catalogue::{Memory, Noticed, Operation, Pages};
use super::fire::{SPAN_HOLE, fire};
use super::scratch::{BEFORE, LATER, Scratch, map, page};
use super::witness::Witness;

/// How long anything may take here that takes microseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the pump is held at most: well within the time after which the watchdog would think it stuck.
const HELD: Duration = Duration::from_millis(800);
/// Looks in a row, a millisecond apart, at which the firing thread was asleep while the kernel said "changing".
const ASLEEP: u32 = 5;
/// A revocation follows the read of its event within microseconds. Where no event came, this long is waited for one.
const SETTLE: Duration = Duration::from_millis(20);

/// What a child says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It was fired.
    Ran(Observed),
    /// This kernel or this kind of memory does not have it, and why.
    Skipped(String),
    /// Nothing can be fired on this machine; what is missing.
    Unsupported(String),
    /// The machine was too busy to hold the event in place: to be tried again.
    Busy,
    /// Something that must not happen.
    Broken(String),
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observed {
    pub(crate) pages: Pages,
    pub(crate) noticed: Noticed,
    /// Whether a check before the next use sees it; nothing where this kernel cannot tell.
    pub(crate) seen_by_check: Option<bool>,
    /// The kernel refused the operation, with this error number, and had the device's pages left alone.
    pub(crate) refused: Option<i32>,
}

type Cache = RegistrationCache<FixedBuffers>;

/// Runs one case.
pub(crate) fn observe(operation: Operation, memory: Memory) -> Outcome {
    match try_observe(operation, memory) {
        Ok(observed) => Outcome::Ran(observed),
        Err(outcome) => outcome,
    }
}

fn unsupported(what: impl std::fmt::Display) -> Outcome {
    Outcome::Unsupported(what.to_string())
}

fn try_observe(operation: Operation, memory: Memory) -> Result<Observed, Outcome> {
    let source = Userfault::open(Config::default()).map_err(unsupported)?;
    let scratch = Scratch::new(memory, operation)
        .map_err(|error| Outcome::Skipped(format!("no such memory is to be had: {error}")))?;
    let ring = IoUring::new(8).map_err(unsupported)?;
    let device = FixedBuffers::new(&ring, 4).map_err(unsupported)?;
    let cache = RegistrationCache::new(source.clone(), device, Options::default()).map_err(unsupported)?;
    watch_around(&source, operation, &scratch)?;
    let (lease, using, slot) = pin(&cache, memory, &scratch)?;
    let mut witness = Witness::new(ring, slot, &scratch).map_err(unsupported)?;
    if differs(&mut witness, &scratch)? {
        return Err(Outcome::Broken("the device does not see what was pinned a moment ago".into()));
    }
    let earlier = source.look(lease.range()).map(|look| look.shown().clone());
    let mut observed = fire_held(&source, (operation, memory), &Arc::new(scratch), &lease, &mut witness);
    if let (Ok(observed), Ok(earlier)) = (&mut observed, earlier) {
        let look = source.look(lease.range());
        observed.seen_by_check = look.ok().map(|look| look.compare(&earlier, Rights::Write) != Checked::Same);
    }
    using.complete();
    match source.space().gate().lost() {
        None => observed,
        // It was this thread that kept the pump, and that was kept from letting it go.
        Some(LostCause::PumpStuck) => Err(Outcome::Busy),
        Some(cause) => Err(Outcome::Broken(format!("coherence was lost: {cause}"))),
    }
}

/// What an operation needs to be watched besides the scratch itself.
fn watch_around(source: &Userfault, operation: Operation, scratch: &Scratch) -> Result<(), Outcome> {
    let more = match operation {
        Operation::MunmapNeighbour => Some((scratch.start, scratch.len + page())),
        Operation::MunmapSpan => {
            let at = scratch.start + scratch.len + SPAN_HOLE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let mapped = map(at, page(), flags, -1).map_err(|error| Outcome::Skipped(error.to_string()))?;
            Some((mapped, page()))
        }
        Operation::RemoveWatchedAlias => scratch.alias.map(|alias| (alias, scratch.len)),
        _ => None,
    };
    if let Some((start, len)) = more {
        let range = pagemirror::PageRange::covering(VirtAddr::new(start as u64), len as u64, page() as u64);
        let range = range.map_err(|error| Outcome::Broken(error.to_string()))?;
        // Whether it is in doubt is found out by the lease.
        let _ = source.watch(range).map_err(|error| Outcome::Skipped(error.to_string()))?;
    }
    Ok(())
}

type Pinned<'c> = (Lease<'c, FixedBuffers>, Use<'c, FixedBuffers>, pagemirror::Slot);

/// A cached registration, and a use of it that keeps the pages pinned whatever happens.
fn pin<'c>(cache: &'c Cache, memory: Memory, scratch: &Scratch) -> Result<Pinned<'c>, Outcome> {
    let deadline = Deadline::after(LIMIT);
    let refused = |error: Error| match error {
        Error::Register { .. } if error.errno() == Some(libc::ENOMEM) => unsupported(error),
        Error::Watch(_) | Error::Register { .. } => Outcome::Skipped(error.to_string()),
        error => Outcome::Broken(error.to_string()),
    };
    loop {
        let lease = cache
            .get(VirtAddr::new(scratch.start as u64), scratch.len as u64, Access::Write, &deadline)
            .map_err(refused)?;
        if memory == Memory::Shm {
            let served = "a System V segment is served and never cached, so there is nothing to go stale".into();
            let cached = "a System V segment was cached, though nobody tells of shmdt".into();
            return Err(if lease.is_one_shot() { Outcome::Skipped(served) } else { Outcome::Broken(cached) });
        }
        if !lease.is_one_shot() {
            let (using, slot) = cache.begin(&[&lease], &deadline, |device| device[0].key).map_err(refused)?;
            return Ok((lease, using, slot));
        }
        if deadline.expired().is_some() {
            return Err(Outcome::Skipped("the range stayed in doubt, so nothing was cached".into()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn fire_held(
    source: &Userfault,
    (operation, memory): (Operation, Memory),
    scratch: &Arc<Scratch>,
    lease: &Lease<'_, FixedBuffers>,
    witness: &mut Witness,
) -> Result<Observed, Outcome> {
    source.stall_pump(true);
    let theirs = Arc::clone(scratch);
    let (tell_thread, thread) = channel();
    let (tell_end, end) = channel();
    std::thread::spawn(move || {
        let _ = tell_thread.send(rustix::thread::gettid());
        let _ = tell_end.send(fire(operation, &theirs));
    });
    let seen = thread.recv().map(|thread| wait_for_event(source, thread.as_raw_nonzero().get()));
    let announced = matches!(seen, Ok(Seen::Event));
    let changed_unread = announced && differs(witness, scratch)?;
    source.stall_pump(false);
    let answer = end.recv_timeout(LIMIT).map_err(|_| Outcome::Broken("the caller was never released".into()))?;
    if matches!(seen, Ok(Seen::Neither)) {
        return Err(Outcome::Busy);
    }
    let stale = settled(source, announced, lease);
    let pages = if differs(witness, scratch)? || unwritten(witness, scratch)? { Pages::Diverged } else { Pages::Same };
    let noticed = match (stale, pages, changed_unread) {
        (false, ..) => Noticed::No,
        (true, Pages::Same, _) => Noticed::Needless,
        (true, Pages::Diverged, true) => Noticed::After,
        (true, Pages::Diverged, false) => Noticed::Before,
    };
    let refused = match answer {
        Ok(()) => None,
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported || never_heard_of(operation, memory, &error) => {
            return Err(Outcome::Skipped(format!("this kernel does not do it here: {error}")));
        }
        Err(error) => Some(error.raw_os_error().unwrap_or(0)),
    };
    Ok(Observed { pages, noticed, seen_by_check: None, refused })
}

/// Whether the kernel says by this error that it does not know the operation.
fn never_heard_of(operation: Operation, memory: Memory, error: &std::io::Error) -> bool {
    if memory == Memory::Arena {
        return error.raw_os_error() == Some(libc::ENOSYS);
    }
    let unknown = matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL | libc::EPERM));
    // To these two it also answers with an error of theirs: the pages are pinned.
    unknown && !matches!(operation, Operation::Collapse | Operation::Pageout)
}

/// What became of the firing thread while the pump was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It sleeps with an event that nobody has read.
    Event,
    /// It returned without one.
    Returned,
    /// Neither in time.
    Neither,
}

/// Waits until the firing thread sleeps with an event that nobody has read, or has ended.
fn wait_for_event(source: &Userfault, thread: i32) -> Seen {
    let (since, mut asleep) = (Instant::now(), 0);
    let task = format!("/proc/self/task/{thread}");
    let call = format!("{task}/syscall");
    let sleeps = || std::fs::read(&call).is_ok_and(|at| !at.starts_with(b"running"));
    while since.elapsed() < HELD {
        let is_held = matches!(source.probe(), Probe::Changing) && sleeps();
        asleep = if is_held { asleep + 1 } else { 0 };
        if asleep == ASLEEP {
            return Seen::Event;
        }
        if !std::path::Path::new(&task).exists() {
            return Seen::Returned;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Seen::Neither
}

/// Waits until what was announced was revoked. Says whether the registration is stale.
fn settled(source: &Userfault, announced: bool, lease: &Lease<'_, FixedBuffers>) -> bool {
    let since = Instant::now();
    let limit = if announced { LIMIT } else { SETTLE };
    let mut quiet_since = None;
    while since.elapsed() < limit && !lease.is_stale() {
        match source.probe() {
            Probe::Quiet => {
                // An event that names something else revokes nothing here.
                if quiet_since.get_or_insert_with(Instant::now).elapsed() > SETTLE {
                    break;
                }
            }
            _ => quiet_since = None,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    lease.is_stale()
}

/// Whether the device sends another byte than the processor sees.
fn differs(witness: &mut Witness, scratch: &Scratch) -> Result<bool, Outcome> {
    let broken = |error: std::io::Error| Outcome::Broken(format!("looking at the pages failed: {error}"));
    let held = witness.held().map_err(broken)?;
    let seen = scratch.seen().map_err(broken)?;
    Ok(held.chunks(page()).zip(&seen).any(|(held, seen)| seen.as_deref() != Some(held)))
}

/// Whether something that is written now does not reach the device: equal bytes on other pages. What cannot be written
/// tells nothing.
fn unwritten(witness: &mut Witness, scratch: &Scratch) -> Result<bool, Outcome> {
    for byte in [LATER + 1, BEFORE] {
        if scratch.fill(scratch.start, scratch.len, byte).is_ok() && differs(witness, scratch)? {
            return Ok(true);
        }
    }
    Ok(false)
}
