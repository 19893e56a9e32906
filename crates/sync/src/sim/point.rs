//! Switch points: where an actor may be paused, sleeps, or waits.

use std::cell::Cell;
use std::time::Duration;

use super::run::{Next, with_scheduler};

/// The actor number of code that runs outside a simulation: its setting up and taking down.
pub(super) const OUTSIDE: usize = usize::MAX;

thread_local! {
    /// Switch points that are passed before the next one that switches.
    pub(super) static COUNTDOWN: Cell<u32> = const { Cell::new(u32::MAX) };
    /// The actor that runs.
    pub(super) static CURRENT: Cell<usize> = const { Cell::new(OUTSIDE) };
    /// Virtual time, in nanoseconds since the run began.
    pub(super) static NOW: Cell<u64> = const { Cell::new(0) };
    /// How many actors are parked: nobody looks for them while there are none.
    pub(super) static PARKED: Cell<usize> = const { Cell::new(0) };
    /// Whether the actor that runs is in a section. Exchanged when the actor changes.
    pub(super) static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// The number of the actor that runs; 0 outside a simulation.
#[must_use]
pub fn current() -> usize {
    match CURRENT.get() {
        OUTSIDE => 0,
        actor => actor,
    }
}

/// Virtual time since the run began.
#[must_use]
pub fn elapsed() -> Duration {
    Duration::from_nanos(NOW.get())
}

pub(crate) fn section_depth<R>(f: impl FnOnce(&Cell<u32>) -> R) -> R {
    DEPTH.with(f)
}

/// A possible switch point. Costs a count down where it does not switch.
#[inline]
pub(crate) fn point() {
    let left = COUNTDOWN.get();
    if left > 0 {
        COUNTDOWN.set(left - 1);
    } else {
        switch(|scheduler, actor| scheduler.pause(actor));
    }
}

/// Lets others run for a moment. Every loop that waits by looking again comes through here, or it would never end.
pub fn yield_now() {
    switch(|scheduler, actor| scheduler.spin(actor));
}

/// Sleeps for `limit` of virtual time.
pub fn sleep(limit: Duration) {
    switch(|scheduler, actor| scheduler.sleep(actor, limit));
}

/// Sleeps until [`wake_all`] is called with this key, or until `limit` has passed. Says whether it was woken.
pub(crate) fn park(key: usize, limit: Option<Duration>) -> bool {
    switch(|scheduler, actor| scheduler.park(actor, key, limit));
    with_scheduler(|scheduler| scheduler.unpark(current())).unwrap_or(true)
}

/// Wakes everybody who is parked under this key.
pub(crate) fn wake_all(key: usize) {
    if PARKED.get() > 0 {
        with_scheduler(|scheduler| scheduler.wake_all(key));
    }
}

/// Asks the scheduler when the running actor goes on, and hands over if others come first. Outside a simulation, and while
/// a panic unwinds (the count of panics belongs to the real thread), nothing is switched.
fn switch(next: impl FnOnce(&mut super::run::Scheduler, usize) -> Next) {
    let actor = CURRENT.get();
    if actor == OUTSIDE {
        COUNTDOWN.set(u32::MAX);
        return;
    }
    if std::thread::panicking() {
        return;
    }
    if with_scheduler(|scheduler| next(scheduler, actor)) == Some(Next::HandOver) {
        hand_over();
    }
}

/// Gives the real thread back to the scheduler.
#[expect(deprecated, reason = "a switch point deep in a library has no scope to hand")]
pub(super) fn hand_over() {
    generator::yield_with(());
}
