//! One run: a safety phase with faults, then a liveness phase without.
//!
//! # Safety phase
//! Mutators, workers, pump, prover, watchdog and faults run beside each other; checkers look at every answer and every use.
//!
//! # Liveness phase
//! The mutators have ended and no fault strikes any more. Now everything must come to rest, within bounded virtual time:
//! doubts end, the gate opens, nothing runs in the log, every request is served from what is kept, with no more than one
//! collision, and what devices keep is true.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use pagemirror_core_sim::addr::PageRange;
use pagemirror_core_sim::collision::CollisionTracker;
use pagemirror_core_sim::wait::{Deadline, Wait};
use pagemirror_sync_sim::atomic::AtomicU64;
use pagemirror_sync_sim::sim;

use super::actors;
use super::counts::{Count, Counts};
use super::device::{Buffers, Device, Served};
use super::mutator::{Mutator, work};
use super::observe::{Claims, Observed};
use super::options::Options;
use super::world::{Step, World};

/// Virtual time in which everything must come to rest once nobody disturbs it: far above a few naps of the prover.
const REST: Duration = Duration::from_millis(100);
/// The time between two looks whether it has.
const LOOK: Duration = Duration::from_micros(50);

/// Makes a tracker for a run with these options.
pub(crate) type Build = dyn Fn(&Options) -> Box<dyn CollisionTracker> + Send + Sync;

/// The tracker that is tried, and what it claims.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) build: Arc<Build>,
    pub(crate) claims: Claims,
}

/// What one run gave.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// What it was made of.
    pub options: Options,
    /// What was found.
    pub finding: Option<String>,
    /// What happened.
    pub counts: Counts,
    /// Scheduling steps.
    pub steps: u64,
    /// Virtual time.
    pub virtual_time: Duration,
    /// Two runs with the same digest took the same steps.
    pub digest: u64,
    /// What the actors did, where it was asked for.
    pub trace: Vec<Step>,
    /// The actors by number.
    pub actors: Vec<String>,
}

/// Runs one seed.
pub(crate) fn run(seed: u64, options: Options, subject: &Subject, traced: bool) -> Run {
    let claims = Claims { mends_range_valid: options.mend > 0, ..subject.claims };
    let world = World::new(options, Observed::new((subject.build)(&options), claims, options.slack()), traced);
    let inside = Arc::clone(&world);
    let outcome = sim::run(options.schedule(seed), move || phases(&inside));
    let hung = (!outcome.unfinished.is_empty()).then(|| format!("blocked for ever: {}", outcome.unfinished.join(", ")));
    let found = outcome.finding.or(hung.map(|hung| (0, hung)));
    let mut trace = world.take_trace();
    if let Some((actor, what)) = found.as_ref().filter(|_| traced) {
        trace.push(Step { at: outcome.virtual_time, actor: *actor, what: format!("FOUND: {what}") });
    }
    Run {
        seed,
        options,
        finding: found.map(|(_, what)| what),
        counts: world.counts(),
        steps: outcome.steps,
        virtual_time: outcome.virtual_time,
        digest: outcome.digest,
        trace,
        actors: names(&options),
    }
}

/// The names of the actors, in the order in which they are spawned.
fn names(options: &Options) -> Vec<String> {
    let fixed = ["the run", "pump", "prover", "watchdog", "breaker"].map(str::to_owned);
    let mutators = (0..options.mutators).map(|number| format!("mutator {number}"));
    let workers = (0..options.devices)
        .flat_map(|device| (0..options.workers).map(move |worker| format!("worker {worker} of device {device}")));
    fixed.into_iter().chain(mutators).chain(workers).collect()
}

fn phases(world: &Arc<World>) {
    let options = world.options;
    let devices = (0..options.devices as usize).map(|number| Device::new(world, number));
    let devices: Arc<Vec<Device>> = Arc::new(devices.collect());
    for region in 0..options.regions as usize {
        world.mmap(options.region(region));
    }
    let mut names = names(&options).into_iter().skip(1);
    let mut spawn = |body: Body| sim::spawn_named(names.next().unwrap_or_default(), body);
    let library: Vec<_> = library(world).into_iter().map(&mut spawn).collect();
    let program: Vec<_> = program(world, &devices).into_iter().map(&mut spawn).collect();
    join(program);
    liveness(world, &devices);
    world.stop();
    join(library);
}

type Body = Box<dyn FnOnce() + Send>;

/// The library's threads, and who breaks things, in the order of their names.
fn library(world: &Arc<World>) -> Vec<Body> {
    let options = world.options;
    let threads = (options.mutators + options.devices * options.workers + 1) as usize;
    let turns = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    let shared = || Arc::clone(world);
    let (pumping, proving, watching, breaking) = (shared(), shared(), shared(), shared());
    vec![
        Box::new(move || actors::pump(&pumping, &counted)),
        Box::new(move || actors::prover(&proving, threads)),
        Box::new(move || actors::watchdog(&watching, &turns)),
        Box::new(move || actors::breaker(&breaking)),
    ]
}

/// The program's threads: those that change memory, then the workers of each device.
fn program(world: &Arc<World>, devices: &Arc<Vec<Device>>) -> Vec<Body> {
    let options = world.options;
    let mut bodies: Vec<Body> = Vec::new();
    for thread in 0..options.mutators {
        let (world, devices) = (Arc::clone(world), Arc::clone(devices));
        let mutator = Mutator { world, devices, thread: thread as usize, wrapped: thread < options.wrapped };
        bodies.push(Box::new(move || mutator.run()));
    }
    for worker in 0..options.devices * options.workers {
        let device = (worker / options.workers) as usize;
        let (world, devices) = (Arc::clone(world), Arc::clone(devices));
        bodies.push(Box::new(move || work(&world, &devices[device])));
    }
    bodies
}

fn join(actors: Vec<sim::JoinHandle<()>>) {
    for actor in actors {
        let _ = actor.join();
    }
}

fn liveness(world: &Arc<World>, devices: &[Device]) {
    world.note(|| "the liveness phase begins".to_owned());
    world.calm_down();
    let options = world.options;
    for region in 0..options.regions as usize {
        map_all(world, options.region(region));
    }
    rest(world, "events are read", || !world.kernel().is_readable());
    if world.is_lost() {
        world.count(Count::LostRuns);
        return lost_for_ever(world, devices);
    }
    let deadline = Deadline::after(REST);
    // A turn that has read events holds the gate until what they name is in doubt and revoked.
    if let Err(why) = world.space.gate().wait_open(&Wait::new(&deadline, world.space.gate())) {
        world.fail(format!("the gate stays raised though nobody disturbs it: {why:?}"));
    }
    rest(world, "doubts end", || !world.space.doubt().any());
    let deadline = Deadline::after(REST);
    match world.space.read_begin(PageRange::ALL, None, &deadline) {
        Ok(attempt) if attempt.waited() => world.fail("an invalidation runs though nobody disturbs it".to_owned()),
        Ok(_) => {}
        Err(error) => world.fail(format!("an invalidation never ends: {error}")),
    }
    let mut buffers = Buffers::known(world);
    for device in devices {
        for region in 0..options.regions as usize {
            served_from_the_cache(world, device, options.region(region), &buffers);
        }
        if let Some(range) = device.first_untrue() {
            world.fail(format!("a device keeps {range}, which is not true any more, and nothing revokes it"));
        }
    }
    if let Err(why) = buffers.forget(world, &deadline) {
        world.fail(format!("a buffer cannot be forgotten though nobody disturbs it: {why:?}"));
    }
}

/// Maps what is not mapped, and allows what is forbidden.
fn map_all(world: &World, region: Range<usize>) {
    world.mprotect(region.clone(), false);
    let pages: Vec<_> = region.clone().filter(|page| world.kernel().memory.is_free(*page..page + 1)).collect();
    if pages.len() == region.len() {
        world.mmap(region);
    } else {
        for page in pages {
            world.mmap(page..page + 1);
        }
    }
}

/// Waits until something is so, which it must be soon.
fn rest(world: &World, what: &str, so: impl Fn() -> bool) {
    let since = sim::elapsed();
    while !so() {
        if sim::elapsed().saturating_sub(since) > REST {
            world.fail(format!("nobody disturbs it, and still it is not so after {REST:?} that {what}"));
        }
        sim::sleep(LOOK);
    }
}

/// Nobody disturbs: a request is served at once and kept, and the next one finds it.
fn served_from_the_cache(world: &World, device: &Device, region: Range<usize>, buffers: &Buffers) {
    let since = sim::elapsed();
    let (first, second) = (device.request(&region, REST, buffers), device.request(&region, REST, buffers));
    let kept = matches!(first, Served::Kept { collisions: 0..=1, .. });
    let found = matches!(second, Served::Kept { found: true, .. });
    let took = sim::elapsed().saturating_sub(since);
    if !kept || !found || took > REST {
        world.fail(format!(
            "nobody disturbs it, and a request is not served from what is kept: {first:?}, then {second:?}, in {took:?}"
        ));
    }
}

/// Once lost, every request says so, and soon.
fn lost_for_ever(world: &World, devices: &[Device]) {
    for device in devices {
        let since = sim::elapsed();
        let served = device.request(&world.options.region(0), REST, &Buffers::default());
        let took = sim::elapsed().saturating_sub(since);
        if served != Served::Lost || took > REST {
            world.fail(format!("coherence is lost, and a request ends with {served:?} after {took:?}"));
        }
    }
}
