//! The rows of single kinds of memory: a few patches of the kind, mutators that change them by everything that applies to it, and
//! device threads.
//!
//! A device refuses to register a shared mapping of a file on a disk, so that kind is sent by address.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use pagemirror::{Access, Deadline, ErrorKind, FixedBuffers, Lease, VirtAddr};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::device::{Device, Object, Piece};
use super::patch::{Form, Patch};
use super::rig::{Rig, Setup, Unsupported};
use super::rng::Rng;
use super::tally::{Kind, Tally};
use super::{huge, memory};

/// A page of 2 MiB and one of 64 KiB.
const HUGE: usize = 2 << 20;
const MEDIUM: usize = 64 << 10;
/// Slots of the device.
const SLOTS: u16 = 64;
/// The most that one use sends of a patch.
const PIECE: usize = 64 << 10;
/// Patches of small pages, and of pages of 2 MiB: with these an ordinary user's limit on locked memory is enough.
const SMALL_PATCHES: usize = 64;
const HUGE_PATCHES: usize = 3;
/// Pages of a patch of small pages: 1 to this many.
const MOST_PAGES: usize = 3;
/// Tries to find a patch that a device has used.
const TRIES: usize = 8;
/// A mutator rests up to this long after each change, divided by the number of patches: so that most of them are out of doubt,
/// and cached, when they are changed.
const REST_NANOS: usize = 40_000_000;
/// From this time on a row must have met a change of something cached.
const LONG_ENOUGH: Duration = Duration::from_secs(5);
/// How often a change is a discard: it leaves a doubt behind, and memory in doubt is not cached.
const DISCARD_ONCE_IN: usize = 8;
/// How long a use may take that is to be refused.
const LIMIT: Duration = Duration::from_secs(5);

/// Runs the row of a kind.
pub(crate) fn run(row: RowName, settings: &Settings) -> Result<Outcome, Unsupported> {
    let mutators = (settings.threads / 2).max(1);
    let devices = settings.threads.saturating_sub(mutators).max(1);
    if row == RowName::KindBreak {
        memory::leave_the_break_alone();
    }
    let rig = Rig::new(Setup { lanes: devices, slots: SLOTS, ..Setup::default() }, settings)?;
    let patches = patches(row, settings.seed)?;
    for alias in patches.iter().filter_map(Patch::alias) {
        rig.watch(alias).map_err(|error| Unsupported::because(&error))?;
    }
    std::thread::scope(|scope| {
        let (rig, patches) = (&rig, &patches[..]);
        for number in 0..mutators {
            let rng = Rng::new(settings.seed, number as u64);
            scope.spawn(move || mutate(rig, patches, row, rng));
        }
        for number in 0..devices {
            let rng = Rng::new(settings.seed, (1000 + number) as u64);
            scope.spawn(move || drive(rig, number, patches, row, rng));
        }
    });
    let never_cached = matches!(row, RowName::KindSystemV | RowName::KindSharedFile);
    let revoked = rig.cache.stats().invalidations.revoked;
    if never_cached != (revoked == 0) && (never_cached || settings.time >= LONG_ENOUGH) {
        rig.tally.finding(format!("{revoked} registrations were revoked: it was not cached as this kind should be"));
    }
    Ok(rig.report(row, None))
}

/// The patches of a row, or what the machine lacks for them.
fn patches(row: RowName, seed: u64) -> Result<Vec<Patch>, Unsupported> {
    let mut rng = Rng::new(seed, u64::MAX);
    let page = rustix::param::page_size();
    let (count, unit) = match row {
        RowName::KindThp | RowName::KindHugetlb | RowName::KindHugetlbShared => (HUGE_PATCHES, HUGE),
        RowName::KindMthp => (SMALL_PATCHES / 8, MEDIUM),
        RowName::KindBreak => (1, 8 * page),
        _ => (SMALL_PATCHES, page),
    };
    let given = huge::Given::expect(row, count).map_err(Unsupported)?;
    let patches: io::Result<Vec<Patch>> = (0..count)
        .map(|id| {
            let most = if unit == page && row != RowName::KindSharedFile { MOST_PAGES } else { 1 };
            let bytes = unit * (1 + rng.below(most));
            Patch::new(id as u64, bytes, unit, form(row, bytes, unit)?)
        })
        .collect();
    let patches = patches.map_err(|error| Unsupported(format!("its memory could not be made: {error}")))?;
    given.check(&patches).map_err(Unsupported)?;
    Ok(patches)
}

fn form(row: RowName, bytes: usize, unit: usize) -> io::Result<Form> {
    let memfd = |flags| memfd_create("pagemirror-stress", MemfdFlags::CLOEXEC | flags).map_err(io::Error::from);
    match row {
        RowName::KindThp | RowName::KindMthp => Ok(Form::Huge),
        RowName::KindHugetlb => Ok(Form::Hugetlb),
        RowName::KindHugetlbShared => Form::shared(memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)?, bytes, unit),
        RowName::KindMemfd => Form::shared(memfd(MemfdFlags::empty())?, bytes, unit),
        RowName::KindTmpfs => Form::shared(nameless(Path::new("/dev/shm"))?, bytes, unit),
        RowName::KindSharedAnonymous => Ok(Form::SharedAnonymous),
        RowName::KindSystemV => Ok(Form::SystemV),
        RowName::KindPrivateFile => Form::private(nameless(&std::env::temp_dir())?, bytes),
        RowName::KindSharedFile => Form::shared(nameless(&std::env::temp_dir())?, bytes, unit),
        RowName::KindBreak => Ok(Form::Break),
        _ => Ok(Form::Anonymous),
    }
}

/// A file in `folder` that has no name any more.
fn nameless(folder: &Path) -> io::Result<OwnedFd> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    // ORDERING: Relaxed; only the numbers have to differ.
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = folder.join(format!("pagemirror-stress-{}-{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file.into())
}

/// A mutator: always of the kind that has happened least.
fn mutate(rig: &Rig, patches: &[Patch], row: RowName, mut rng: Rng) {
    while rig.runs() {
        let any = |rng: &mut Rng| &patches[rng.below(patches.len())];
        let used = (0..TRIES).map(|_| any(&mut rng)).find(|patch| patch.generations().is_used());
        let patch = used.unwrap_or_else(|| any(&mut rng));
        let kind = pick(&rig.tally, patch.changes(), &mut rng);
        match patch.try_change(kind) {
            Ok(true) => rig.tally.invalidated(kind),
            Ok(false) => {}
            Err(error) => rig.tally.halt(format!("{kind:?} failed: {error}")),
        }
        // Watched piece by piece, each of many pieces of shared memory would be in doubt by itself. It is a help only: another
        // mutator may be changing it now.
        if row == RowName::KindHugetlbShared {
            let _ = rig.watch(patch.span());
        }
        std::thread::sleep(Duration::from_nanos(rng.below(REST_NANOS / patches.len()) as u64));
    }
}

/// Now and then a discard; otherwise what has happened least.
fn pick(tally: &Tally, kinds: &[Kind], rng: &mut Rng) -> Kind {
    let is_discard = |kind: &&Kind| matches!(kind, Kind::Dontneed | Kind::Remove);
    let discard = kinds.iter().find(is_discard).filter(|_| rng.once_in(DISCARD_ONCE_IN));
    let others = kinds.iter().filter(|kind| !is_discard(kind));
    let fewest = others.min_by_key(|kind| tally.invalidations_of(**kind));
    *discard.or(fewest).unwrap_or(&Kind::Munmap)
}

/// A device thread: sends patches, or pieces of them, and keeps a lease on each.
fn drive(rig: &Rig, number: usize, patches: &[Patch], row: RowName, mut rng: Rng) {
    let Some(mut device) = Device::new(rig, number) else { return };
    let mut kept: Vec<Option<Lease<FixedBuffers>>> = patches.iter().map(|_| None).collect();
    let page = rustix::param::page_size();
    while rig.runs() {
        let index = rng.below(patches.len());
        let patch = &patches[index];
        let len = patch.span().len().min(PIECE).min(device.lane.largest());
        let offset = rng.below((patch.span().len() - len) / page + 1) * page;
        let piece = Piece { object: patch, offset, len };
        if row == RowName::KindSharedFile {
            send_refused(&mut device, piece);
        } else {
            let covers = |lease: &Lease<FixedBuffers>| lease.range().start().get() == (patch.address() + offset) as u64;
            let lease = kept[index].take().filter(covers);
            kept[index] = device.send(piece, lease);
        }
        device.rest();
    }
}

/// What the device refuses to register is sent by address, as a program would.
fn send_refused(device: &mut Device<'_>, piece: Piece<'_>) {
    let rig = device.rig;
    let (address, generations) = (piece.object.address() + piece.offset, piece.object.generations());
    let deadline = Deadline::after(LIMIT);
    match rig.cache.begin_at(VirtAddr::new(address as u64), piece.len as u64, Access::Read, &deadline, |_| ()) {
        Err(error) if error.kind() == ErrorKind::Refused => {}
        Err(error) => return rig.tally.finding(format!("not refused as it should be: {error}")),
        Ok(_) => return rig.tally.finding("a shared mapping of a file on a disk was registered"),
    }
    let since = generations.done();
    let sent = device.lane.submit_by_address(address, piece.len).and_then(|()| device.check(piece, since));
    match sent {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) && generations.window(since).until > since => {
            rig.tally.unmapped();
        }
        Err(error) => rig.tally.halt(format!("a transfer by address failed: {error}")),
    }
}
