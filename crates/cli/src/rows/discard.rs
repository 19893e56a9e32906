//! `discard`, and the control `no-doubt`: a use inside a large discard, after it was announced and before it is over.
//!
//! # Interleavings
//! ```text
//! T1                                        device thread, on another processor
//! madvise(DONTNEED) of much memory          asks for the last page, all the time
//! its event is read, all is revoked
//! takes page after page away, for long      registers the last page, which is still there
//! takes the last page away; returns
//! writes the last page anew                 uses what it registered: a page that nobody sees any more
//! ```

use std::time::Duration;

use pagemirror::{Control, Options};

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::cpus::{Pair, stay_on};
use super::device::{Device, Object};
use super::expanse::Expanse;
use super::hog::Hog;
use super::rig::{Rig, Setup, Unsupported};
use super::tally::Kind;

/// Stale uses after which the control has shown enough.
const SHOWN: u64 = 100;
/// How long T1 waits for the device to have used what it wrote, and for the doubt to end, so that something is cached.
const PATIENCE: Duration = Duration::from_millis(200);

/// Runs `discard`.
pub(crate) fn strict(settings: &Settings) -> Result<Outcome, Unsupported> {
    run(RowName::Discard, false, settings)
}

/// Runs `no-doubt`.
pub(crate) fn without_doubt(settings: &Settings) -> Result<Outcome, Unsupported> {
    run(RowName::NoDoubt, true, settings)
}

fn run(row: RowName, ignore_doubt: bool, settings: &Settings) -> Result<Outcome, Unsupported> {
    let cpus = Pair::of_this_process();
    // The pump beside the device thread: on T1's processor it would be put aside by T1, which its read sets free, and keep
    // the gate raised until the discard is over.
    let control = Control { ignore_doubt, pump_cpu: Some(cpus.first), ..Control::default() };
    let rig = Rig::new(Setup { control, options: Options::default(), lanes: 1, slots: 4 }, settings)?;
    let expanse = Expanse::new(&rig)?;
    let hog = Hog::new(cpus);
    std::thread::scope(|scope| {
        let (rig, expanse, hog) = (&rig, &expanse, &hog);
        scope.spawn(move || discard(rig, expanse, row, hog, cpus.second));
        scope.spawn(move || hog.run(rig));
        scope.spawn(move || use_last_page(rig, expanse, cpus.first));
    });
    Ok(rig.report(row, None))
}

/// T1.
fn discard(rig: &Rig, expanse: &Expanse, row: RowName, hog: &Hog, cpu: usize) {
    stay_on(cpu);
    while rig.runs() {
        rig.nap_until(PATIENCE, || expanse.generations().is_used() && !rig.is_in_doubt(expanse.last()));
        if let Err(error) = expanse.populate() {
            return rig.tally.halt(format!("populating failed: {error}"));
        }
        hog.call(rig);
        expanse.begin_change();
        if let Err(error) = expanse.discard_all() {
            return rig.tally.halt(format!("madvise failed: {error}"));
        }
        expanse.finish_change();
        rig.tally.invalidated(Kind::Dontneed);
        if row == RowName::NoDoubt && rig.tally.stale().0 >= SHOWN {
            rig.tally.stop();
        }
    }
}

/// The device thread.
fn use_last_page(rig: &Rig, expanse: &Expanse, cpu: usize) {
    stay_on(cpu);
    let Some(mut device) = Device::new(rig, 0) else { return };
    let piece = expanse.piece();
    while rig.runs() {
        device.send(piece, None);
        device.rest();
    }
}
