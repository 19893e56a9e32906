//! `link`: a request whose slot is looked up long after it was submitted. The kernel does that when it *issues* a request,
//! and a linked one is issued when the one before it has completed.
//!
//! # Interleavings
//! ```text
//! begin; submit read(pipe) -> write(slot)
//! the memory is changed, once or more; the same addresses are registered and used anew
//! other registrations come and go, more of them than there are slots
//! the pipe is fed: now the kernel looks the slot up
//! ```

use std::time::Duration;

use pagemirror::{Access, Options};

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::device::{Begun, Device, Piece};
use super::region::Region;
use super::rig::{Rig, Setup, Unsupported};
use super::rng::Rng;
use super::tally::Kind;

/// Slots: so few that every registration has to take one over from another.
const SLOTS: u16 = 4;
/// Regions, and registrations that come and go while a request is held back.
const REGIONS: usize = 8;
const OTHERS: usize = 6;
/// Changes of the region while its request is held back: 1 to this many.
const CHANGES: usize = 3;
/// Rest after a round: a thread that never blocks keeps every doubt.
const REST: Duration = Duration::from_micros(100);

/// Runs the row.
pub(crate) fn run(settings: &Settings) -> Result<Outcome, Unsupported> {
    let rig = Rig::new(Setup { options: Options::default(), lanes: 2, slots: SLOTS, ..Setup::default() }, settings)?;
    let regions =
        (0..REGIONS).map(|index| Region::anonymous(index as u64, 1 + index % 2)).collect::<Result<Vec<_>, _>>();
    let regions = regions.map_err(|error| Unsupported(format!("pages could not be mapped: {error}")))?;
    let mut rng = Rng::new(settings.seed, 0);
    let mut rounds = 0;
    if let (Some(mut held), Some(mut other)) = (Device::new(&rig, 0), Device::new(&rig, 1)) {
        while rig.runs() {
            if let Err(error) = round(&mut held, &mut other, &regions, &mut rng) {
                rig.tally.halt(format!("a linked write failed: {error}"));
            }
            rounds += 1;
            std::thread::sleep(REST);
        }
    }
    Ok(rig.report(RowName::Link, Some(format!("{rounds} linked writes, each with changes before it was let go"))))
}

fn round(held: &mut Device<'_>, other: &mut Device<'_>, regions: &[Region], rng: &mut Rng) -> std::io::Result<()> {
    let rig = held.rig;
    let region = &regions[rng.below(REGIONS)];
    let piece = Piece::whole(region);
    let begun = held.begin(piece, Access::Read, None, |lane, transfer| lane.submit_held(transfer));
    let Some(Begun { lease, using, since }) = begun else { return Ok(()) };
    // From here on only the use keeps the slot.
    drop(lease);
    for _ in 0..=rng.below(CHANGES) {
        let kind = [Kind::Munmap, Kind::MapFixed, Kind::Mremap, Kind::Dontneed][rng.below(4)];
        region.change().make(kind)?;
        rig.tally.invalidated(kind);
        other.send(piece, None);
    }
    for _ in 0..OTHERS {
        other.send(Piece::whole(&regions[rng.below(REGIONS)]), None);
    }
    held.lane.feed()?;
    held.check(piece, since)?;
    using.complete();
    Ok(())
}
