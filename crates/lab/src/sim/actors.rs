//! The library's own threads, as `pagemirror-linux` runs them: the pump, the prover, the watchdog; and who breaks things.

use std::sync::Arc;
use std::time::Duration;

use pagemirror_core_sim::gate::LostCause;
use pagemirror_core_sim::notify::Event;
use pagemirror_core_sim::source::Probe;
use pagemirror_core_sim::turn::{Batch, TurnOrder};
use pagemirror_sync_sim::atomic::{AtomicU64, Ordering};
use pagemirror_sync_sim::sim;

use super::counts::Count;
use super::options::{NO_PROOF, READ_FIRST};
use super::world::World;

/// Naps of 1 ms for which the pump waits for sections: above what a few preemptions make of one.
pub(crate) const SECTION_TURNS: u32 = 20;
/// The time between two looks of the watchdog, and the looks in a row that find the pump standing still. Together twice
/// what the pump waits for sections.
const LOOK: Duration = Duration::from_millis(2);
const STRIKES: u32 = 20;
/// How long a stalled pump stands still: past the watchdog's patience.
const STALL: Duration = Duration::from_millis(100);
/// How long pump and prover sleep when nobody wakes them.
const IDLE: Duration = Duration::from_secs(1);
/// The prover's nap between two looks at a thread.
const NAP: Duration = Duration::from_micros(100);

/// Reads events and revokes, until the run stops or the descriptor is gone.
pub(crate) fn pump(world: &Arc<World>, turns: &AtomicU64) {
    let options = world.options;
    let mut batch = Batch::with_room(options.batch as usize);
    let order = if options.control == READ_FIRST { TurnOrder::ReadFirst } else { TurnOrder::GateFirst };
    while !world.is_stopping() {
        // As the real one does after each wait: is the descriptor still ours?
        if matches!(world.probe(), Probe::Lost(_)) {
            return;
        }
        if !world.kernel().is_readable() {
            world.readable.wait(Some(IDLE));
            continue;
        }
        turns.fetch_add(1, Ordering::Relaxed);
        if world.strikes(options.stalled_pump, Count::FaultStalledPump) {
            world.note(|| "the pump stands still".to_owned());
            sim::sleep(STALL);
        }
        world.count(Count::Turns);
        let read = |batch: &mut Batch| world.read_events(batch, options.messages as usize);
        world.space.turn(order, &mut batch, SECTION_TURNS, read);
        world.note(|| "the turn of the pump is over".to_owned());
        if batch.events().iter().any(|(event, _)| *event == Event::Remove) {
            world.doubtful.wake();
        }
    }
}

/// Ends doubts once every thread has been seen outside a discard, later than the doubts were set.
pub(crate) fn prover(world: &Arc<World>, threads: usize) {
    let doubt = world.space.doubt();
    while !world.is_stopping() {
        if !world.doubtful.wait_at_most(IDLE, || doubt.any() || world.is_stopping()) {
            continue;
        }
        let mark = doubt.mark();
        for thread in 0..threads {
            let proves = world.options.control != NO_PROOF;
            while proves && world.kernel().is_in_discard(thread) && !world.is_stopping() {
                sim::sleep(NAP);
            }
        }
        world.count(Count::Proofs);
        world.note(|| format!("every thread was seen elsewhere: doubts up to {mark} end"));
        doubt.end(mark);
        sim::sleep(NAP);
    }
}

/// Reads in the pump's place once it has stood still for too long, after declaring coherence lost.
pub(crate) fn watchdog(world: &Arc<World>, turns: &AtomicU64) {
    let (mut seen, mut strikes) = (0, 0);
    while strikes < STRIKES {
        sim::sleep(LOOK);
        if world.is_stopping() || world.kernel().is_closed() {
            return;
        }
        let now = turns.load(Ordering::Relaxed);
        strikes = if world.kernel().is_readable() && now == seen { strikes + 1 } else { 0 };
        seen = now;
    }
    world.lose(LostCause::PumpStuck);
    let mut batch = Batch::default();
    while !world.is_stopping() {
        batch.clear();
        world.read_events(&mut batch, usize::MAX);
        sim::sleep(LOOK);
    }
}

/// Breaks what the options say, at some moment while the mutators are at it.
pub(crate) fn breaker(world: &Arc<World>) {
    let options = world.options;
    if options.closed + options.lost == 0 {
        return;
    }
    let span = u64::from(options.calls) * u64::from(options.think_us + 10) * 500;
    world.pause(span);
    if world.is_calm() {
        return;
    }
    if options.closed > 0 {
        world.count(Count::FaultClosed);
        world.close();
    } else {
        world.count(Count::FaultLost);
        world.lose(LostCause::Released);
    }
}
