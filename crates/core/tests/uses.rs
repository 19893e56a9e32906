//! Uses, sections and turns of the pump on real threads.
#![cfg(not(any(loom, shuttle)))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::gate::{Entered, Gate, GateWord, LostCause};
use pagemirror_core::notify::Event;
use pagemirror_core::space::AddressSpace;
use pagemirror_core::turn::{Batch, TurnOrder};

/// Naps of 1 ms that a pump of these tests waits for sections.
const TURNS: u32 = 5;

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::covering(VirtAddr::new(first << 12), count << 12, 4096).unwrap()
}

#[test]
fn a_thread_enters_one_section_at_a_time() {
    let gate = Gate::in_ordinary_memory();
    let Entered::Open(section) = gate.enter() else { panic!("the gate is open") };
    assert!(matches!(gate.enter(), Entered::Nested));
    gate.raise();
    assert!(matches!(gate.enter(), Entered::Nested), "nested comes before raised: waiting would be for itself");
    thread::scope(|scope| {
        scope.spawn(|| assert!(matches!(gate.enter(), Entered::Raised), "another thread is in no section"));
    });
    gate.lower();
    drop(section);
    assert!(matches!(gate.enter(), Entered::Open(_)), "a section that was left does not count");
}

#[test]
fn a_gate_that_two_hold_raised_opens_when_both_have_lowered_it() {
    let gate = Gate::in_ordinary_memory();
    gate.raise();
    gate.raise();
    gate.lower();
    assert!(matches!(gate.enter(), Entered::Raised));
    gate.lower();
    assert!(matches!(gate.enter(), Entered::Open(_)));
}

#[test]
fn a_wiped_word_is_lost() {
    let gate = Gate::new(GateWord::Owned(0.into()));
    assert!(matches!(gate.enter(), Entered::Lost(LostCause::Forked)));
    gate.raise();
    assert_eq!(gate.lost(), Some(LostCause::Forked), "raising a wiped word does not bring it back");
}

#[test]
fn the_pump_waits_for_sections_and_gives_up_in_time() {
    let gate = Gate::in_ordinary_memory();
    assert!(gate.drain(TURNS), "nobody is in a section");
    let Entered::Open(section) = gate.enter() else { panic!("the gate is open") };
    gate.raise();
    assert!(!gate.drain(TURNS), "somebody is");
    drop(section);
    assert!(gate.drain(0), "left sections are seen without a nap");
}

#[test]
fn an_overdue_section_loses_the_space_before_the_events_are_read() {
    let space = AddressSpace::default();
    let Entered::Open(section) = space.gate().enter() else { panic!("the gate is open") };
    let mut read = false;
    space.turn(TurnOrder::GateFirst, &mut Batch::default(), TURNS, |_| {
        read = true;
        assert_eq!(space.gate().lost(), Some(LostCause::SectionOverdue), "whoever is released has been told");
    });
    assert!(read, "the callers are released all the same");
    drop(section);
    assert!(matches!(space.gate().enter(), Entered::Lost(LostCause::SectionOverdue)));
}

#[test]
fn a_turn_reads_behind_the_gate_and_lowers_it_again() {
    let space = AddressSpace::default();
    space.turn(TurnOrder::GateFirst, &mut Batch::default(), TURNS, |_| {
        assert!(matches!(space.gate().enter(), Entered::Raised));
    });
    assert!(matches!(space.gate().enter(), Entered::Open(_)));
    space.turn(TurnOrder::ReadFirst, &mut Batch::default(), TURNS, |_| {
        assert!(matches!(space.gate().enter(), Entered::Open(_)), "the control run is wrong on purpose");
    });
}

#[test]
fn only_a_discard_is_in_doubt_after_its_turn() {
    let space = Arc::new(AddressSpace::default());
    let mut batch = Batch::default();
    batch.push(Event::Unmap, pages(90, 1));
    space.turn(TurnOrder::GateFirst, &mut batch, TURNS, |batch| {
        assert!(batch.events().is_empty(), "a turn does not apply the events of the one before");
        batch.push(Event::Unmap, pages(0, 1));
        batch.push(Event::Remap, pages(2, 1));
        batch.push(Event::Remove, pages(4, 1));
    });
    assert!(space.doubt().overlaps(pages(4, 1)));
    assert!(!space.doubt().overlaps(pages(0, 4)));
}

#[test]
fn a_full_batch_becomes_one_discard_of_everything() {
    let mut batch = Batch::default();
    let mut pushed = 0;
    while batch.events().len() == pushed {
        batch.push(Event::Unmap, pages(pushed as u64, 1));
        pushed += 1;
    }
    let last = (Event::Unmap, pages(pushed as u64 - 1, 1));
    assert!(pushed > 2, "a batch holds more than one event");
    assert_eq!(batch.events(), [(Event::Remove, PageRange::ALL), last], "everything, then what did not fit");

    // The turn that it comes from leaves everything in doubt, as a discard of everything would.
    let space = AddressSpace::default();
    space.turn(TurnOrder::GateFirst, &mut Batch::default(), TURNS, |turn| {
        batch.events().iter().for_each(|(event, range)| assert!(turn.push(*event, *range)));
    });
    assert!(space.doubt().overlaps(pages(1 << 30, 1)));
}

/// Many uses beside a pump that turns all the time: every one comes through, and none overlaps a read.
#[test]
fn uses_and_turns_interleave_without_loss() {
    let space = AddressSpace::default();
    let stop = AtomicBool::new(false);
    let reading = AtomicBool::new(false);
    thread::scope(|scope| {
        let users: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0_u32;
                    while served < 2_000 {
                        match space.gate().enter() {
                            Entered::Open(_section) => {
                                assert!(!reading.load(Ordering::Relaxed), "a section beside a read");
                                served += 1;
                            }
                            Entered::Raised => thread::yield_now(),
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        let pump = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // A preempted section is nobody's fault here, so the pump is as patient as the test.
                space.turn(TurnOrder::GateFirst, &mut Batch::default(), 60_000, |_| {
                    reading.store(true, Ordering::Relaxed);
                    thread::yield_now();
                    reading.store(false, Ordering::Relaxed);
                });
                thread::yield_now();
            }
        });
        let answers: Vec<_> = users.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        pump.join().unwrap();
        assert!(answers.iter().all(Result::is_ok));
    });
    assert!(space.gate().lost().is_none());
}
