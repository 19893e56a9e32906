//! `reuse`, and the control `no-probe`: another thread takes the address before munmap has returned.
//!
//! # Interleavings
//! ```text
//! T1                                        T2, the device thread, on another processor, with the pump
//! munmap: the mapping is gone               mmap(MAP_FIXED_NOREPLACE) of the same address succeeds
//! sleeps until its event is read            fills it, begins a use of the lease that it holds
//! ```
//! The event is not read yet, so nothing was revoked; only the kernel knows. The probe asks it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pagemirror::{Control, Freshness, Options};

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::cpus::{Pair, stay_on};
use super::device::{Device, Piece};
use super::memory::{Backing, Placement, Span};
use super::region::Region;
use super::rig::{Rig, Setup, Unsupported};
use super::tally::Kind;

/// Uses that a control row looks at after it has shown what it is there to show.
pub(super) const SHOWN: u64 = 2000;

/// How long T2 waits for T1 at any point before it looks whether the row is over.
const PATIENCE: Duration = Duration::from_secs(5);

/// T1 rests.
const IDLE: u8 = 0;
/// T1 is to unmap.
const GO: u8 = 1;
/// T1 has returned from munmap.
const RETURNED: u8 = 2;

/// Runs `reuse`.
pub(crate) fn strict(settings: &Settings) -> Result<Outcome, Unsupported> {
    run(RowName::Reuse, Freshness::Strict, settings)
}

/// Runs `no-probe`.
pub(crate) fn without_probe(settings: &Settings) -> Result<Outcome, Unsupported> {
    run(RowName::NoProbe, Freshness::Ordered, settings)
}

fn run(row: RowName, freshness: Freshness, settings: &Settings) -> Result<Outcome, Unsupported> {
    let cpus = Pair::of_this_process();
    // The pump on T2's processor: it reads only when T2 lets it, which leaves T2 the time that it needs.
    let control = Control { pump_cpu: Some(cpus.first), ..Control::default() };
    let options = Options { freshness, ..Options::default() };
    let rig = Rig::new(Setup { control, options, lanes: 1, slots: 4 }, settings)?;
    let region =
        Region::anonymous(1, 1).map_err(|error| Unsupported(format!("a page could not be mapped: {error}")))?;
    let phase = AtomicU8::new(IDLE);
    let mut duel = Duel { rig: &rig, region: &region, phase: &phase, rounds: 0, early: 0 };
    std::thread::scope(|scope| {
        let (rig, phase, span) = (&rig, &phase, region.span());
        scope.spawn(move || unmap_on_demand(rig, phase, span, cpus.second));
        stay_on(cpus.first);
        duel.fight(row);
        rig.tally.stop();
    });
    let note = format!("{} rounds; in {} the address was in use again before munmap returned", duel.rounds, duel.early);
    Ok(rig.report(row, Some(note)))
}

/// T1.
fn unmap_on_demand(rig: &Rig, phase: &AtomicU8, span: Span, cpu: usize) {
    stay_on(cpu);
    while rig.runs() {
        // ORDERING: Acquire pairs with the Release of `fight`: the page that is there is the one to unmap.
        if phase.load(Ordering::Acquire) != GO {
            std::thread::yield_now();
            continue;
        }
        if let Err(error) = span.unmap() {
            rig.tally.halt(format!("munmap failed: {error}"));
        }
        phase.store(RETURNED, Ordering::Release);
    }
}

/// T2.
struct Duel<'r> {
    rig: &'r Rig,
    region: &'r Region,
    phase: &'r AtomicU8,
    rounds: u64,
    early: u64,
}

impl Duel<'_> {
    fn fight(&mut self, row: RowName) {
        let Some(mut device) = Device::new(self.rig, 0) else { return };
        while self.rig.runs() && (row == RowName::Reuse || self.rig.tally.stale().0 < SHOWN) {
            let lease = device.send(Piece::whole(self.region), None);
            // ORDERING: Release, see `unmap_on_demand`.
            self.phase.store(GO, Ordering::Release);
            let taken = || self.region.span().map(Backing::Anonymous, Placement::Free).is_ok();
            if !self.rig.spin_until(PATIENCE, taken) {
                break;
            }
            self.rounds += 1;
            self.early += u64::from(self.phase.load(Ordering::Acquire) == GO);
            self.region.restamp();
            device.send(Piece::whole(self.region), lease);
            self.rig.tally.invalidated(Kind::Munmap);
            if !self.rig.spin_until(PATIENCE, || self.phase.load(Ordering::Acquire) == RETURNED) {
                break;
            }
        }
    }
}
