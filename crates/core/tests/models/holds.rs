//! Who holds something against who takes it away.

use pagemirror_core::gate::{Entered, Gate};
use pagemirror_core::hold::Holds;
use pagemirror_sync::atomic::{AtomicU64, Ordering, fence};
use pagemirror_sync::{Arc, lane};

use super::engine::beside;

const NAME: u32 = 7;
/// Naps that settling may take: a model has no clock, so any number that is not reached.
const TURNS: u32 = 20;

/// Something that may be held while it stands, and what its holder does with it.
struct Thing {
    gate: Gate,
    holds: Holds,
    stands: AtomicU64,
    in_hand: AtomicU64,
    gone: AtomicU64,
}

impl Thing {
    fn new() -> Arc<Self> {
        let (stands, in_hand, gone) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { gate: Gate::in_ordinary_memory(), holds: Holds::default(), stands, in_hand, gone })
    }

    /// What the holder does. Nothing here is ordered by itself.
    fn handle(&self) {
        self.in_hand.store(1, Ordering::Relaxed);
        assert_eq!(self.gone.load(Ordering::Relaxed), 0, "VIOLATION: taken away while it is held");
        self.in_hand.store(0, Ordering::Relaxed);
    }

    fn take_away_if_nobody_holds(&self) {
        if !self.holds.any(NAME) {
            assert_eq!(self.in_hand.load(Ordering::Relaxed), 0, "VIOLATION: taken away from a hand");
            self.gone.store(1, Ordering::Relaxed);
        }
    }
}

/// As a lease against the evicting hand.
pub(crate) fn hold_against_taking_away() {
    let thing = Thing::new();
    let other = beside(&thing, |thing| {
        thing.stands.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        thing.take_away_if_nobody_holds();
    });
    let held = thing.holds.take(lane(), NAME).expect("the lane is empty");
    if thing.stands.load(Ordering::SeqCst) == 1 {
        thing.handle();
    }
    held.give_back();
    other.join().unwrap();
}

/// As a use against the worker, and a second use by the same lane.
pub(crate) fn hold_in_section_against_taking_away() {
    let thing = Thing::new();
    let other = beside(&thing, |thing| {
        thing.stands.store(0, Ordering::Release);
        if thing.gate.settle(TURNS) {
            thing.take_away_if_nobody_holds();
        }
    });
    if let Entered::Open(section) = thing.gate.enter()
        && thing.stands.load(Ordering::SeqCst) == 1
    {
        let held = thing.holds.take_in_section(section.lane(), NAME).expect("the lane is empty");
        drop(section);
        thing.handle();
        held.give_back();
    }
    other.join().unwrap();
}
