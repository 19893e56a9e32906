//! Work that a real program made: its address spaces as a trace has them, with a device that faults what is mapped.
//!
//! Each address space is a run of its own, from its first event to its last, because each has a tracker of its own. A
//! thread of the trace is an invalidator: its calls come when the trace says, or when its call before is over. Reserved
//! memory that cannot be read yet (`PROT_NONE`) counts as mapped until an mprotect says so, because a trace does not tell
//! with what rights a mapping was made.

use std::collections::{BTreeMap, VecDeque};

use pagemirror_core::addr::{MIN_PAGE, PageRange};
use serde::{Deserialize, Serialize};

use super::mapped::Mapped;
use super::synthetic::WorkingSet;
use super::{Fault, Job, Random, Workload};
use crate::drive::{Time, TimeModel};
use crate::trace::{Event, Operation, Trace};

/// The device that is put beside a traced program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOptions {
    /// The most ranges that it mirrors at once. When there are more, the oldest is forgotten.
    pub ranges: usize,
    /// Pages of each, aligned to their size; fewer where less is mapped.
    pub range_pages: u64,
    /// Faults in a second of the trace's time, all threads of the device together, each as soon as it is due and the
    /// thread's fault before is served.
    pub rate: u64,
    /// Threads of the device.
    pub threads: usize,
    /// Which of the mapped memory it faults.
    pub working_set: WorkingSet,
    /// Seed of every choice.
    pub seed: u64,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self { ranges: 4096, range_pages: 16, rate: 10_000, threads: 4, working_set: WorkingSet::Uniform, seed: 1 }
    }
}

/// The life of one address space: what was mapped when it began, and what happened to it.
#[derive(Debug, Clone)]
struct Life {
    inherited: Mapped,
    /// The events, by time since the first.
    events: Vec<(Time, Event)>,
    born: Time,
}

/// The lives of all the address spaces of a trace.
#[derive(Debug, Clone)]
pub struct Lives(Vec<Life>);

const MICROSECOND: Time = 1000;

impl Lives {
    /// Takes the trace apart.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let mut lives: Vec<Life> = Vec::new();
        let mut mapped = vec![Mapped::default(); trace.spaces()];
        for event in trace.events() {
            let space = event.space.0 as usize;
            let now = event.at_us * MICROSECOND;
            born(&mut lives, space, Mapped::default(), now);
            match event.operation {
                Operation::Fork { space: child, .. } => {
                    mapped[child.0 as usize] = mapped[space].clone();
                    born(&mut lives, child.0 as usize, mapped[space].clone(), now);
                }
                Operation::Exec { into, .. } => born(&mut lives, into.0 as usize, Mapped::default(), now),
                _ => {}
            }
            let life = &mut lives[space];
            life.events.push((now - life.born, *event));
            apply(&mut mapped[space], event.operation);
        }
        Self(lives)
    }

    /// The address spaces in which something happened, each as the work of a run and with the length of that run.
    pub fn spaces(&self, device: DeviceOptions, time: TimeModel) -> impl Iterator<Item = (TracedSpace, Time)> {
        let lived = self.0.iter().enumerate().filter(|(_, life)| !life.events.is_empty());
        lived.map(move |(number, life)| {
            let until = life.events.last().map_or(0, |(at, _)| *at);
            (TracedSpace::new(life, number as u64, device, time), until + TAIL)
        })
    }
}

/// How long a run goes on behind the last event, so that what is under way is served: a millisecond.
const TAIL: Time = 1_000_000;

/// An address space is there from `now` on, if it was not before. They are numbered as they come.
fn born(lives: &mut Vec<Life>, space: usize, inherited: Mapped, now: Time) {
    if lives.len() == space {
        lives.push(Life { inherited, events: Vec::new(), born: now });
    }
}

fn apply(mapped: &mut Mapped, operation: Operation) {
    match operation {
        Operation::Map(range) | Operation::Replace(range) | Operation::Grow(range) => mapped.map(range),
        Operation::Unmap(range) | Operation::Shrink(range) => mapped.unmap(range),
        Operation::Remap { old, new, keeps_old, .. } => {
            if !keeps_old {
                mapped.unmap(old);
            }
            mapped.map(new);
        }
        Operation::Protect(range, access) if access.read => mapped.map(range),
        Operation::Protect(range, _) => mapped.unmap(range),
        Operation::Exec { last: true, .. } | Operation::Exit { last: true } => mapped.unmap(PageRange::ALL),
        _ => {}
    }
}

/// One address space of a trace, as work.
#[derive(Debug)]
pub struct TracedSpace {
    device: DeviceOptions,
    time: TimeModel,
    /// The calls of each thread, in order.
    calls: Vec<VecDeque<(Time, Operation)>>,
    /// What each thread is doing, until it is done.
    doing: Vec<Option<Operation>>,
    mapped: Mapped,
    known: Known,
    forgotten: Vec<PageRange>,
    threads: Vec<DeviceThread>,
    preemption: Random,
}

#[derive(Debug)]
struct DeviceThread {
    random: Random,
    /// When its next fault is due.
    due: Time,
    /// It has waited for that, and chooses now.
    is_due: bool,
}

impl TracedSpace {
    fn new(life: &Life, space: u64, device: DeviceOptions, time: TimeModel) -> Self {
        let mut of_thread = BTreeMap::new();
        for (at, event) in life.events.iter().filter(|(_, event)| changes(event.operation)) {
            let calls: &mut VecDeque<_> = of_thread.entry(event.thread).or_default();
            calls.push_back((*at, event.operation));
        }
        let calls: Vec<_> = of_thread.into_values().collect();
        let stream = |number: u64| Random::new(device.seed, (space << 32) + number);
        let thread = |number| DeviceThread { random: stream(1 + number), due: 0, is_due: false };
        Self {
            device,
            time,
            doing: vec![None; calls.len()],
            calls,
            mapped: life.inherited.clone(),
            known: Known::default(),
            forgotten: Vec::new(),
            threads: (0..device.threads as u64).map(thread).collect(),
            preemption: stream(0),
        }
    }

    /// A chunk of what is mapped now, which the device knows from now on.
    fn choose(&mut self, device: usize) -> Option<PageRange> {
        let bytes = self.device.range_pages * MIN_PAGE;
        let count = self.mapped.chunks(bytes);
        let number = self.device.working_set.choose(count, &mut self.threads[device].random);
        let range = self.mapped.chunk(number, bytes)?;
        self.forgotten.extend(self.known.learn(range, self.device.ranges));
        Some(range)
    }
}

/// Whether the operation changes what is mapped, or invalidates something.
fn changes(operation: Operation) -> bool {
    !matches!(operation, Operation::Appear | Operation::Fork { .. } | Operation::Thread(_))
}

impl Workload for TracedSpace {
    fn invalidators(&self) -> usize {
        self.calls.len()
    }

    fn next_job(&mut self, invalidator: usize, _now: Time) -> Option<(Time, Job)> {
        let (at, operation) = self.calls[invalidator].pop_front()?;
        self.doing[invalidator] = Some(operation);
        let ranges: Vec<_> = operation.invalidates().into_iter().map(|(range, _)| range).collect();
        let pages = ranges.iter().map(|range| self.mapped.pages_in(*range)).sum();
        let preempted = self.time.is_preempted(&mut self.preemption);
        Some((at, Job { ranges, change: self.time.change_of(pages, preempted), number: invalidator }))
    }

    fn done(&mut self, job: &Job) {
        let Some(operation) = self.doing[job.number].take() else { return };
        apply(&mut self.mapped, operation);
        let gone = job.ranges.iter().filter(|range| self.mapped.pages_in(**range) == 0);
        self.forgotten.extend(gone.flat_map(|range| self.known.lose(*range)));
    }

    fn next_fault(&mut self, device: usize, now: Time) -> Option<Fault> {
        const SECOND: Time = 1_000_000_000;
        let thread = &mut self.threads[device];
        if std::mem::take(&mut thread.is_due) {
            return Some(Fault { at: now, range: self.choose(device) }).filter(|fault| fault.range.is_some()).or_else(
                // Nothing is mapped: the fault that was due does not take place.
                || self.next_fault(device, now),
            );
        }
        if self.device.rate == 0 {
            return None;
        }
        let mean = SECOND * self.device.threads as u64 / self.device.rate;
        thread.due += thread.random.around(mean).max(1);
        thread.is_due = true;
        Some(Fault { at: thread.due, range: None })
    }

    fn forgotten(&mut self) -> Vec<PageRange> {
        std::mem::take(&mut self.forgotten)
    }
}

/// The ranges that the device knows, and the order in which it came to know them.
#[derive(Debug, Default)]
struct Known {
    by_start: BTreeMap<(u64, u64), u64>,
    by_age: BTreeMap<u64, PageRange>,
    learned: u64,
}

impl Known {
    /// Knows `range` from now on; answers what is forgotten for it.
    fn learn(&mut self, range: PageRange, most: usize) -> Option<PageRange> {
        let key = (range.start().get(), range.end().get());
        if self.by_start.contains_key(&key) {
            return None;
        }
        self.learned += 1;
        self.by_start.insert(key, self.learned);
        self.by_age.insert(self.learned, range);
        if self.by_age.len() <= most {
            return None;
        }
        let (_, oldest) = self.by_age.pop_first()?;
        self.by_start.remove(&(oldest.start().get(), oldest.end().get()));
        Some(oldest)
    }

    /// Knows nothing that lies in `gone` any more; answers what that was.
    fn lose(&mut self, gone: PageRange) -> Vec<PageRange> {
        let inside = self.by_start.range((gone.start().get(), 0)..(gone.end().get(), 0));
        let lost: Vec<_> = inside.filter(|((_, end), _)| *end <= gone.end().get()).map(|(k, v)| (*k, *v)).collect();
        let forget = |(key, age): &((u64, u64), u64)| {
            self.by_start.remove(key);
            self.by_age.remove(age)
        };
        lost.iter().filter_map(forget).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagemirror_core::addr::VirtAddr;

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::covering(VirtAddr::new(first * MIN_PAGE), count * MIN_PAGE, MIN_PAGE).unwrap()
    }

    #[test]
    fn the_oldest_range_is_forgotten_and_unmapped_ones_are_lost() {
        let mut known = Known::default();
        assert_eq!([known.learn(pages(8, 4), 2), known.learn(pages(16, 4), 2), known.learn(pages(8, 4), 2)], [None; 3]);
        assert_eq!(known.learn(pages(24, 4), 2), Some(pages(8, 4)));
        assert_eq!(known.lose(pages(17, 100)), [pages(24, 4)]);
        assert_eq!(known.lose(PageRange::ALL), [pages(16, 4)]);
    }
}
