//! Uses and faults against the pump: the gate, the sections, and discards that have no end.

use pagemirror_core::addr::PageRange;
use pagemirror_core::gate::{Entered, Gate};
use pagemirror_core::log::CollisionLog;
use pagemirror_core::notify::{Event, Subscriber};
use pagemirror_core::space::{AddressSpace, Subscription};
use pagemirror_core::turn::{Batch, TurnOrder};
use pagemirror_core::wait::{Deadline, Wait};
use pagemirror_sync::atomic::{AtomicU64, Ordering};
use pagemirror_sync::{Arc, planted};

use super::engine::beside;
use super::world::{LONG, SMALL, World, here};

/// A translation that uses look up without a lock: the gate alone orders the look behind the revocation.
struct Lease {
    stands: AtomicU64,
}

impl Subscriber for Lease {
    fn invalidate(&self, range: PageRange, _event: Event) {
        if range.overlaps(here()) {
            self.stands.store(0, Ordering::Relaxed);
        }
    }
}

struct Device {
    space: Arc<AddressSpace>,
    lease: Arc<Lease>,
    /// What the released caller of munmap does next: the page belongs to somebody else.
    gone: AtomicU64,
    /// A submission with the old translation is being made.
    submitting: AtomicU64,
    _subscription: Subscription,
}

impl Device {
    fn new() -> Arc<Self> {
        let space = Arc::new(AddressSpace::new(CollisionLog::new(SMALL), Gate::in_ordinary_memory()));
        let lease = Arc::new(Lease { stands: AtomicU64::new(1) });
        let subscription = space.subscribe(Arc::clone(&lease) as Arc<dyn Subscriber>);
        let (gone, submitting) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { space, lease, gone, submitting, _subscription: subscription })
    }

    /// The pump finds one UNMAP. Reading it releases the caller, whose page is gone from that moment.
    fn pump(&self, section_turns: u32) {
        self.space.turn(TurnOrder::GateFirst, &mut Batch::default(), section_turns, |batch| {
            if self.space.gate().lost().is_none() {
                let submitting = self.submitting.load(Ordering::Relaxed);
                assert_eq!(submitting, 0, "VIOLATION: the caller is released while a use is in its section");
            }
            // ORDERING: Release, as the kernel releases the caller: what the pump did before, the caller can see.
            self.gone.store(1, Ordering::Release);
            batch.push(Event::Unmap, here());
        });
    }

    /// One use: enter, look the translation up, submit, leave. Waits outside while the gate is raised.
    fn use_once(&self) {
        let gate = self.space.gate();
        loop {
            match gate.enter() {
                Entered::Open(section) => {
                    self.submit();
                    drop(section);
                    return;
                }
                Entered::Raised => {
                    // Lost ends the wait as well; entering again then says so.
                    let _ = gate.wait_open(&Wait::new(&Deadline::after(LONG), gate));
                }
                Entered::Lost(_) => return,
                Entered::Nested => panic!("VIOLATION: this thread is in no section"),
            }
        }
    }

    fn submit(&self) {
        if self.lease.stands.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.submitting.store(1, Ordering::Relaxed);
        // ORDERING: Acquire, as who is given the page: it knows what the kernel did before it released the caller.
        if self.gone.load(Ordering::Acquire) == 1 {
            // A section past its deadline goes on, but then everybody has been told before the events were read.
            let lost = self.space.gate().lost();
            assert!(lost.is_some(), "VIOLATION: a use gets the old translation of a page that is gone");
        }
        self.submitting.store(0, Ordering::Relaxed);
    }
}

/// A use beside one turn of the pump that is patient: one use that begins before, at, or after the turn.
pub(crate) fn section_and_gate_against_pump() {
    let device = Device::new();
    let pump = beside(&device, |device| device.pump(2));
    device.use_once();
    pump.join().unwrap();
    // The turn is over: whoever enters now finds the revocation, whatever happened before.
    device.use_once();
}

/// The gate alone: without the log, whose fences would order the revocation before the gate is lowered as well.
pub(crate) fn gate_alone_against_pump() {
    let device = Device::new();
    let pump = beside(&device, |device| {
        let gate = device.space.gate();
        gate.raise();
        if gate.drain(2) {
            device.gone.store(1, Ordering::Release);
            device.lease.invalidate(here(), Event::Requested);
        }
        gate.lower();
    });
    device.use_once();
    device.use_once();
    pump.join().unwrap();
}

/// Two uses, each with a section counter of its own, beside one turn.
pub(crate) fn two_sections_against_pump() {
    let device = Device::new();
    let pump = beside(&device, |device| device.pump(2));
    let other = beside(&device, Device::use_once);
    device.use_once();
    other.join().unwrap();
    pump.join().unwrap();
}

/// The same with a pump that looks at the sections once: the space is lost before the caller is released.
pub(crate) fn overdue_section_against_pump() {
    let device = Device::new();
    let pump = beside(&device, |device| device.pump(1));
    device.use_once();
    pump.join().unwrap();
}

/// A discard: its caller is released by the read and removes the page at any time later, and no further event says so.
/// What a reader keeps must not be the doomed page. In the end the caller is seen to have returned, the doubt ends, and
/// whoever finds it ended finds the page removed.
pub(crate) fn doubt_against_append_and_token() {
    let world = World::new(SMALL);
    let pump = {
        let shared = Arc::clone(&world);
        beside(&world, move |world| {
            let mut caller = None;
            world.space.turn(TurnOrder::GateFirst, &mut Batch::default(), 1, |batch| {
                caller = Some(beside(&shared, World::change));
                batch.push(Event::Remove, here());
            });
            // The proof that the caller has returned. It ends the doubts that were set before it began.
            let proof = world.space.doubt().mark();
            caller.unwrap().join().unwrap();
            world.space.doubt().end(proof);
        })
    };
    fault_unless_in_doubt(&world);
    pump.join().unwrap();
    world.assert_coherent();
    assert!(!world.space.doubt().any(), "VIOLATION: a doubt outlives its proof");
}

fn fault_unless_in_doubt(world: &World) {
    // Planted in the reader: the doubt is asked for before the token is taken.
    let asked_early = planted("doubt-before-token").then(|| world.space.doubt().overlaps(here()));
    let attempt = world.begin(here(), None);
    if asked_early.unwrap_or_else(|| world.space.doubt().overlaps(here())) {
        // Read in doubt: it serves the request that is waiting and is not kept.
        return;
    }
    let seen = world.snapshot();
    let _ = world.commit(&attempt, seen);
}
