//! What the actors of a run share: the modelled kernel, the address space under test, counts, the trace.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagemirror_core_sim::gate::{ALIVE, Gate, GateWord, LostCause};
use pagemirror_core_sim::space::AddressSpace;
use pagemirror_core_sim::wait::WaitQueue;
use pagemirror_sync_sim::sim::{self, Bell};

use super::counts::{Count, Counts};
use super::kernel::Kernel;
use super::memory::{HUGE, Memory};
use super::observe::Observed;
use super::options::Options;

/// The space under test, behind the checker of its tracker.
pub(crate) type Space = AddressSpace<Observed>;

/// Counts moments: of two moments the later has the larger number. Virtual time has many moments in one nanosecond.
#[derive(Debug, Default)]
pub(crate) struct Moments(AtomicU64);

impl Moments {
    pub(crate) fn next(&self) -> u64 {
        // ORDERING: Relaxed; only one real thread ever runs.
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One line of a trace.
#[derive(Debug, Clone)]
pub struct Step {
    /// Virtual time.
    pub at: Duration,
    /// The actor's number.
    pub actor: usize,
    /// What it did.
    pub what: String,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) space: Arc<Space>,
    pub(crate) moments: Arc<Moments>,
    kernel: Mutex<Kernel>,
    counts: Mutex<Counts>,
    trace: Option<Mutex<Vec<Step>>>,
    /// No faults from here on.
    calm: AtomicBool,
    stopping: AtomicBool,
    /// Rung when an event was queued.
    pub(crate) readable: Bell,
    /// Rung when the events of a thread were read.
    pub(crate) read: Vec<Bell>,
    /// Where the prover sleeps until something is in doubt.
    pub(crate) doubtful: WaitQueue,
}

impl World {
    pub(crate) fn new(options: Options, tracker: Observed, traced: bool) -> Arc<Self> {
        let word = GateWord::Owned(pagemirror_sync_sim::atomic::AtomicU64::new(ALIVE));
        let gate = Gate::with_counters(word, options.counters as usize);
        let moments = tracker.moments();
        // Threads that call the kernel: mutators, workers, and the run itself.
        let threads = (options.mutators + options.devices * options.workers + 1) as usize;
        Arc::new(Self {
            options,
            space: Arc::new(AddressSpace::with_doubts(tracker, gate, options.doubts as usize)),
            moments,
            kernel: Mutex::new(Kernel::new(Memory::new(options.all_pages()), threads)),
            counts: Mutex::new(Counts::default()),
            trace: traced.then(|| Mutex::new(Vec::new())),
            calm: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            readable: Bell::new(),
            read: (0..threads).map(|_| Bell::new()).collect(),
            doubtful: WaitQueue::new(),
        })
    }

    /// The kernel's state, for one step in which nobody else runs: no switch point lies under this lock.
    pub(crate) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, what: Count) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).add(what, 1);
    }

    /// What was counted, with what the memory counted itself.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = self.kernel();
        counts.add(Count::HugeSplits, kernel.memory.splits);
        counts.add(Count::CopiesOnWrite, kernel.memory.copies);
        drop(kernel);
        let conservative = pagemirror_core_sim::collision::CollisionTracker::conservative(self.space.tracker());
        counts.add(Count::Outrun, conservative.outrun);
        counts.add(Count::Overflows, conservative.overflow);
        counts.add(Count::DoubtOverflows, self.space.doubt().overflows());
        self.space.tracker().add_to(&mut counts);
        counts
    }

    /// Whether this fault happens now: one time in `one_in`, never in calm. Counted when it does.
    pub(crate) fn strikes(&self, one_in: u32, what: Count) -> bool {
        let strikes = one_in > 0 && !self.is_calm() && sim::random(u64::from(one_in)) == 0;
        if strikes {
            self.count(what);
        }
        strikes
    }

    /// Lets up to `nanoseconds` of virtual time pass.
    pub(crate) fn pause(&self, nanoseconds: u64) {
        sim::sleep(Duration::from_nanos(sim::random(nanoseconds)));
    }

    pub(crate) fn think(&self) {
        self.pause(u64::from(self.options.think_us) * 1000);
    }

    /// A line for the trace; costs nothing where none is kept.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let step = Step { at: sim::elapsed(), actor: sim::current(), what: what() };
            trace.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        }
    }

    pub(crate) fn take_trace(&self) -> Vec<Step> {
        let take =
            |trace: &Mutex<Vec<Step>>| std::mem::take(&mut *trace.lock().unwrap_or_else(PoisonError::into_inner));
        self.trace.as_ref().map(take).unwrap_or_default()
    }

    /// Ends the run with a finding.
    pub(crate) fn fail(&self, why: String) -> ! {
        sim::fail(why)
    }

    /// Declares coherence lost, and remembers when, so that who is not told in time is found.
    pub(crate) fn lose(&self, cause: LostCause) {
        self.note(|| format!("coherence is declared lost: {cause}"));
        self.space.tracker().lost_at(sim::elapsed());
        self.space.lose(cause);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.space.gate().lost().is_some()
    }

    pub(crate) fn calm_down(&self) {
        // ORDERING: Relaxed, here and below; only one real thread ever runs.
        self.calm.store(true, Ordering::Relaxed);
        sim::calm();
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.readable.ring();
        self.doubtful.wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

impl Options {
    /// Pages of the modelled address space.
    pub(crate) fn all_pages(&self) -> usize {
        self.region(self.regions as usize - 1).end
    }

    /// The pages of a buffer. Buffers lie side by side, so that one call can span several.
    pub(crate) fn region(&self, number: usize) -> std::ops::Range<usize> {
        let pages = self.pages as usize;
        let first = if self.huge > 0 { HUGE } else { pages };
        match number {
            0 => 0..first,
            _ => first + (number - 1) * pages..first + number * pages,
        }
    }
}
