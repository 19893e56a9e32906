//! Device reads and writes beside munmap, MAP_FIXED, mremap and discards of the same pages, judged by two oracles.
//!
//! *Translations.* A translation's frame names the look of the host that it came from. Whoever changes a region notes how
//! many looks had begun before the change, and publishes that once the change has returned: an access that begins later and
//! uses a translation that is not newer is stale (G1). A control keeps what it has walked, as a device whose
//! TLB nobody flushes, and is caught by the same oracle.
//!
//! *Contents.* Each change starts a generation and fills the region with its tag. What a read gives must be a generation that
//! the region had between begin and end of the read, or zeros while a change is under way. What a device write has stored
//! must be there for the CPU, unless the region has changed since.

#[path = "../../linux/tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pagemirror_core::addr::VirtAddr;
use pagemirror_core::mirror::FaultErrorKind;
use pagemirror_core::table::UNIT_PAGES;
use pagemirror_core::wait::Deadline;
use pagemirror_dmirror::{Accelerator, Error};
use pagemirror_linux::{Config, Control, ProcessSpace};
use support::{Memory, PAGE, in_child, source, source_with};

/// How long each run takes at least.
const TIME: Duration = Duration::from_millis(2500);
/// The first ways to change a region announce what they have done; the others are discards, which put it in doubt.
const ALL_WAYS: usize = 5;
const WITHOUT_DISCARDS: usize = 3;
/// How long it may take until each side has done enough.
const LIMIT: Duration = Duration::from_secs(60);
/// Where the regions lie: far below everything that the kernel places, so nobody else is given an address that is free.
const AREA: usize = 0x2100_0000_0000;
const REGIONS: usize = 3;
const PAGES: usize = 4;
/// The first bytes of each page hold a word for each writer; the rest is the tag.
const SLOTS: usize = 64;
const WORD: usize = size_of::<u64>();
/// Different tags; none is zero.
const TAGS: u64 = 251;

struct Region {
    memory: Memory,
    aside: usize,
    /// Held by who changes the region, and by who looks at it by the CPU.
    changing: Mutex<()>,
    started: AtomicU64,
    done: AtomicU64,
    /// Looks that are older than the last change that has returned.
    old_looks: AtomicU64,
}

#[derive(Default)]
struct Tally {
    changes: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    judged_writes: AtomicU64,
    between: AtomicU64,
    stale_translations: AtomicU64,
    stale_bytes: AtomicU64,
    lost_writes: AtomicU64,
    wrong_errors: AtomicU64,
    walks: AtomicU64,
    control_stale: AtomicU64,
}

struct World {
    ways: usize,
    host: Arc<ProcessSpace>,
    devices: [Accelerator; 2],
    regions: Vec<Region>,
    tally: Tally,
    stop: AtomicBool,
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, SeqCst);
}

fn tag(generation: u64) -> u8 {
    (generation % TAGS) as u8 + 1
}

/// A generator of small numbers, each thread with its own.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

impl Region {
    fn new(number: usize) -> Self {
        let start = AREA + number * 64 * PAGE;
        let memory = Memory::anonymous_at(start, PAGES);
        let counter = || AtomicU64::new(0);
        let aside = start + 32 * PAGE;
        let region =
            Self { memory, aside, changing: Mutex::new(()), started: counter(), done: counter(), old_looks: counter() };
        region.fill(0);
        region
    }

    fn fill(&self, generation: u64) {
        for page in 0..PAGES {
            let page = self.memory.part(page, 1);
            Memory { start: page.start + SLOTS, len: PAGE - SLOTS }.fill(tag(generation));
        }
    }

    fn address(&self, offset: usize) -> VirtAddr {
        VirtAddr::new((self.memory.start + offset) as u64)
    }

    /// Changes the mapping in one of five ways, then fills the next generation.
    fn change(&self, host: &ProcessSpace, way: usize) {
        let _held = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.started.fetch_add(1, SeqCst) + 1;
        let looks = host.looks();
        match way {
            0 => {
                self.memory.unmap();
                self.old_looks.fetch_max(looks, SeqCst);
                Memory::anonymous_at(self.memory.start, PAGES);
            }
            1 => drop(Memory::anonymous_at(self.memory.start, PAGES)),
            2 => {
                // Page by page: where only a part is watched it is a mapping of its own, and mremap takes one at a time.
                for page in 0..PAGES {
                    self.memory.part(page, 1).move_to(self.aside + page * PAGE);
                }
                self.old_looks.fetch_max(looks, SeqCst);
                Memory::anonymous_at(self.memory.start, PAGES);
                Memory { start: self.aside, len: self.memory.len }.unmap();
            }
            3 => self.memory.advise(libc::MADV_DONTNEED),
            _ => {
                let part = self.memory.part(1, 2);
                part.unmap();
                Memory::anonymous_at(part.start, 2);
                self.memory.advise(libc::MADV_DONTNEED);
            }
        }
        self.old_looks.fetch_max(looks, SeqCst);
        self.fill(generation);
        self.done.store(generation, SeqCst);
    }

    fn has_changed_since(&self, generation: u64) -> bool {
        self.started.load(SeqCst) != generation
    }
}

impl World {
    fn run(self: &Arc<Self>, name: &str, work: fn(&Self, u64, &mut Dice), seed: u64) -> thread::JoinHandle<()> {
        let world = Arc::clone(self);
        let body = move || {
            let mut dice = Dice(0x9e37_79b9 * (seed + 1));
            while !world.stop.load(SeqCst) {
                work(&world, seed, &mut dice);
            }
        };
        thread::Builder::new().name(name.into()).spawn(body).unwrap()
    }

    fn mutate(&self, _seed: u64, dice: &mut Dice) {
        self.regions[dice.roll(REGIONS)].change(&self.host, dice.roll(self.ways));
        add(&self.tally.changes, 1);
        thread::sleep(Duration::from_micros(dice.roll(300) as u64));
    }

    fn read(&self, seed: u64, dice: &mut Dice) {
        let region = &self.regions[dice.roll(REGIONS)];
        let mut bytes = [0xee; PAGES * PAGE];
        let (since, old_looks) = (region.done.load(SeqCst), region.old_looks.load(SeqCst));
        let device = &self.devices[seed as usize % 2];
        let read = device.read(region.address(0), &mut bytes, &Deadline::after(Duration::from_secs(20)));
        let until = region.started.load(SeqCst);
        match read {
            Ok(transfer) => {
                add(&self.tally.reads, 1);
                let stale = transfer.oldest_look.is_some_and(|look| look <= old_looks);
                add(&self.tally.stale_translations, u64::from(stale));
                add(&self.tally.stale_bytes, wrong_bytes(&bytes, since, until));
            }
            Err(error) => self.judge(&error, until != since),
        }
    }

    /// Between two mappings there is nothing; at every other time an error is wrong.
    fn judge(&self, error: &Error, changing: bool) {
        let nothing =
            matches!(error, Error::Fault { source, .. } if matches!(source.kind, FaultErrorKind::BadAddress { .. }));
        if nothing && changing {
            add(&self.tally.between, 1);
        } else {
            add(&self.tally.wrong_errors, 1);
            eprintln!("wrong error: {error}");
        }
    }

    #[expect(unsafe_code, reason = "the device and the CPU look at the test's own memory")]
    fn write(&self, seed: u64, dice: &mut Dice) {
        let region = &self.regions[dice.roll(REGIONS)];
        let at = dice.roll(PAGES) * PAGE + seed as usize * WORD;
        let value = dice.0 | 1;
        let (since, old_looks) = (region.done.load(SeqCst), region.old_looks.load(SeqCst));
        let by = Deadline::after(Duration::from_secs(20));
        let device = &self.devices[seed as usize % 2];
        // SAFETY: a word of the area that nobody but this thread's device writes, and to which nothing refers.
        let written = unsafe { device.write(region.address(at), &value.to_ne_bytes(), &by) };
        let transfer = match written {
            Ok(transfer) => transfer,
            Err(error) => return self.judge(&error, region.has_changed_since(since)),
        };
        add(&self.tally.writes, 1);
        let stale = transfer.oldest_look.is_some_and(|look| look <= old_looks);
        add(&self.tally.stale_translations, u64::from(stale));
        let _held = region.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if region.has_changed_since(since) {
            return;
        }
        let word: *const u64 = std::ptr::with_exposed_provenance(region.memory.start + at);
        // SAFETY: mapped and readable, since nobody changes the region while its lock is held.
        let found = unsafe { word.read_volatile() };
        add(&self.tally.judged_writes, 1);
        add(&self.tally.lost_writes, u64::from(found != value));
    }

    /// A device that walks its table once and goes on using what it found.
    fn keep_what_was_walked(&self, _seed: u64, dice: &mut Dice) {
        let region = &self.regions[dice.roll(REGIONS)];
        let page = self.devices[0].mirror().table().walk(region.address(0));
        for _ in 0..50 {
            thread::sleep(Duration::from_micros(20));
            let stale = page.is_valid() && page.frame() / UNIT_PAGES as u64 <= region.old_looks.load(SeqCst);
            add(&self.tally.walks, 1);
            add(&self.tally.control_stale, u64::from(stale));
        }
    }
}

/// Bytes that are of no generation between the two, both included, and of no change under way.
fn wrong_bytes(bytes: &[u8], since: u64, until: u64) -> u64 {
    let possible = |byte: u8| (since..=until).any(|generation| tag(generation) == byte) || (byte == 0 && until > since);
    let tags = bytes.chunks(PAGE).flat_map(|page| &page[SLOTS..]);
    tags.filter(|byte| !possible(**byte)).count() as u64
}

#[test]
fn the_oracle_finds_a_byte_of_an_older_generation() {
    let bytes = vec![tag(4); PAGE];
    assert_eq!(wrong_bytes(&bytes, 4, 4), 0);
    assert_eq!(wrong_bytes(&bytes, 3, 5), 0);
    assert_eq!(wrong_bytes(&bytes, 5, 6), (PAGE - SLOTS) as u64);
    assert_eq!(wrong_bytes(&vec![0; PAGE], 5, 5), (PAGE - SLOTS) as u64);
}

/// What a run found, beside the tally: whether each side did enough of its work.
fn run(host: &Arc<ProcessSpace>, ways: usize, first_region: usize) -> Arc<World> {
    let device = || Accelerator::new(Arc::clone(host));
    let world = Arc::new(World {
        ways,
        devices: [device(), device()],
        host: Arc::clone(host),
        regions: (first_region..first_region + REGIONS).map(Region::new).collect(),
        tally: Tally::default(),
        stop: AtomicBool::new(false),
    });
    let begun = Instant::now();
    let workers = [
        world.run("mutator", World::mutate, 0),
        world.run("mutator", World::mutate, 1),
        world.run("reader", World::read, 2),
        world.run("reader", World::read, 3),
        world.run("writer", World::write, 4),
        world.run("writer", World::write, 5),
        world.run("control", World::keep_what_was_walked, 6),
    ];
    // The machine may be busy: the run goes on until each side has done something.
    while begun.elapsed() < TIME || (!world.did_enough() && begun.elapsed() < LIMIT) {
        thread::sleep(Duration::from_millis(20));
    }
    world.stop.store(true, SeqCst);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    world.print(begun.elapsed());
    world
}

impl World {
    fn did_enough(&self) -> bool {
        let t = &self.tally;
        [&t.changes, &t.reads, &t.judged_writes].iter().all(|counter| counter.load(SeqCst) > 100)
            && (self.ways > WITHOUT_DISCARDS || t.control_stale.load(SeqCst) > 0)
    }

    fn print(&self, took: Duration) {
        let got = |counter: &AtomicU64| counter.load(SeqCst);
        let t = &self.tally;
        println!(
            "{} ways, {:.1} s: changes {}, reads {}, writes {} (judged {}), nothing there {}, stale uses of the control {} of {}",
            self.ways,
            took.as_secs_f64(),
            got(&t.changes),
            got(&t.reads),
            got(&t.writes),
            got(&t.judged_writes),
            got(&t.between),
            got(&t.control_stale),
            got(&t.walks),
        );
        println!("{:?}", self.devices.each_ref().map(Accelerator::stats));
    }

    fn assert_coherent(&self) {
        let (got, t) = (|counter: &AtomicU64| counter.load(SeqCst), &self.tally);
        assert!(self.did_enough(), "each side does enough within {LIMIT:?}");
        assert_eq!(got(&t.stale_translations), 0, "accesses by translations from before a change that had returned");
        assert_eq!(got(&t.stale_bytes), 0, "bytes of no possible generation");
        assert_eq!(got(&t.lost_writes), 0, "writes that the CPU does not find");
        assert_eq!(got(&t.wrong_errors), 0, "errors where something was mapped");
        for stats in self.devices.each_ref().map(Accelerator::stats) {
            assert_eq!(stats.false_retries, 0);
            assert!(stats.accesses > 0, "translations were used: {stats:?}");
        }
    }
}

/// First without discards, so that translations stand; then with them, where much is in doubt and goes by address.
#[test]
fn no_stale_read_and_no_lost_write_beside_changes_of_the_mappings() {
    let name = "no_stale_read_and_no_lost_write_beside_changes_of_the_mappings";
    let Some(source) = source(name) else { return };
    let host = Arc::new(ProcessSpace::new(source).unwrap());
    let reported = run(&host, WITHOUT_DISCARDS, 0);
    reported.assert_coherent();
    for stats in reported.devices.each_ref().map(Accelerator::stats) {
        assert!(stats.accesses > stats.uncached, "most accesses go through translations: {stats:?}");
    }
    run(&host, ALL_WAYS, REGIONS).assert_coherent();
}

/// The same with a pump that reads the events before it raises the gate: the oracle finds what the gate prevents.
#[test]
fn a_late_gate_lets_stale_translations_be_used() {
    let name = "a_late_gate_lets_stale_translations_be_used";
    in_child(name, Duration::from_secs(120), || {
        let control = Control { read_before_gate: true, ..Control::default() };
        let Some(source) = source_with(name, Config { control }) else { return };
        let host = Arc::new(ProcessSpace::new(source).unwrap());
        let found = (0..6).map(|round| run(&host, WITHOUT_DISCARDS, round * REGIONS));
        let stale = found.map(|world| world.tally.stale_translations.load(SeqCst)).find(|&stale| stale > 0);
        println!("stale translations used: {stale:?}");
        assert!(stale.is_some(), "nothing stale was found in six runs");
    });
}
