//! The invalidators: each has one job at a time, of one range or several.

use pagemirror_core::collision::{CollisionTracker, InvalidationId};

use super::clock::{Actor, Time};
use super::{Engine, Running, Step};
use crate::workload::Job;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Due,
    /// The range with this number is about to start.
    Starting(usize),
    /// Its callback holds the device lock.
    CallingBack(usize),
    Changing,
    /// The range with this number is about to end.
    Ending(usize),
}

/// One thread that changes memory.
#[derive(Debug, Default)]
pub(super) struct Invalidator {
    stage: Stage,
    job: Option<Job>,
    /// The ranges of the job that have started, in order.
    started: Vec<(InvalidationId, usize)>,
}

impl<T: CollisionTracker + ?Sized> Engine<'_, T> {
    /// Asks the workload for the next job. None: the invalidator is done.
    pub(super) fn next_job(&mut self, invalidator: usize, now: Time) {
        if let Some((at, job)) = self.workload.next_job(invalidator, now) {
            let this = &mut self.invalidators[invalidator];
            this.stage = Stage::Due;
            this.job = Some(job);
            self.queue.put(at.max(now), Actor::Invalidator(invalidator));
        }
    }

    pub(super) fn invalidator_step(&mut self, invalidator: usize, now: Time) {
        match self.invalidators[invalidator].stage {
            Stage::Due => self.ask_to_start(invalidator, 0, now),
            Stage::Starting(nth) => self.start(invalidator, nth, now),
            Stage::CallingBack(nth) => self.ask_to_start(invalidator, nth + 1, now),
            Stage::Changing => self.ask_to_end(invalidator, 0, now),
            Stage::Ending(nth) => self.end(invalidator, nth, now),
        }
    }

    fn invalidator_in_tracker(&mut self, now: Time, step: Step) -> Time {
        let at = self.tracker_step(now, step);
        self.counts.invalidators_ns += at - now;
        at
    }

    fn enter(&mut self, invalidator: usize, stage: Stage, at: Time) {
        self.invalidators[invalidator].stage = stage;
        self.queue.put(at, Actor::Invalidator(invalidator));
    }

    /// Starts the range with this number; behind the last one comes the change.
    fn ask_to_start(&mut self, invalidator: usize, nth: usize, now: Time) {
        let Some(job) = &self.invalidators[invalidator].job else { return };
        if nth < job.ranges.len() {
            let at = self.invalidator_in_tracker(now, self.plan.costs.start);
            self.enter(invalidator, Stage::Starting(nth), at);
        } else {
            let change = job.change;
            self.enter(invalidator, Stage::Changing, now + change);
        }
    }

    fn start(&mut self, invalidator: usize, nth: usize, now: Time) {
        let Some(range) = self.invalidators[invalidator].job.as_ref().map(|job| job.ranges[nth]) else { return };
        let id = self.tracker.start(range);
        let position = self.oracle.position();
        self.oracle.start(range);
        self.running.push(Running { position, range });
        self.invalidators[invalidator].started.push((id, position));
        self.counts.invalidations += 1;
        let over = self.device_lock.take(now, self.plan.time.callback);
        self.enter(invalidator, Stage::CallingBack(nth), over);
    }

    fn ask_to_end(&mut self, invalidator: usize, nth: usize, now: Time) {
        if nth < self.invalidators[invalidator].started.len() {
            let at = self.invalidator_in_tracker(now, self.plan.costs.end);
            return self.enter(invalidator, Stage::Ending(nth), at);
        }
        let this = &mut self.invalidators[invalidator];
        this.started.clear();
        if let Some(job) = this.job.take() {
            self.workload.done(&job);
            for range in self.workload.forgotten() {
                self.kept.forget(self.tracker, range, &self.wait);
            }
        }
        self.next_job(invalidator, now);
    }

    fn end(&mut self, invalidator: usize, nth: usize, now: Time) {
        let (id, position) = self.invalidators[invalidator].started[nth];
        self.tracker.end(id);
        self.running.retain(|running| running.position != position);
        self.wake_parked(now);
        self.ask_to_end(invalidator, nth + 1, now);
    }
}
