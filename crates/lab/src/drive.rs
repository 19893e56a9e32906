//! Drives a tracker through a workload in virtual time, and compares every answer with the exact one.
//!
//! # Guarantee
//! The same tracker, workload and plan give the same [`Counts`] on every machine: there is one real thread, time is an
//! integer number of nanoseconds that only the plan and the workload advance, and events of one instant happen in the
//! order in which they were put there.
//!
//! # States
//! ```text
//! device thread   resting -> beginning -> reading -> committing -> resting      (served)
//!                               ^   |                    |
//!                               |   v                    v
//!                               | parked             beginning                  (collided: goes round again)
//!                               +---+ when any invalidation ends
//!
//! invalidator     due -> starting -> calling back -> changing -> ending -> due
//!                           ^            |
//!                           +------------+ for each range of the job
//! ```
//! A thread that would sleep in `read_begin` is one for which `read_begin` with an expired deadline fails: it parks, and
//! asks again [`TimeModel::wake`] after the next end.
//!
//! # Time
//! Each arrow takes what the plan says: [`TimeModel`] has the durations outside the tracker (the same for every tracker),
//! [`Costs`] those of the tracker's own steps. A step takes effect at its end. With costs of zero the run counts; with
//! measured costs it also tells how long the work takes. Two things are serial, in the order of asking: the device lock
//! (one commit, one callback) and the one lock of the tracker that its steps may take.
//!
//! # What is compared
//! The oracle is told of each start when it takes effect. An attempt stands where the oldest overlapping invalidation
//! started that was running when `read_begin` returned, or else behind all that have started: so a tracker that lets a
//! reader begin beside a running invalidation is right to say `Hit` later, and wrong to say `Valid`.
//!
//! # Not covered
//! Threads that race inside a tracker (the model checks do that), and cache lines that travel between processors.

mod clock;
mod counts;
mod device;
mod invalidator;
mod kept;
mod model;
#[cfg(test)]
mod tests;

use std::time::Duration;

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::CollisionTracker;
use pagemirror_core::gate::Gate;
use pagemirror_core::wait::{Deadline, Wait};
use pagemirror_trackers::oracle::Oracle;

pub use clock::Time;
pub use counts::Counts;
pub use kept::Keeping;
pub use model::{Costs, Plan, Step, TimeModel};

use crate::workload::Workload;
use clock::{Actor, Queue, Serial};
use device::DeviceThread;
use invalidator::Invalidator;
use kept::KeptRanges;

/// Runs `workload` on `tracker` until the plan's end, and counts. See the module's text.
pub fn drive<T: CollisionTracker + ?Sized>(tracker: &T, workload: &mut dyn Workload, plan: &Plan) -> Counts {
    let gate = Gate::in_ordinary_memory();
    let expired = Deadline::after(Duration::ZERO);
    let mut engine = Engine::new(tracker, workload, plan, Wait::new(&expired, &gate));
    engine.run();
    engine.finish()
}

/// An invalidation that has started and not ended.
#[derive(Debug, Clone, Copy)]
struct Running {
    /// Where it stands among all that have started.
    position: usize,
    range: PageRange,
}

struct Engine<'e, T: ?Sized> {
    tracker: &'e T,
    workload: &'e mut dyn Workload,
    plan: &'e Plan,
    /// A wait that has expired: who would sleep is told so instead.
    wait: Wait<'e>,
    queue: Queue,
    tracker_lock: Serial,
    device_lock: Serial,
    devices: Vec<DeviceThread>,
    invalidators: Vec<Invalidator>,
    /// Device threads that wait for an end, in the order in which they were refused.
    parked: Vec<usize>,
    running: Vec<Running>,
    oracle: Oracle,
    kept: KeptRanges,
    counts: Counts,
}

impl<'e, T: CollisionTracker + ?Sized> Engine<'e, T> {
    fn new(tracker: &'e T, workload: &'e mut dyn Workload, plan: &'e Plan, wait: Wait<'e>) -> Self {
        let devices = (0..plan.device_threads).map(|_| DeviceThread::default()).collect();
        let invalidators = (0..workload.invalidators()).map(|_| Invalidator::default()).collect();
        Self {
            tracker,
            workload,
            plan,
            wait,
            queue: Queue::default(),
            tracker_lock: Serial::default(),
            device_lock: Serial::default(),
            devices,
            invalidators,
            parked: Vec::new(),
            running: Vec::new(),
            oracle: Oracle::default(),
            kept: KeptRanges::new(plan.keeping),
            counts: Counts::default(),
        }
    }

    fn run(&mut self) {
        for range in self.workload.known() {
            self.kept.know(self.tracker, range);
        }
        for invalidator in 0..self.invalidators.len() {
            self.next_job(invalidator, 0);
        }
        for device in 0..self.devices.len() {
            self.next_fault(device, 0);
        }
        while let Some((now, actor)) = self.queue.next(self.plan.until) {
            match actor {
                Actor::Device(device) => self.device_step(device, now),
                Actor::Invalidator(invalidator) => self.invalidator_step(invalidator, now),
            }
        }
    }

    /// Requests that are still open have starved until now.
    fn finish(mut self) -> Counts {
        for device in std::mem::take(&mut self.devices) {
            let Some(request) = device.abandon() else { continue };
            self.counts.unfinished += 1;
            self.counts.starved_ns = self.counts.starved_ns.max(self.plan.until - request.first);
            if let Some(token) = request.token {
                self.tracker.read_end(token);
            }
        }
        self.counts.overflow = self.tracker.conservative().overflow;
        self.counts
    }

    /// When a step of the tracker that is asked for now takes effect.
    fn tracker_step(&mut self, now: Time, step: Step) -> Time {
        self.counts.tracker_ns += step.cost;
        if !step.locked {
            return now + step.cost;
        }
        let begins = self.tracker_lock.begins(now);
        self.counts.lock_wait_ns += begins - now;
        self.tracker_lock.take(now, step.cost)
    }

    /// Whether an invalidation that overlaps `range` runs, and where the oldest of them stands.
    fn oldest_overlapping(&self, range: PageRange) -> Option<usize> {
        self.running.iter().filter(|running| running.range.overlaps(range)).map(|running| running.position).min()
    }
}
