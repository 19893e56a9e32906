//! The park: regions that mutators change in every way, and the mutators.

use std::io;
use std::time::Duration;

use super::region::{Region, SharedFile};
use super::rig::{Rig, Unsupported};
use super::rng::Rng;
use super::tally::{Kind, Tally};

/// Regions of `mix`, by what mostly happens to them. Discards leave a doubt behind that lasts until every thread was seen
/// elsewhere, and memory in doubt is not cached: with fewer regions than this, devices would hardly ever meet a discard
/// with something cached.
const REMAPPED: usize = 128;
const DISCARDED: usize = 192;
const SHARED: usize = 128;
/// Pages of a region: 1 to this many.
const MOST_PAGES: usize = 3;
/// How often a change of any kind hits a region of any sort.
const ANYWHERE_ONCE_IN: usize = 32;
/// Tries to find a region that a device has used.
const TRIES: usize = 8;
/// A mutator rests up to this long after each change: without it the kernel would be changing memory all the time, and
/// every use would wait for it.
const REST_NANOS: usize = 120_000;

/// Memory that is changed.
pub(crate) struct Park {
    pub(crate) regions: Vec<Region>,
}

impl Park {
    /// As many regions of each sort as said above, divided by `divisor`.
    pub(crate) fn new(rig: &Rig, divisor: usize, seed: u64) -> Result<Self, Unsupported> {
        Self::map(rig, divisor, &mut Rng::new(seed, u64::MAX))
            .map_err(|error| Unsupported(format!("the memory to work on could not be mapped: {error}")))
    }

    fn map(rig: &Rig, divisor: usize, rng: &mut Rng) -> io::Result<Self> {
        let (anonymous, shared) = ((REMAPPED + DISCARDED) / divisor, SHARED / divisor);
        let file = SharedFile::with_pages(shared * MOST_PAGES)?;
        rig.watch(file.alias())?;
        let mut regions = Vec::new();
        for index in 0..anonymous {
            regions.push(Region::anonymous(index as u64, 1 + rng.below(MOST_PAGES))?);
        }
        for index in 0..shared {
            let pages = 1 + rng.below(MOST_PAGES);
            regions.push(Region::shared((anonymous + index) as u64, pages, &file, index * MOST_PAGES)?);
        }
        Ok(Self { regions })
    }

    /// A region for a change of this kind.
    fn pick(&self, kind: Kind, rng: &mut Rng) -> &Region {
        let all = self.regions.len();
        let remapped = all * REMAPPED / (REMAPPED + DISCARDED + SHARED);
        let anonymous = all * (REMAPPED + DISCARDED) / (REMAPPED + DISCARDED + SHARED);
        let sort = match kind {
            Kind::Remove => anonymous..all,
            _ if rng.once_in(ANYWHERE_ONCE_IN) => 0..all,
            Kind::Dontneed => remapped..anonymous,
            _ => 0..remapped,
        };
        let any = |rng: &mut Rng| &self.regions[sort.start + rng.below(sort.len())];
        (0..TRIES).map(|_| any(rng)).find(|region| region.is_used()).unwrap_or_else(|| any(rng))
    }
}

/// A mutator: always of the kind that has happened least. Does `after` with each region that it has changed.
pub(crate) fn mutate(rig: &Rig, park: &Park, mut rng: Rng, after: impl Fn(&Region) -> io::Result<()>) {
    while rig.runs() {
        let kind = fewest(&rig.tally, &mut rng);
        if let Some(changing) = park.pick(kind, &mut rng).try_change() {
            match changing.make(kind) {
                Ok(true) => rig.tally.invalidated(kind),
                Ok(false) => {}
                Err(error) => rig.tally.halt(format!("{kind:?} failed: {error}")),
            }
            if let Err(error) = after(changing.region()) {
                rig.tally.halt(format!("after {kind:?}: {error}"));
            }
        }
        std::thread::sleep(Duration::from_nanos(rng.below(REST_NANOS) as u64));
    }
}

/// The kind with the fewest invalidations so far.
fn fewest(tally: &Tally, rng: &mut Rng) -> Kind {
    let first = rng.below(Kind::ON_REGIONS.len());
    let turned = (0..Kind::ON_REGIONS.len()).map(|step| Kind::ON_REGIONS[(first + step) % Kind::ON_REGIONS.len()]);
    turned.min_by_key(|kind| tally.invalidations_of(*kind)).unwrap_or(Kind::Munmap)
}
