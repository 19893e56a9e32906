//! The options of a run: how large its world is, how it is scheduled, which faults it has.
//!
//! A seed chooses among them ("swarm"): most runs leave most faults out, so that each is also met without the others.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use pagemirror_core_sim::memory::LogSize;
use pagemirror_sync_sim::sim::Schedule;
use serde::Serialize;
use thiserror::Error;

/// Virtual time after which a run has hung: far above what any run needs.
const LIMIT: Duration = Duration::from_secs(3600);
/// Steps after which a run has hung in a loop: some fifty times what the longest run takes.
const MOST_STEPS: u64 = 5_000_000;
/// The factor by which the naps of a deaf run are longer: 10 ms become 1 s.
const DEAF: u32 = 100;
/// Preemptions that an actor may have in a row within one call, and as long without any.
const PREEMPTIONS: u32 = 10;
const MOMENT: Duration = Duration::from_micros(100);

/// A run with the probe left out.
pub(crate) const NO_PROBE: u32 = 1;
/// A run whose pump reads events before the gate is up.
pub(crate) const READ_FIRST: u32 = 2;
/// A run whose prover does not look.
pub(crate) const NO_PROOF: u32 = 3;
/// A run whose devices do not ask for doubts.
pub(crate) const NO_DOUBT: u32 = 4;
/// A run whose kernel does not copy pinned pages for a child.
pub(crate) const FORK_SHARES: u32 = 5;

/// The setting that sets every option to its simplest value; what the seed chose is then forgotten.
pub const SIMPLEST: &str = "simplest";

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident = $simple:literal,)*) => {
        /// What a run is made of. See the module's text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub struct Options {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Options {
            /// Every option, with the value that a shrunk run is drawn to.
            pub const SIMPLEST: &[(&str, u32)] = &[$((stringify!($name), $simple),)*];

            /// The value of an option by its name.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<u32> {
                match name {
                    $(stringify!($name) => Some(self.$name),)*
                    _ => None,
                }
            }

            /// Sets an option by its name. Says whether there is one.
            pub fn set(&mut self, name: &str, value: u32) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }

            /// The smallest world, without a fault.
            #[must_use]
            pub fn simplest() -> Self {
                Self { $($name: $simple,)* }
            }
        }
    };
}

options! {
    /// Devices, each with a table of its own.
    devices = 1,
    /// Actors that use each device.
    workers = 1,
    /// Requests that each of them makes.
    requests = 1,
    /// Threads that change memory.
    mutators = 1,
    /// How many of them call through the library's wrappers, which know the true start and end.
    wrapped = 0,
    /// Calls that each of them makes.
    calls = 1,
    /// Buffers: stretches of memory that are mapped and unmapped as one.
    regions = 1,
    /// Pages of each.
    pages = 1,
    /// The longest time between two calls or requests of one actor, in microseconds.
    think_us = 1,
    /// Whether requests have no time: their deadline is shorter than what they may have to wait for.
    hasty = 0,
    /// How long a device takes to pin, at most, in microseconds.
    pin_us = 1,
    /// Whether devices make their buffers known to the tracker beforehand.
    subscribed = 0,
    /// Whether the known flaw of range-valid is mended, so that other mistakes can be seen beside it.
    mend = 0,
    /// Whether the tracker's sequence wraps round after a few invalidations.
    wrap = 0,
    /// Entries of the log's ring.
    ring = 1024,
    /// Running slots.
    running = 64,
    /// Reader slots.
    readers = 64,
    /// Doubts that are kept apart.
    doubts = 64,
    /// Events in one batch of the pump.
    batch = 256,
    /// Messages of one read.
    messages = 16,
    /// Counters for sections.
    counters = 16,
    /// Switch points between two switches.
    switch_every = 1,
    /// The longest ordinary pause, in nanoseconds.
    jitter_ns = 100,
    /// One pause in so many is a preemption.
    preempt_one_in = 0,
    /// The longest preemption, in microseconds.
    preempted_us = 100,
    /// Whether timed waits hear nothing but their notification.
    deaf = 0,
    /// One wrapped call in so many is refused after its start, which is cancelled.
    refused = 0,
    /// One callback in so many takes long.
    slow_callback = 0,
    /// One released caller in so many gets no processor for long.
    late_caller = 0,
    /// One wrapped call in so many stays long between its start and the change.
    slow_invalidation = 0,
    /// One section in so many is not left in time.
    overdue = 0,
    /// One call of a mutator in so many is a fork.
    fork = 0,
    /// Whether the first region is a huge page.
    huge = 0,
    /// One turn of the pump in so many stands still until the watchdog acts.
    stalled_pump = 0,
    /// One callback in so many panics.
    panicking = 0,
    /// Whether the descriptor is closed at some moment.
    closed = 0,
    /// Whether coherence is declared lost at some moment, while calls go on.
    lost = 0,
    /// Leaves one part of the protocol out, to show that it is needed and that its lack is seen: 1 no probe, 2 events are
    /// read before the gate is up, 3 doubts end without proof, 4 doubts are not asked for, 5 a fork shares pinned pages.
    control = 0,
}

/// Why text is no option.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OptionError {
    /// It has no `=`.
    #[error("{0:?} is no option: write name=value")]
    NoValue(String),
    /// The value is no number.
    #[error("the value of {0:?} is no number")]
    NoNumber(String),
    /// There is none of this name.
    #[error("there is no option {0:?}; the options are: {names}", names = names())]
    Unknown(String),
}

fn names() -> String {
    Options::SIMPLEST.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// One `name=value` of the command line, or [`SIMPLEST`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    name: String,
    value: u32,
}

impl Setting {
    pub(crate) fn new(name: &str, value: u32) -> Self {
        Self { name: name.to_owned(), value }
    }
}

impl FromStr for Setting {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        if text.trim() == SIMPLEST {
            return Ok(Self::new(SIMPLEST, 0));
        }
        let (name, value) = text.split_once('=').ok_or_else(|| OptionError::NoValue(text.to_owned()))?;
        let value = value.trim().parse().map_err(|_| OptionError::NoNumber(name.to_owned()))?;
        let name = name.trim().replace('-', "_");
        if Options::simplest().get(&name).is_none() {
            return Err(OptionError::Unknown(name));
        }
        Ok(Self { name, value })
    }
}

impl Options {
    /// What the seed chooses.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5eed_0f0a_11fa_17e5);
        let mut options = Self::simplest();
        options.draw_world(&mut rng);
        options.draw_sizes(&mut rng);
        options.draw_schedule(&mut rng);
        options.draw_faults(&mut rng);
        options.draw_theme(&mut rng);
        options
    }

    /// These options with some of them set.
    #[must_use]
    pub fn with(mut self, settings: &[Setting]) -> Self {
        for setting in settings {
            if setting.name == SIMPLEST {
                self = Self::simplest();
            } else {
                self.set(&setting.name, setting.value);
            }
        }
        self
    }

    fn draw_world(&mut self, rng: &mut Rng) {
        self.devices = rng.u32(1..=3);
        self.workers = rng.u32(1..=2);
        self.requests = rng.u32(20..=150);
        self.mutators = rng.u32(1..=4);
        self.wrapped = if rng.bool() { rng.u32(0..=self.mutators) } else { 0 };
        self.calls = rng.u32(20..=150);
        self.regions = rng.u32(1..=4);
        self.pages = rng.u32(1..=6);
        self.think_us = one_of(rng, &[1, 5, 20, 100]);
        self.hasty = u32::from(rng.u32(..8) == 0);
        self.pin_us = one_of(rng, &[1, 2, 10, 50]);
        self.subscribed = rng.u32(0..=1);
    }

    /// Some runs put together what shows a kind of mistake that needs several things at once.
    fn draw_theme(&mut self, rng: &mut Rng) {
        match rng.u32(..24) {
            // Waiting in the log while coherence is declared lost.
            0 => {
                (self.lost, self.deaf, self.hasty, self.slow_invalidation) = (1, 1, 0, 2);
                self.wrapped = self.mutators;
            }
            // Outrun at every attempt.
            1 => {
                (self.ring, self.regions, self.think_us, self.mutators) = (rng.u32(1..=2), 1, 1, 4);
                (self.wrapped, self.pin_us, self.preempt_one_in) = (4, 50, 20);
            }
            // An early end of doubt, or a late beginning.
            2 => (self.late_caller, self.doubts, self.regions, self.think_us) = (1, 64, 1, 5),
            // Many invalidations of few ranges at once, none of them short.
            3 => {
                (self.wrapped, self.regions, self.running, self.slow_invalidation) = (self.mutators, 2, 64, 2);
            }
            // Preempted at every other step, for about as long as a call takes.
            4 => {
                (self.switch_every, self.preempt_one_in, self.preempted_us) = (1, 5, 200);
                (self.regions, self.think_us, self.jitter_ns) = (1, 5, 50);
            }
            _ => {}
        }
    }

    fn draw_sizes(&mut self, rng: &mut Rng) {
        self.wrap = u32::from(rng.u32(..4) == 0);
        self.ring = one_of(rng, &[1, 2, 4, 8, 1024]);
        self.running = one_of(rng, &[1, 2, 4, 64, 64]);
        self.readers = one_of(rng, &[1, 2, 64]);
        self.doubts = one_of(rng, &[1, 4, 64, 64]);
        self.batch = one_of(rng, &[2, 4, 256, 256, 256]);
        self.messages = one_of(rng, &[1, 2, 16]);
        self.counters = one_of(rng, &[1, 2, 16]);
    }

    fn draw_schedule(&mut self, rng: &mut Rng) {
        self.switch_every = one_of(rng, &[1, 2, 4, 16]);
        self.jitter_ns = one_of(rng, &[50, 200, 1000, 5000]);
        self.preempt_one_in = one_of(rng, &[0, 30, 100, 400]);
        self.preempted_us = one_of(rng, &[20, 100, 500, 2000]);
        self.deaf = u32::from(self.hasty == 0 && rng.u32(..4) == 0);
    }

    fn draw_faults(&mut self, rng: &mut Rng) {
        let mut rate = |one_in: u32, rates: &[u32]| if rng.u32(..one_in) == 0 { one_of(rng, rates) } else { 0 };
        self.late_caller = rate(2, &[1, 2, 8]);
        self.slow_callback = rate(4, &[2, 8, 30]);
        self.refused = rate(4, &[2, 8]);
        self.slow_invalidation = rate(4, &[2, 8]);
        self.fork = rate(4, &[4, 10]);
        self.huge = rate(8, &[1]);
        self.overdue = rate(16, &[20, 100]);
        self.stalled_pump = rate(24, &[20, 60]);
        self.panicking = rate(24, &[30, 100]);
        self.closed = rate(24, &[1]);
        self.lost = rate(16, &[1]);
    }

    /// The sizes of the log.
    #[must_use]
    pub fn log_size(&self) -> LogSize {
        LogSize { ring: self.ring as usize, running: self.running as usize, readers: self.readers as usize }
    }

    /// What an actor may lose by preemption within one call.
    #[must_use]
    pub fn slack(&self) -> Duration {
        (MOMENT + Duration::from_micros(u64::from(self.preempted_us))) * PREEMPTIONS
    }

    /// How a run with these options and this seed is scheduled.
    #[must_use]
    pub fn schedule(&self, seed: u64) -> Schedule {
        Schedule {
            seed,
            switch_every: self.switch_every,
            jitter: u64::from(self.jitter_ns),
            preempt_one_in: self.preempt_one_in,
            preempted: u64::from(self.preempted_us) * 1000,
            deaf: if self.deaf > 0 { DEAF } else { 1 },
            limit: LIMIT,
            most_steps: MOST_STEPS,
        }
    }

    /// These options as the command line takes them: the simplest, and what differs from it.
    #[must_use]
    pub fn differences(&self) -> String {
        let differs = |&&(name, simple): &&(&str, u32)| self.get(name) != Some(simple);
        let text = |&(name, _): &(&str, u32)| format!("{name}={}", self.get(name).unwrap_or_default());
        let differing = Self::SIMPLEST.iter().filter(differs).map(text);
        std::iter::once(SIMPLEST.to_owned()).chain(differing).collect::<Vec<_>>().join(",")
    }
}

fn one_of(rng: &mut Rng, choices: &[u32]) -> u32 {
    choices[rng.usize(..choices.len())]
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |&(name, _): &(&str, u32)| format!("{name}={}", self.get(name).unwrap_or_default());
        f.write_str(&Self::SIMPLEST.iter().map(text).collect::<Vec<_>>().join(","))
    }
}
