//! Threads of the program: they change memory, and use it at once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use pagemirror_core_sim::collision::CollisionTracker;
use pagemirror_core_sim::notify::Event;
use pagemirror_core_sim::wait::Deadline;
use pagemirror_sync_sim::sim;

use super::counts::Count;
use super::device::{Buffers, Device, Served};
use super::memory::range_of;
use super::world::World;

/// How long requests may take. Runs that are deaf to time cannot end at a deadline in time, so theirs is never reached.
pub(crate) const DEADLINE: Duration = Duration::from_millis(100);
/// As short as a late caller may make a request wait.
const HASTY: Duration = Duration::from_micros(300);
/// How long a slow invalidation stays between its start and the change, at most: longer than anybody who was told of
/// something else may be late.
const SLOW: u64 = 600_000_000;

/// One thread of the program.
pub(crate) struct Mutator {
    pub(crate) world: Arc<World>,
    pub(crate) devices: Arc<Vec<Device>>,
    pub(crate) thread: usize,
    /// Its calls go through the wrappers.
    pub(crate) wrapped: bool,
}

/// A call that a thread may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Unmap,
    Replace,
    Discard,
    Free,
    Protect,
}

impl Mutator {
    /// Makes its calls.
    pub(crate) fn run(&self) {
        for _ in 0..self.world.options.calls {
            self.world.think();
            let touched = self.step();
            // Who was just told that pages are gone, or was just given an address, is who notices what is stale.
            if sim::random(3) == 0 {
                self.request(&touched);
            }
        }
    }

    fn step(&self) -> Range<usize> {
        let world = &self.world;
        if world.strikes(world.options.fork, Count::FaultFork) {
            world.fork();
        }
        let number = sim::random(u64::from(world.options.regions)) as usize;
        let region = world.options.region(number);
        let mapped = world.kernel().memory.is_mapped(region.clone());
        if !mapped {
            self.map_again(number, &region);
            return region;
        }
        let part = part_of(&region);
        match sim::random(16) {
            0..5 => self.call(Call::Unmap, self.widened(number, region.clone())),
            5..7 => self.call(Call::Replace, region.clone()),
            7..11 => self.call(Call::Discard, part),
            11 => self.call(Call::Free, part),
            12 => self.call(Call::Protect, part),
            13 => self.move_away(number, &region),
            _ => world.write(part.start),
        }
        region
    }

    /// What lies unmapped is mapped again at once, also while its munmap has not returned: that is the case that needs the
    /// probe. Parts that are still mapped come first.
    fn map_again(&self, number: usize, region: &Range<usize>) {
        if self.world.mmap(region.clone()) {
            self.world.write(part_of(region).start);
        } else {
            self.call(Call::Unmap, self.world.options.region(number));
        }
    }

    /// Sometimes a call spans two buffers.
    fn widened(&self, number: usize, region: Range<usize>) -> Range<usize> {
        let next = number + 1;
        if next < self.world.options.regions as usize && sim::random(4) == 0 {
            region.start..self.world.options.region(next).end
        } else {
            region
        }
    }

    fn move_away(&self, number: usize, region: &Range<usize>) {
        let options = self.world.options;
        let free = |&other: &usize| {
            let target = options.region(other);
            target.len() == region.len() && self.world.kernel().memory.is_free(target)
        };
        if let Some(target) = (0..options.regions as usize).find(free) {
            self.bracketed(&[region.clone(), options.region(target)], Event::Remap, || {
                self.world.mremap(self.thread, region.clone(), options.region(target).start);
            });
        } else {
            self.call(Call::Unmap, options.region(number));
        }
    }

    fn call(&self, call: Call, pages: Range<usize>) {
        let (world, thread) = (&self.world, self.thread);
        let event = match call {
            Call::Unmap | Call::Replace => Event::Unmap,
            Call::Discard | Call::Free => Event::Remove,
            Call::Protect => Event::Requested,
        };
        let make = || match call {
            Call::Unmap => world.munmap(thread, pages.clone()),
            Call::Replace => world.replace(thread, pages.clone()),
            Call::Discard => world.discard(thread, pages.clone(), true),
            Call::Free => world.discard(thread, pages.clone(), false),
            Call::Protect => {
                world.mprotect(pages.clone(), true);
                world.think();
                world.mprotect(pages.clone(), false);
            }
        };
        self.bracketed(std::slice::from_ref(&pages), event, make);
    }

    /// Makes a call between its true start and end, if this thread is wrapped. The kernel reports it all the same.
    fn bracketed(&self, ranges: &[Range<usize>], event: Event, call: impl FnOnce()) {
        if !self.wrapped {
            return call();
        }
        let world = &self.world;
        if world.strikes(world.options.refused, Count::FaultRefused) {
            for pages in ranges {
                let range = range_of(pages.clone());
                world.note(|| format!("the start of an invalidation of {range} is refused and cancelled"));
                let id = world.space.tracker().start(range);
                world.pause(1000);
                world.space.tracker().cancel(id);
            }
            return;
        }
        let start = |pages: &Range<usize>| {
            let range = range_of(pages.clone());
            world.note(|| format!("a wrapped call starts an invalidation of {range}"));
            world.space.invalidate_start(range, event)
        };
        let running: Vec<_> = ranges.iter().map(start).collect();
        if world.strikes(world.options.slow_invalidation, Count::FaultSlowInvalidation) {
            let most = if world.options.deaf > 0 { SLOW } else { SLOW / 1000 };
            world.pause(most);
        }
        call();
        drop(running);
        world.note(|| "the wrapped call ends its invalidation".to_owned());
    }

    fn request(&self, pages: &Range<usize>) {
        let device = sim::random(self.devices.len() as u64) as usize;
        let _ = self.devices[device].request(pages, self.world.patience(), &Buffers::default());
    }
}

/// A worker of a device: requests for whole buffers and for parts.
pub(crate) fn work(world: &Arc<World>, device: &Device) {
    let mut buffers = Buffers::known(world);
    for _ in 0..world.options.requests {
        world.think();
        if sim::random(16) == 0 {
            // What is not forgotten in time is forgotten later; the tracker sees to it.
            let _ = buffers.forget(world, &Deadline::after(world.patience()));
            buffers = Buffers::known(world);
        }
        let region = world.options.region(sim::random(u64::from(world.options.regions)) as usize);
        let pages = if sim::random(3) == 0 { part_of(&region) } else { region };
        if device.request(&pages, world.patience(), &buffers) == Served::Lost {
            // It will be told the same each time.
            world.think();
        }
    }
    let _ = buffers.forget(world, &Deadline::after(world.patience()));
}

impl World {
    /// How long a request may take in this run.
    pub(crate) fn patience(&self) -> Duration {
        match (self.options.deaf, self.options.hasty) {
            (0, 0) => DEADLINE,
            (0, _) => HASTY,
            _ => DEADLINE * 20,
        }
    }
}

/// The first or the second half of some pages, or one page of them.
fn part_of(pages: &Range<usize>) -> Range<usize> {
    let middle = pages.start + pages.len() / 2;
    match sim::random(3) {
        0 if middle > pages.start => pages.start..middle,
        1 if middle < pages.end => middle..pages.end,
        _ => {
            let page = pages.start + sim::random(pages.len() as u64) as usize;
            page..page + 1
        }
    }
}
