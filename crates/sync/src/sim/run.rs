//! The scheduler, and one run from beginning to end.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use generator::{Generator, Gn};

use super::due::{Due, Queue};
use super::point::{COUNTDOWN, CURRENT, DEPTH, NOW, OUTSIDE, PARKED, current, hand_over, yield_now};

/// The stack of an actor, in words. Pages that are never touched cost nothing.
const STACK_WORDS: usize = 32 * 1024;
/// What a wait in a loop takes, at most, in nanoseconds: about a look at a cache line of another processor.
const SPIN: u64 = 400;
/// Stacks that are kept for later runs of the same real thread.
const KEPT_STACKS: usize = 32;

/// How a run is scheduled. Everything random in it comes from `seed`.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The seed of every random choice.
    pub seed: u64,
    /// Switch points between two switches, on average.
    pub switch_every: u32,
    /// The longest ordinary pause at a switch, in nanoseconds.
    pub jitter: u64,
    /// One pause in so many is a preemption; 0 for none.
    pub preempt_one_in: u32,
    /// The longest preemption, in nanoseconds.
    pub preempted: u64,
    /// Timed waits for a notification take so many times longer before they give up. A correct program does not need them to
    /// give up at all, so a large factor makes a lost notification visible.
    pub deaf: u32,
    /// Virtual time after which the run is over whoever still waits.
    pub limit: Duration,
    /// Steps after which the run is over.
    pub most_steps: u64,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was found, if anything: what a checker said, a panic; and the number of the actor in which.
    pub finding: Option<(usize, String)>,
    /// Actors that had not ended when nobody could run any more, or when the limit was reached.
    pub unfinished: Vec<String>,
    /// Scheduling steps.
    pub steps: u64,
    /// Virtual time that the run took.
    pub virtual_time: Duration,
    /// A hash of every step: two runs with the same digest took the same steps.
    pub digest: u64,
}

/// What the running actor does after it has told the scheduler when it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nobody comes before it.
    GoOn,
    HandOver,
}

type Body = Box<dyn FnOnce() + Send>;

struct Actor {
    name: String,
    /// Counts the times it was resumed: older entries of the queue are void.
    turn: u32,
    depth: u32,
    done: bool,
}

pub(super) struct Scheduler {
    schedule: Schedule,
    random: fastrand::Rng,
    queue: Queue,
    actors: Vec<Actor>,
    parked: Vec<(usize, usize)>,
    fresh: Vec<(usize, Body)>,
    finding: Option<(usize, String)>,
    steps: u64,
    digest: u64,
}

thread_local! {
    static SCHEDULER: RefCell<Option<Scheduler>> = const { RefCell::new(None) };
    static STACKS: RefCell<Vec<Generator<'static, (), ()>>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn with_scheduler<R>(f: impl FnOnce(&mut Scheduler) -> R) -> Option<R> {
    SCHEDULER.with_borrow_mut(|scheduler| scheduler.as_mut().map(f))
}

/// Runs `main` as the first actor, and everything that it spawns, until all have ended, a checker has failed, nobody can
/// run any more, or a limit is reached.
///
/// Actors that have not ended then are abandoned with what they own: their memory is not given back, because running
/// their destructors in a broken world could block for ever.
#[must_use]
pub fn run(schedule: Schedule, main: impl FnOnce() + Send + 'static) -> Outcome {
    let random = fastrand::Rng::with_seed(schedule.seed);
    let scheduler = Scheduler {
        schedule,
        random,
        queue: Queue::default(),
        actors: Vec::new(),
        parked: Vec::new(),
        fresh: Vec::new(),
        finding: None,
        steps: 0,
        digest: 0,
    };
    NOW.set(0);
    PARKED.set(0);
    COUNTDOWN.set(schedule.switch_every);
    SCHEDULER.set(Some(scheduler));
    with_scheduler(|scheduler| scheduler.add("main".to_owned(), Box::new(main)));
    let mut coroutines: Vec<Option<Generator<'static, (), ()>>> = Vec::new();
    while let Some((fresh, actor)) = with_scheduler(Scheduler::next_actor).flatten() {
        for (index, body) in fresh {
            debug_assert_eq!(index, coroutines.len());
            coroutines.push(Some(coroutine(body)));
        }
        resume(&mut coroutines[actor], actor);
    }
    abandon(coroutines);
    COUNTDOWN.set(u32::MAX);
    DEPTH.set(0);
    SCHEDULER.take().map_or_else(Outcome::nothing, Scheduler::into_outcome)
}

fn resume(coroutine: &mut Option<Generator<'static, (), ()>>, actor: usize) {
    let Some(running) = coroutine.as_mut() else { return };
    CURRENT.set(actor);
    running.resume();
    CURRENT.set(OUTSIDE);
    let done = running.is_done();
    with_scheduler(|scheduler| {
        scheduler.actors[actor].depth = DEPTH.get();
        scheduler.actors[actor].done = done;
    });
    if done {
        keep(coroutine.take());
    }
}

fn coroutine(body: Body) -> Generator<'static, (), ()> {
    let guarded = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
            with_scheduler(|scheduler| scheduler.found(format!("panicked: {text}")));
        }
    };
    match STACKS.with_borrow_mut(Vec::pop) {
        Some(mut kept) => {
            kept.init_code(guarded);
            kept
        }
        None => Gn::<()>::new_opt(STACK_WORDS, guarded),
    }
}

fn keep(done: Option<Generator<'static, (), ()>>) {
    STACKS.with_borrow_mut(|stacks| {
        if stacks.len() < KEPT_STACKS {
            stacks.extend(done);
        }
    });
}

fn abandon(coroutines: Vec<Option<Generator<'static, (), ()>>>) {
    for unfinished in coroutines.into_iter().flatten() {
        std::mem::forget(unfinished);
    }
}

/// Ends the run with a finding. The actor that says so never goes on.
///
/// # Panics
/// Outside a run: there is nothing to end.
pub fn fail(why: impl Into<String>) -> ! {
    let why = why.into();
    assert!(CURRENT.get() != OUTSIDE, "a finding outside a simulation: {why}");
    with_scheduler(|scheduler| scheduler.found(why));
    loop {
        hand_over();
    }
}

/// A number below `bound` from the run's seed; 0 when `bound` is 0 or nothing is simulated.
#[must_use]
pub fn random(bound: u64) -> u64 {
    if bound == 0 {
        return 0;
    }
    with_scheduler(|scheduler| scheduler.random.u64(..bound)).unwrap_or(0)
}

/// No preemptions from here on.
pub fn calm() {
    with_scheduler(|scheduler| scheduler.schedule.preempt_one_in = 0);
    yield_now();
}

impl Scheduler {
    pub(super) fn add(&mut self, name: String, body: Body) -> usize {
        let actor = self.actors.len();
        self.actors.push(Actor { name, turn: 0, depth: 0, done: false });
        self.fresh.push((actor, body));
        self.due(actor, NOW.get());
        actor
    }

    pub(super) fn is_done(&self, actor: usize) -> bool {
        self.actors[actor].done
    }

    /// The next actor that is due, with what has to be started before; nobody when the run is over.
    fn next_actor(&mut self) -> Option<(Vec<(usize, Body)>, usize)> {
        if self.finding.is_some() || self.steps >= self.schedule.most_steps {
            return None;
        }
        loop {
            let due = self.queue.pop()?;
            let actor = &mut self.actors[due.actor];
            if due.turn != actor.turn || actor.done {
                continue;
            }
            if due.time > self.schedule.limit.as_nanos() as u64 {
                return None;
            }
            actor.turn += 1;
            DEPTH.set(actor.depth);
            NOW.set(due.time.max(NOW.get()));
            self.count(due.actor);
            return Some((std::mem::take(&mut self.fresh), due.actor));
        }
    }

    fn count(&mut self, actor: usize) {
        self.steps += 1;
        self.digest =
            (self.digest.rotate_left(5) ^ NOW.get() ^ ((actor as u64) << 56)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn found(&mut self, why: String) {
        self.finding.get_or_insert((current(), why));
        self.queue.clear();
    }

    fn due(&mut self, actor: usize, time: u64) {
        let (order, turn) = (self.random.u32(..), self.actors[actor].turn);
        self.queue.push(Due { time, order, actor, turn });
    }

    /// A pause at a switch point: mostly short, sometimes a preemption.
    pub(super) fn pause(&mut self, actor: usize) -> Next {
        COUNTDOWN.set(self.random.u32(..self.schedule.switch_every.max(1) * 2));
        let pause = self.draw_pause();
        self.go_on_at(actor, NOW.get() + pause)
    }

    fn draw_pause(&mut self) -> u64 {
        let one_in = self.schedule.preempt_one_in;
        if one_in > 0 && self.random.u32(..one_in) == 0 {
            // Of every order of magnitude alike.
            let most = self.random.u64(..self.schedule.preempted.max(1));
            most >> self.random.u32(..12)
        } else {
            self.random.u64(..self.schedule.jitter.max(1))
        }
    }

    pub(super) fn spin(&mut self, actor: usize) -> Next {
        let moment = 1 + self.random.u64(..SPIN);
        self.go_on_at(actor, NOW.get() + moment)
    }

    pub(super) fn sleep(&mut self, actor: usize, limit: Duration) -> Next {
        let late = self.draw_pause();
        self.go_on_at(actor, NOW.get() + limit.as_nanos() as u64 + late)
    }

    fn go_on_at(&mut self, actor: usize, time: u64) -> Next {
        let over = time > self.schedule.limit.as_nanos() as u64 || self.steps >= self.schedule.most_steps;
        if self.queue.is_quiet_until(time) && !over {
            NOW.set(time);
            self.count(actor);
            return Next::GoOn;
        }
        self.due(actor, time);
        Next::HandOver
    }

    pub(super) fn park(&mut self, actor: usize, key: usize, limit: Option<Duration>) -> Next {
        self.parked.push((key, actor));
        PARKED.set(self.parked.len());
        if let Some(limit) = limit {
            self.due(actor, NOW.get() + limit.as_nanos() as u64);
        }
        Next::HandOver
    }

    /// The actor has gone on. Says whether it was woken; it was not when it still stands among the parked.
    pub(super) fn unpark(&mut self, actor: usize) -> bool {
        let Some(at) = self.parked.iter().position(|(_, parked)| *parked == actor) else { return true };
        self.parked.remove(at);
        PARKED.set(self.parked.len());
        false
    }

    pub(super) fn wake_all(&mut self, key: usize) {
        let mut at = 0;
        while at < self.parked.len() {
            if self.parked[at].0 == key {
                let (_, actor) = self.parked.remove(at);
                let pause = self.draw_pause();
                self.due(actor, NOW.get() + pause);
            } else {
                at += 1;
            }
        }
        PARKED.set(self.parked.len());
    }

    fn into_outcome(self) -> Outcome {
        let unfinished = self.actors.into_iter().filter(|actor| !actor.done).map(|actor| actor.name).collect();
        Outcome {
            finding: self.finding,
            unfinished,
            steps: self.steps,
            virtual_time: super::elapsed(),
            digest: self.digest,
        }
    }
}

impl Outcome {
    fn nothing() -> Self {
        Self { finding: None, unfinished: Vec::new(), steps: 0, virtual_time: Duration::ZERO, digest: 0 }
    }
}

/// By how much timed waits are longer in this run.
pub(super) fn deaf() -> u32 {
    with_scheduler(|scheduler| scheduler.schedule.deaf.max(1)).unwrap_or(1)
}

/// The name of the actor that runs, for a finding.
pub(super) fn name_of_current() -> String {
    with_scheduler(|scheduler| scheduler.actors.get(current()).map(|actor| actor.name.clone()))
        .flatten()
        .unwrap_or_default()
}
