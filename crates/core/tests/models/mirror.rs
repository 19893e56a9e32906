//! The whole fault path and the mediated access of a mirror, over a host of one page.

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::gate::Gate;
use pagemirror_core::log::CollisionLog;
use pagemirror_core::mirror::{Accessed, FaultErrorKind, HostSpace, Look, Mirror, Need, Refusal, Request, Run};
use pagemirror_core::notify::Event;
use pagemirror_core::source::{Probe, Source, WatchError, Watched};
use pagemirror_core::space::AddressSpace;
use pagemirror_core::table::Page;
use pagemirror_core::turn::{Batch, TurnOrder};
use pagemirror_core::wait::Deadline;
use pagemirror_sync::Arc;
use pagemirror_sync::atomic::{AtomicU64, Ordering};

use super::engine::beside;
use super::world::{LONG, SMALL, here, pages};

/// Memory of which one page is looked at: its frame is a number that grows with each change.
#[derive(Debug)]
struct Host {
    space: Arc<AddressSpace>,
    /// Faults read it with Relaxed, so that the library alone carries the order.
    content: AtomicU64,
}

impl Source for Host {
    fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }
    fn page_size(&self) -> u64 {
        4096
    }
    fn probe(&self) -> Probe {
        Probe::Quiet
    }
    fn watch(&self, _range: PageRange) -> Result<Watched, WatchError> {
        Ok(Watched::Covered)
    }
}

impl HostSpace for Host {
    fn range_fault(&self, _range: PageRange, _needs: &[Need], pages: &mut [Page]) -> Look {
        pages.fill(Page::readable(self.content.load(Ordering::Relaxed)));
        Look::Told { told: pages.len(), in_doubt: false, refused: None }
    }

    fn snapshot(&self, range: PageRange, visit: &mut dyn FnMut(Run)) -> Result<(), (VirtAddr, Refusal)> {
        // Two looks, so that a change can come between them.
        // ORDERING: Acquire, see `change`: who sees a change also sees what was done before it.
        let first = self.content.load(Ordering::Acquire);
        visit(Run { range: pages(range.start().get() / 4096, 1), page: Page::readable(first) });
        let second = self.content.load(Ordering::Acquire);
        visit(Run { range: pages(range.start().get() / 4096 + 1, 1), page: Page::readable(second) });
        Ok(())
    }
}

struct World {
    mirror: Mirror<Host>,
    /// The caller of munmap was released.
    gone: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let space = Arc::new(AddressSpace::new(CollisionLog::new(SMALL), Gate::in_ordinary_memory()));
        let mirror = Mirror::new(Arc::new(Host { space, content: AtomicU64::new(0) }));
        // The nodes are linked by a standard `OnceLock`, which loom does not know: they are there before the threads are.
        mirror.table().prepare(here()).unwrap();
        Arc::new(Self { mirror, gone: AtomicU64::new(0) })
    }

    fn space(&self) -> &Arc<AddressSpace> {
        self.mirror.table().space()
    }

    fn content(&self) -> u64 {
        self.mirror.host().content.load(Ordering::Relaxed)
    }

    fn change(&self) {
        // ORDERING: Release, as the kernel's lock of its page table; only a snapshot reads with Acquire.
        self.mirror.host().content.fetch_add(1, Ordering::Release);
    }

    fn invalidate(&self) {
        let running = self.space().invalidate_start(here(), Event::Requested);
        self.change();
        drop(running);
    }

    fn fault(&self) {
        let asked = self.mirror.range_fault(here(), Request::all(Need::READ), &Deadline::after(LONG));
        assert!(asked.is_ok(), "VIOLATION: a fault beside so few changes fails: {asked:?}");
    }

    fn assert_coherent(&self) {
        let (held, now) = (self.mirror.table().walk(here().start()), self.content());
        assert!(
            !held.is_valid() || held.frame() == now,
            "VIOLATION: the device holds page {}, but page {now} is there",
            held.frame()
        );
    }
}

/// A fault goes round until it has what is true, beside two changes.
pub(crate) fn range_fault_against_invalidate() {
    let world = World::new();
    let writer = beside(&world, |world| {
        world.invalidate();
        world.invalidate();
    });
    world.fault();
    writer.join().unwrap();
    world.assert_coherent();
    assert_eq!(world.mirror.stats().false_retries, 0, "VIOLATION: hit by an invalidation elsewhere");
}

/// Two faults of one page and a change.
pub(crate) fn two_range_faults_against_invalidate() {
    let world = World::new();
    let other = beside(&world, World::fault);
    let writer = beside(&world, World::invalidate);
    world.fault();
    other.join().unwrap();
    writer.join().unwrap();
    world.assert_coherent();
}

/// A discard without an end, as in `doubt_against_append_and_token`, beside the whole fault path.
pub(crate) fn range_fault_against_a_discard() {
    let world = World::new();
    let pump = {
        let shared = Arc::clone(&world);
        beside(&world, move |world| {
            let mut caller = None;
            world.space().turn(TurnOrder::GateFirst, &mut Batch::default(), 1, |batch| {
                caller = Some(beside(&shared, World::change));
                batch.push(Event::Remove, here());
            });
            let proof = world.space().doubt().mark();
            caller.unwrap().join().unwrap();
            world.space().doubt().end(proof);
        })
    };
    world.fault();
    pump.join().unwrap();
    world.assert_coherent();
}

/// An access beside an UNMAP: whoever is inside with the old translation keeps the caller of munmap waiting.
pub(crate) fn access_against_the_pump() {
    let world = World::new();
    world.fault();
    let pump = beside(&world, |world| {
        world.change();
        world.space().turn(TurnOrder::GateFirst, &mut Batch::default(), 3, |batch| {
            // ORDERING: Release, as the kernel releases the caller: what the pump did before, the caller can see.
            world.gone.store(1, Ordering::Release);
            batch.push(Event::Unmap, here());
        });
    });
    let used = world.mirror.access(here(), Need::READ, &Deadline::after(LONG), |pages| {
        // ORDERING: Acquire, as who is given the page.
        let gone = world.gone.load(Ordering::Acquire) == 1;
        let lost = world.space().gate().lost().is_some();
        assert!(
            !gone || pages[0].frame() == 1 || lost,
            "VIOLATION: an access goes by the old translation of a page that is gone"
        );
        Ok(())
    });
    match used {
        Ok(Accessed::Done(())) => {}
        // The pump has looked at the sections too few times.
        Err(error) => assert!(matches!(error.kind, FaultErrorKind::Wait(_)), "VIOLATION: {error}"),
        Ok(Accessed::Not(why)) => panic!("VIOLATION: nothing is in doubt or contended, but: {why:?}"),
    }
    pump.join().unwrap();
}

/// A snapshot of two pages never shows one from before a change and one from after it.
pub(crate) fn snapshot_against_invalidate() {
    let world = World::new();
    let writer = beside(&world, World::invalidate);
    let runs = world.mirror.snapshot(here(), &Deadline::after(LONG)).unwrap();
    assert_eq!(runs.len(), 1, "VIOLATION: a snapshot is torn by a change: {runs:?}");
    writer.join().unwrap();
}
