//! `mix`: every mutator against every device thread.

use pagemirror::{FixedBuffers, Lease};

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::churn::Churn;
use super::device::{Device, Object, Piece};
use super::park::{Park, mutate};
use super::region::Region;
use super::rig::{Rig, Setup, Unsupported};
use super::rng::Rng;
use super::tally::{Kind, Tally};

/// Slots of the device: fewer than regions, so that it runs out of them.
const SLOTS: u16 = 256;
/// Leases that a device thread keeps between uses.
const KEPT: usize = 24;
/// How often it asks for a new one though it has one.
const ANEW_ONCE_IN: usize = 4;
/// How often a device thread turns to the allocator when that is not behind.
const CHURN_ONCE_IN: usize = 64;

/// Runs the row.
pub(crate) fn run(settings: &Settings) -> Result<Outcome, Unsupported> {
    let mutators = (settings.threads / 2).max(1);
    let devices = settings.threads.saturating_sub(mutators).max(1);
    let churn = Churn::new();
    let rig = Rig::new(Setup { lanes: devices, slots: SLOTS, ..Setup::default() }, settings)?;
    let park = Park::new(&rig, 1, settings.seed)?;
    std::thread::scope(|scope| {
        for number in 0..mutators {
            let rng = Rng::new(settings.seed, number as u64);
            let (rig, park) = (&rig, &park);
            scope.spawn(move || mutate(rig, park, rng, |_| Ok(())));
        }
        for number in 0..devices {
            let rng = Rng::new(settings.seed, (1000 + number) as u64);
            let (rig, park, churn) = (&rig, &park, &churn);
            scope.spawn(move || drive(rig, number, park, churn, rng));
        }
    });
    Ok(rig.report(RowName::Mix, None))
}

/// A device thread of `mix`: sends regions and blocks.
fn drive(rig: &Rig, number: usize, park: &Park, churn: &Churn, mut rng: Rng) {
    let Some(mut device) = Device::new(rig, number) else { return };
    let mut kept: Vec<Option<(u64, Lease<'_, FixedBuffers>)>> = (0..KEPT).map(|_| None).collect();
    while rig.runs() {
        if churn_is_behind(&rig.tally) || rng.once_in(CHURN_ONCE_IN) {
            churn.step(&mut device, &mut rng);
        } else {
            let region = &park.regions[rng.below(park.regions.len())];
            let piece = piece_of(region, &mut rng);
            let place = &mut kept[region.id() as usize % KEPT];
            let lease = place.take().filter(|(id, lease)| *id == region.id() && covers(lease, region, piece));
            let lease = lease.map(|(_, lease)| lease).filter(|_| !rng.once_in(ANEW_ONCE_IN));
            *place = device.send(piece, lease).map(|lease| (region.id(), lease));
        }
        device.rest();
    }
}

fn churn_is_behind(tally: &Tally) -> bool {
    let slowest = Kind::ON_REGIONS.iter().map(|kind| tally.invalidations_of(*kind)).min().unwrap_or(0);
    tally.invalidations_of(Kind::Allocator) < slowest
}

/// All of the region, or some of its pages.
fn piece_of<'r>(region: &'r Region, rng: &mut Rng) -> Piece<'r> {
    let page = rustix::param::page_size();
    let pages = region.span().len() / page;
    if rng.once_in(2) {
        return Piece::whole(region);
    }
    let first = rng.below(pages);
    let count = 1 + rng.below(pages - first);
    Piece { object: region, offset: first * page, len: count * page }
}

fn covers(lease: &Lease<'_, FixedBuffers>, region: &Region, piece: Piece<'_>) -> bool {
    let start = (region.span().address() + piece.offset) as u64;
    lease.range().start().get() <= start && start + piece.len as u64 <= lease.range().end().get()
}
