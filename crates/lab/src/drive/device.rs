//! The device threads: each has one fault at a time.

use pagemirror_core::addr::PageRange;
use pagemirror_core::collision::{CollisionTracker, Reader, SubscriptionId, Token, Verdict};
use pagemirror_trackers::oracle::Judgement;

use super::Engine;
use super::clock::{Actor, Time};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Resting,
    Beginning,
    Parked,
    Reading,
    Committing,
}

/// A fault that is under way.
#[derive(Debug)]
pub(super) struct Request {
    range: PageRange,
    subscription: Option<SubscriptionId>,
    /// When it began for the first time.
    pub(super) first: Time,
    previous: Option<Verdict>,
    pub(super) token: Option<Token>,
    /// Where the attempt stands among the invalidations that have started, for the oracle.
    position: usize,
    /// How many had started when it began.
    begun: usize,
    /// The last time that this attempt was refused, and whether without need.
    refused: Option<(Time, bool)>,
    /// Whether any refusal of this attempt was without need.
    needless: bool,
}

/// One thread of the device.
#[derive(Debug, Default)]
pub(super) struct DeviceThread {
    stage: Stage,
    /// What it will fault next, or is faulting.
    range: Option<PageRange>,
    request: Option<Request>,
}

impl DeviceThread {
    /// The fault that is under way when the run ends.
    pub(super) fn abandon(self) -> Option<Request> {
        self.request
    }
}

impl<T: CollisionTracker + ?Sized> Engine<'_, T> {
    /// Asks the workload what this thread faults next. Nothing more: the thread stays at rest for ever.
    pub(super) fn next_fault(&mut self, device: usize, now: Time) {
        self.devices[device].stage = Stage::Resting;
        if let Some(fault) = self.workload.next_fault(device, now) {
            self.devices[device].range = fault.range;
            self.queue.put(fault.at.max(now), Actor::Device(device));
        }
        for range in self.workload.forgotten() {
            self.kept.forget(self.tracker, range, &self.wait);
        }
    }

    pub(super) fn device_step(&mut self, device: usize, now: Time) {
        match self.devices[device].stage {
            Stage::Resting => self.first_attempt(device, now),
            Stage::Beginning => self.begin(device, now),
            Stage::Reading => self.ask_for_commit(device, now),
            Stage::Committing => self.commit(device, now),
            Stage::Parked => {}
        }
    }

    fn first_attempt(&mut self, device: usize, now: Time) {
        // A rest without a range is a pause: what is mapped may have changed when it is over.
        let Some(range) = self.devices[device].range.take() else {
            return self.next_fault(device, now);
        };
        let subscription = self.kept.begin(self.tracker, range);
        self.devices[device].request = Some(Request {
            range,
            subscription,
            first: now,
            previous: None,
            token: None,
            position: 0,
            begun: 0,
            refused: None,
            needless: false,
        });
        self.ask_to_begin(device, now);
    }

    fn ask_to_begin(&mut self, device: usize, now: Time) {
        let at = self.tracker_step(now, self.plan.costs.begin);
        self.devices[device].stage = Stage::Beginning;
        self.queue.put(at, Actor::Device(device));
    }

    fn begin(&mut self, device: usize, now: Time) {
        let Some(mut request) = self.devices[device].request.take() else { return };
        let reader = Reader { range: request.range, subscription: request.subscription, previous: request.previous };
        self.count_wait(&mut request, now);
        let overlapping = self.oldest_overlapping(request.range);
        match self.tracker.read_begin(&reader, &self.wait) {
            Ok(token) => {
                request.begun = self.oracle.position();
                request.position = overlapping.unwrap_or(request.begun);
                request.token = Some(token);
                self.counts.attempts += 1;
                self.counts.reading_ns += self.plan.time.snapshot;
                self.counts.waits += u64::from(request.refused.take().is_some());
                self.counts.needless_waits += u64::from(std::mem::take(&mut request.needless));
                self.devices[device].stage = Stage::Reading;
                self.queue.put(now + self.plan.time.snapshot, Actor::Device(device));
            }
            Err(_) => {
                let needless = overlapping.is_none();
                request.refused = Some((now, needless));
                request.needless |= needless;
                self.devices[device].stage = Stage::Parked;
                self.parked.push(device);
            }
        }
        self.devices[device].request = Some(request);
    }

    /// Counts the time since this attempt was last refused.
    fn count_wait(&mut self, request: &mut Request, now: Time) {
        if let Some((since, needless)) = request.refused {
            self.counts.waited_ns += now - since;
            self.counts.needless_ns += if needless { now - since } else { 0 };
        }
    }

    /// An invalidation has ended: everybody who waits looks again.
    pub(super) fn wake_parked(&mut self, now: Time) {
        for device in std::mem::take(&mut self.parked) {
            self.ask_to_begin(device, now + self.plan.time.wake);
        }
    }

    /// Takes the device lock, and under it looks at what has started since, which may take longer the more it is.
    fn ask_for_commit(&mut self, device: usize, now: Time) {
        let begun = self.devices[device].request.as_ref().map_or(0, |request| request.begun);
        let locked = self.device_lock.begins(now);
        let at = self.tracker_step(locked, self.plan.costs.retry_after(self.oracle.position() - begun));
        self.device_lock.hold_until(at);
        self.devices[device].stage = Stage::Committing;
        self.queue.put(at, Actor::Device(device));
    }

    fn commit(&mut self, device: usize, now: Time) {
        let Some(mut request) = self.devices[device].request.take() else { return };
        let Some(token) = request.token.take() else { return };
        let verdict = self.tracker.read_retry(&token);
        self.tracker.read_end(token);
        self.judge(&request, verdict);
        if verdict == Verdict::Valid {
            self.counts.served += 1;
            let took = now - request.first;
            self.counts.latency_ns += took;
            self.counts.starved_ns = self.counts.starved_ns.max(took);
            self.kept.end(self.tracker, request.range, request.subscription, &self.wait);
            self.next_fault(device, now);
        } else {
            request.previous = Some(verdict);
            self.devices[device].request = Some(request);
            self.ask_to_begin(device, now);
        }
    }

    fn judge(&mut self, request: &Request, verdict: Verdict) {
        let counts = &mut self.counts;
        counts.collisions += u64::from(verdict != Verdict::Valid);
        match self.oracle.judge(request.position, request.range, verdict) {
            Judgement::Exact => counts.true_retries += u64::from(verdict != Verdict::Valid),
            Judgement::FalseRetry => counts.false_retries += 1,
            Judgement::Conservative => counts.conservative += 1,
            Judgement::Missed(_) => counts.missed += 1,
        }
    }
}
