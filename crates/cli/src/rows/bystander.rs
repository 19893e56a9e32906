//! `bystander`: mutators that never touch what the devices hold. Nobody may be made to go again because of them.

use pagemirror::VirtAddr;

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::device::{Device, Object, Piece};
use super::park::{Park, mutate};
use super::region::Region;
use super::rig::{Rig, Setup, Unsupported};
use super::rng::Rng;

/// Slots of the device: more than it needs.
const SLOTS: u16 = 256;
/// Regions of a device thread, which nobody changes, and how often one is given up to be registered anew.
const OWN: usize = 8;
const EVICT_ONCE_IN: usize = 2;
/// The changed memory of `bystander` is smaller by this: it takes less time.
const BYSTANDER_DIVISOR: usize = 8;

/// Runs the row.
pub(crate) fn run(settings: &Settings) -> Result<Outcome, Unsupported> {
    let mutators = (settings.threads / 2).max(1);
    let devices = settings.threads.saturating_sub(mutators).max(1);
    let rig = Rig::new(Setup { lanes: devices, slots: SLOTS, ..Setup::default() }, settings)?;
    let park = Park::new(&rig, BYSTANDER_DIVISOR, settings.seed)?;
    let watched = |region: &Region| {
        region.generations().note_used(region.generations().done());
        rig.watch(region.span())
    };
    std::thread::scope(|scope| {
        for number in 0..mutators {
            let rng = Rng::new(settings.seed, number as u64);
            let (rig, park) = (&rig, &park);
            scope.spawn(move || mutate(rig, park, rng, watched));
        }
        for number in 0..devices {
            let rng = Rng::new(settings.seed, (1000 + number) as u64);
            let rig = &rig;
            scope.spawn(move || stand_by(rig, number, rng));
        }
    });
    let stats = rig.cache.stats();
    let (collisions, retries) = (stats.collisions, stats.retries - stats.conservative.outrun.min(stats.retries));
    if collisions + retries + stats.false_retries > 0 {
        rig.tally.finding(format!(
            "nobody touched what the devices hold, and yet: {collisions} collisions, {retries} retries, {} false ones",
            stats.false_retries
        ));
    }
    Ok(rig.report(RowName::Bystander, None))
}

/// A device thread that keeps registering memory which only it knows.
fn stand_by(rig: &Rig, number: usize, mut rng: Rng) {
    let Some(mut device) = Device::new(rig, number) else { return };
    let own = |index| Region::anonymous(((number + 1) << 16 | index) as u64, 1 + index % 2);
    let regions: Vec<Region> = match (0..OWN).map(own).collect() {
        Ok(regions) => regions,
        Err(error) => return rig.tally.halt(format!("mapping failed: {error}")),
    };
    while rig.runs() {
        let region = &regions[rng.below(OWN)];
        if rng.once_in(EVICT_ONCE_IN) {
            let span = region.span();
            if let Err(error) = rig.cache.evict(VirtAddr::new(span.address() as u64), span.len() as u64) {
                rig.tally.finding(format!("evicting region {}: {error}", region.id()));
            }
        }
        device.send(Piece::whole(region), None);
        device.rest();
    }
}
