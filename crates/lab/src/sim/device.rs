//! The fault side: registrations that are kept only if nothing collided, and uses of them.
//!
//! The loop of a miss and the steps of a use are those of `pagemirror-registration`, in the same order; what differs is
//! that nothing is evicted and that a registration needs no worker to end.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use pagemirror_core_sim::addr::PageRange;
use pagemirror_core_sim::collision::{CollisionTracker, Reader, SubscriptionId, Verdict};
use pagemirror_core_sim::device::{Commit, DeviceTable};
use pagemirror_core_sim::error::Error;
use pagemirror_core_sim::gate::{Entered, Section};
use pagemirror_core_sim::source::Probe;
use pagemirror_core_sim::wait::{Deadline, Interrupted, Wait};
use pagemirror_sync_sim::{planted, sim, thread};

use super::counts::Count;
use super::memory::{Witness, range_of};
use super::observe::Observed;
use super::options::{NO_DOUBT, NO_PROBE};
use super::table::{Registration, Table};
use super::world::World;

/// Collisions after which a request is served once, without being kept.
const MAX_COLLISIONS: u32 = 6;
/// As in `pagemirror-registration`: probes before others are let run, before it sleeps between them, and the nap.
const PROBE_YIELDS: u32 = 8;
const PROBE_NAPS: u32 = 64;
const PROBE_NAP: Duration = Duration::from_micros(100);
/// How long an overdue section is stayed in: past the pump's patience.
const OVERDUE: Duration = Duration::from_millis(40);
/// How long all who hold locks that a request needs can hold them, together.
const LOCKED: Duration = Duration::from_millis(50);
/// How long a device takes to complete, at most, in nanoseconds.
const COMPLETION: u64 = 20_000;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// From a registration that is kept; `collisions` before it was.
    Kept {
        found: bool,
        collisions: u32,
    },
    OneShot,
    TimedOut,
    /// The memory is not there, or may not be read.
    Refused,
    Lost,
}

enum Lease {
    Kept { registration: Arc<Registration>, found: bool, collisions: u32 },
    OneShot,
}

/// What was so when a request began.
#[derive(Debug, Clone, Copy)]
struct Begun {
    at: u64,
    witness: Witness,
}

/// A request.
struct Asked<'a> {
    pages: &'a Range<usize>,
    deadline: &'a Deadline<'a>,
    subscription: Option<SubscriptionId>,
    begun: Begun,
}

/// A device with its table.
#[derive(Debug)]
pub(crate) struct Device {
    world: Arc<World>,
    number: usize,
    table: DeviceTable<Table, Observed>,
}

/// The buffers that one worker has told the tracker of.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Vec<(PageRange, SubscriptionId)>);

impl Buffers {
    /// Tells the tracker of every buffer, if this run does.
    pub(crate) fn known(world: &World) -> Self {
        if world.options.subscribed == 0 {
            return Self::default();
        }
        let tracker = world.space.tracker();
        let regions = (0..world.options.regions as usize).map(|region| range_of(world.options.region(region)));
        Self(regions.filter_map(|range| Some((range, tracker.subscribe(range)?))).collect())
    }

    /// Has the tracker forget them.
    pub(crate) fn forget(&mut self, world: &World, deadline: &Deadline<'_>) -> Result<(), Interrupted> {
        let wait = Wait::new(deadline, world.space.gate());
        self.0.drain(..).try_for_each(|(_, id)| world.space.tracker().unsubscribe(id, &wait))
    }

    fn of(&self, range: PageRange) -> Option<SubscriptionId> {
        self.0.iter().find(|(of, _)| *of == range).map(|(_, id)| *id)
    }
}

impl Device {
    pub(crate) fn new(world: &Arc<World>, number: usize) -> Self {
        let table = DeviceTable::new(&world.space, Table::new(world, number));
        Self { world: Arc::clone(world), number, table }
    }

    /// Something that is kept and is not true. Nobody changes memory meanwhile.
    pub(crate) fn first_untrue(&self) -> Option<PageRange> {
        self.table.lock().first_untrue()
    }

    /// One request from beginning to end: a write of the device to these pages.
    pub(crate) fn request(&self, pages: &Range<usize>, limit: Duration, buffers: &Buffers) -> Served {
        let world = &self.world;
        world.count(Count::Requests);
        let lost_before = world.is_lost();
        let begun = Begun { at: world.moments.next(), witness: world.kernel().memory.witness(pages.start) };
        let number = self.number;
        world.note(|| format!("a request to device {number} for {} begins", range_of(pages.clone())));
        let deadline = Deadline::after(limit);
        let asked = Asked { pages, deadline: &deadline, subscription: buffers.of(range_of(pages.clone())), begun };
        let since = sim::elapsed();
        let served = self.serve(&asked);
        self.check_time(sim::elapsed().saturating_sub(since), limit, served);
        world.note(|| format!("the request for {} ends: {served:?}", range_of(pages.clone())));
        if lost_before && matches!(served, Served::Kept { .. } | Served::OneShot) {
            world.fail(format!(
                "coherence was lost before the request for {} began, and it is served",
                range_of(pages.clone())
            ));
        }
        world.count(match served {
            Served::Kept { found: true, .. } => Count::Cached,
            Served::Kept { found: false, .. } => Count::Installed,
            Served::OneShot => Count::OneShotsInDoubt,
            Served::TimedOut => Count::TimedOut,
            Served::Refused => Count::Refusals,
            Served::Lost => Count::ToldLost,
        });
        served
    }

    /// A request ends by its deadline, but for what is waited for without one: a device lock, a section.
    fn check_time(&self, took: Duration, limit: Duration, served: Served) {
        let options = self.world.options;
        if options.deaf == 0 && took > limit + OVERDUE + LOCKED + options.slack() {
            self.world.fail(format!("a request with {limit:?} of time ended after {took:?}: {served:?}"));
        }
    }

    fn serve(&self, asked: &Asked<'_>) -> Served {
        loop {
            let lease = match self.get(asked) {
                Ok(lease) => lease,
                Err(served) => return served,
            };
            match self.use_once(asked, lease) {
                Some(served) => return served,
                None => self.world.count(Count::Stale),
            }
            if let Err(why) = self.check(asked.deadline) {
                return why;
            }
        }
    }

    fn get(&self, asked: &Asked<'_>) -> Result<Lease, Served> {
        let found = self.table.lock().find(asked.pages);
        match found {
            Some(registration) => Ok(Lease::Kept { registration, found: true, collisions: 0 }),
            None => self.fault(asked),
        }
    }

    /// The collision-retry loop.
    fn fault(&self, asked: &Asked<'_>) -> Result<Lease, Served> {
        let world = &self.world;
        let Asked { pages, deadline, subscription, .. } = *asked;
        let range = range_of(pages.clone());
        let mut previous = None;
        for collisions in 0..MAX_COLLISIONS {
            // Planted in the device: the doubt is asked for before the token is taken.
            let asked_early = planted("doubt-before-token").then(|| world.space.doubt().overlaps(range));
            let reader = Reader { range, subscription, previous };
            let attempt = world.space.read_begin_as(&reader, deadline).map_err(ended)?;
            let began = world.moments.next();
            let in_doubt = asked_early.unwrap_or_else(|| world.space.doubt().overlaps(range));
            if in_doubt && world.options.control != NO_DOUBT {
                return Ok(Lease::OneShot);
            }
            if !world.watch(pages.clone()) {
                return Err(Served::Refused);
            }
            let tags = world.pin(pages.clone()).map_err(|_| Served::Refused)?;
            world.note(|| format!("device {} has pinned {range}", self.number));
            let registration = Registration::new(world, pages.clone(), tags, began);
            let mut table = self.table.lock();
            if let Some(registration) = table.find(pages) {
                return Ok(Lease::Kept { registration, found: true, collisions });
            }
            match table.commit(&attempt) {
                Commit::Permit(permit) => {
                    permit.install(Arc::clone(&registration));
                    return Ok(Lease::Kept { registration, found: false, collisions });
                }
                Commit::Collided(verdict) => {
                    drop(table);
                    previous = self.collided(range, previous, verdict);
                }
            }
            self.check(deadline)?;
        }
        world.count(Count::OneShotsContended);
        Ok(Lease::OneShot)
    }

    fn collided(&self, range: PageRange, previous: Option<Verdict>, verdict: Verdict) -> Option<Verdict> {
        self.world.count(Count::Retries);
        self.world.note(|| format!("device {} collided over {range}: {verdict:?}", self.number));
        thread::yield_now();
        // Once outrun, the exact answer is asked for to the end.
        previous.filter(|was| *was == Verdict::Outrun).or(Some(verdict))
    }

    /// One use: probe, enter the section, look at the gate, look at the lease, submit, leave. Nothing when the lease is stale.
    fn use_once(&self, asked: &Asked<'_>, lease: Lease) -> Option<Served> {
        let Asked { pages, deadline, begun, .. } = *asked;
        let (registration, served, kept) = match lease {
            Lease::Kept { registration, found, collisions } => (registration, Served::Kept { found, collisions }, true),
            Lease::OneShot => match self.world.pin(pages.clone()) {
                Ok(tags) => (
                    Registration::new(&self.world, pages.clone(), tags, self.world.moments.next()),
                    Served::OneShot,
                    false,
                ),
                Err(_) => return Some(Served::Refused),
            },
        };
        let gate = self.world.space.gate();
        loop {
            if let Err(why) = self.wait_quiet(deadline) {
                return Some(why);
            }
            match gate.enter() {
                Entered::Open(section) => {
                    return self.in_section(section, &registration, kept, begun).map(|content| {
                        self.complete(pages.start, content, begun.witness);
                        served
                    });
                }
                Entered::Raised => {
                    self.world.count(Count::Raised);
                    if let Err(why) = gate.wait_open(&Wait::new(deadline, gate)) {
                        return Some(interrupted(why));
                    }
                }
                Entered::Lost(_) => return Some(Served::Lost),
                Entered::Nested => self.world.fail("a section is found to be nested in none".to_owned()),
            }
        }
    }

    /// In the section: the lease is still valid, or nothing; then the device writes.
    fn in_section(&self, section: Section<'_>, registration: &Registration, kept: bool, begun: Begun) -> Option<u64> {
        let world = &self.world;
        world.kernel().sections += 1;
        let stale = kept && registration.is_stale();
        let mut written = None;
        if !stale {
            if world.strikes(world.options.overdue, Count::FaultOverdue) {
                world.note(|| "the section is not left".to_owned());
                sim::sleep(OVERDUE);
            }
            written = Some(self.submit(registration, kept, begun));
        }
        world.kernel().sections -= 1;
        drop(section);
        written
    }

    /// The device moves data, and the checker asks whether these are still the pages. Gives what the device wrote.
    fn submit(&self, registration: &Registration, kept: bool, begun: Begun) -> u64 {
        let world = &self.world;
        let now = world.moments.next();
        let mut kernel = world.kernel();
        let memory = &kernel.memory;
        let dead = |tag: &&u32| memory.tag(**tag).dead <= begun.at;
        // What was submitted in the section was submitted before the caller that took the pages could return.
        let outlived = |tag: &&u32| kept && memory.tag(**tag).returned <= now;
        let stale = registration.tags.iter().find(dead).map(|tag| memory.tag(*tag).page as usize);
        let outlived = registration.tags.iter().find(outlived).map(|tag| memory.tag(*tag).page as usize);
        kernel.memory.device_write(&registration.tags, now);
        let closed = kernel.is_closed();
        drop(kernel);
        if let Some(page) = stale {
            let at = range_of(page..page + 1);
            world.fail(format!("stale: a use gets the page at {at} that was known to be gone before it began"));
        }
        if let Some(page) = outlived
            && !closed
            && !world.is_lost()
        {
            let at = range_of(page..page + 1);
            world.fail(format!("stale: the caller that took the page at {at} has returned, and a use still gets it"));
        }
        now
    }

    /// The device has completed. If no call touched the page since the request began, the program finds what the device
    /// wrote.
    fn complete(&self, page: usize, content: u64, since: Witness) {
        self.world.pause(COMPLETION);
        let kernel = self.world.kernel();
        let unchanged = kernel.memory.unchanged(page, since);
        let found = kernel.memory.read(page);
        drop(kernel);
        // A later write, of the program or of a device, has a larger number.
        if unchanged && found.is_none_or(|(found, _)| found < content) {
            let at = range_of(page..page + 1);
            self.world
                .fail(format!("content is lost: the device wrote {content} at {at}, and the program finds {found:?}"));
        }
    }

    fn wait_quiet(&self, deadline: &Deadline<'_>) -> Result<(), Served> {
        if self.world.options.control == NO_PROBE {
            return Ok(());
        }
        for round in 0_u32.. {
            match self.world.probe() {
                Probe::Quiet => break,
                Probe::Lost(_) => return Err(Served::Lost),
                Probe::Changing => {}
            }
            self.check(deadline)?;
            match round {
                0..PROBE_YIELDS => {}
                PROBE_YIELDS..PROBE_NAPS => thread::yield_now(),
                _ => thread::sleep(PROBE_NAP),
            }
        }
        Ok(())
    }

    fn check(&self, deadline: &Deadline<'_>) -> Result<(), Served> {
        Wait::new(deadline, self.world.space.gate()).check().map_err(interrupted)
    }
}

fn interrupted(why: Interrupted) -> Served {
    match why {
        Interrupted::Expired(_) => Served::TimedOut,
        Interrupted::Lost => Served::Lost,
    }
}

fn ended(error: Error) -> Served {
    match error {
        Error::Lost { .. } => Served::Lost,
        _ => Served::TimedOut,
    }
}
