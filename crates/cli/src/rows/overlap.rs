//! `discard2`, and the control `first-absence`: a small discard ends inside a large one that overlaps it.
//!
//! # Interleavings
//! ```text
//! T1                                        T2, which is also the device thread, on another processor
//! madvise(DONTNEED) of much memory
//! its event is read; takes pages away        madvise(DONTNEED) of the last page; returns
//!                                            the last page is absent: by whom?
//!                                            writes it anew, registers it, uses it
//! takes the last page away; returns
//!                                            writes it anew, uses what it registered
//! ```

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pagemirror::{Control, Options};

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::cpus::{Pair, stay_on};
use super::device::Device;
use super::expanse::Expanse;
use super::hog::Hog;
use super::rig::{Rig, Setup, Unsupported};
use super::tally::Kind;

/// Stale uses after which the control has shown enough.
const SHOWN: u64 = 3;
/// How long one waits for the other, or for every doubt to end, before it goes on without.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long T2 gives a weaker proof to end the doubt, while T1 is still at work.
const WEAKER: Duration = Duration::from_millis(2);

/// T1 rests.
const IDLE: u8 = 0;
/// T1 is to discard everything.
const GO: u8 = 1;
/// T1 has returned from madvise.
const RETURNED: u8 = 2;

/// Runs `discard2`.
pub(crate) fn strict(settings: &Settings) -> Result<Outcome, Unsupported> {
    run(RowName::Discard2, false, settings)
}

/// Runs `first-absence`.
pub(crate) fn with_first_absence(settings: &Settings) -> Result<Outcome, Unsupported> {
    run(RowName::FirstAbsence, true, settings)
}

fn run(row: RowName, doubt_ends_at_first_absence: bool, settings: &Settings) -> Result<Outcome, Unsupported> {
    let cpus = Pair::of_this_process();
    // As in `discard`: the pump beside the device thread.
    let control = Control { doubt_ends_at_first_absence, pump_cpu: Some(cpus.first), ..Control::default() };
    let rig = Rig::new(Setup { control, options: Options::default(), lanes: 1, slots: 4 }, settings)?;
    let expanse = Expanse::new(&rig)?;
    let (phase, hog) = (AtomicU8::new(IDLE), Hog::new(cpus));
    let mut overlap = Overlap { rig: &rig, expanse: &expanse, phase: &phase, rounds: 0, inside: 0 };
    std::thread::scope(|scope| {
        let (rig, expanse, phase, hog) = (&rig, &expanse, &phase, &hog);
        scope.spawn(move || discard_on_demand(rig, expanse, phase, hog, cpus.second));
        scope.spawn(move || hog.run(rig));
        stay_on(cpus.first);
        overlap.play(row);
        rig.tally.stop();
    });
    let note =
        format!("{} rounds; in {} the small discard was over before the large one", overlap.rounds, overlap.inside);
    Ok(rig.report(row, Some(note)))
}

/// T1.
fn discard_on_demand(rig: &Rig, expanse: &Expanse, phase: &AtomicU8, hog: &Hog, cpu: usize) {
    stay_on(cpu);
    while rig.runs() {
        // ORDERING: Acquire pairs with the Release of `round`: every page is there.
        if !rig.nap_until(PATIENCE, || phase.load(Ordering::Acquire) == GO) {
            continue;
        }
        hog.call(rig);
        if let Err(error) = expanse.discard_all() {
            rig.tally.halt(format!("madvise failed: {error}"));
        }
        rig.tally.invalidated(Kind::Dontneed);
        phase.store(RETURNED, Ordering::Release);
    }
}

/// T2.
struct Overlap<'r> {
    rig: &'r Rig,
    expanse: &'r Expanse,
    phase: &'r AtomicU8,
    rounds: u64,
    inside: u64,
}

impl Overlap<'_> {
    fn play(&mut self, row: RowName) {
        let Some(mut device) = Device::new(self.rig, 0) else { return };
        while self.rig.runs() && (row == RowName::Discard2 || self.rig.tally.stale().0 < SHOWN) {
            if let Err(error) = self.round(&mut device) {
                self.rig.tally.halt(format!("a memory call failed: {error}"));
            }
        }
    }

    fn round(&mut self, device: &mut Device<'_>) -> std::io::Result<()> {
        let (rig, expanse) = (self.rig, self.expanse);
        expanse.populate()?;
        // Without a doubt at the start, the doubt below is that of the large discard.
        rig.nap_until(PATIENCE, || !rig.is_in_doubt(expanse.last()));
        device.send(expanse.piece(), None);
        // ORDERING: Release pairs with the Acquire of T1, here and below.
        self.phase.store(GO, Ordering::Release);
        if !rig.spin_until(PATIENCE, || rig.is_in_doubt(expanse.last())) {
            self.cut_short("the large discard was not announced");
            return Ok(());
        }
        expanse.begin_change();
        expanse.discard_last()?;
        rig.tally.invalidated(Kind::Dontneed);
        self.rounds += 1;
        self.inside += u64::from(self.phase.load(Ordering::Acquire) == GO);
        rig.spin_until(WEAKER, || !rig.is_in_doubt(expanse.last()));
        expanse.finish_change();
        // From here on T1 may take the page away at any moment: that is a change under way.
        expanse.begin_change();
        let lease = device.send(expanse.piece(), None);
        if !rig.nap_until(PATIENCE, || self.phase.load(Ordering::Acquire) == RETURNED) {
            self.cut_short("the large discard did not return");
            return Ok(());
        }
        expanse.finish_change();
        device.send(expanse.piece(), lease);
        Ok(())
    }

    /// T1 is still at work: nothing can be said of this round. At the end of the row that is nothing unusual.
    fn cut_short(&self, what: &str) {
        if self.rig.runs() {
            self.rig.tally.halt(format!("{what} within {PATIENCE:?}"));
        }
    }
}
