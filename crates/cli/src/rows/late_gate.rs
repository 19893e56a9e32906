//! The control `read-then-invalidate`: a pump that reads first and raises the gate afterwards. The kernel lets the caller
//! go by that read, so a caller on the same processor may use its new mapping before anything was revoked.

use pagemirror::{Control, Options};

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::cpus::{Pair, stay_on};
use super::device::{Device, Piece};
use super::region::Region;
use super::reuse::SHOWN;
use super::rig::{Rig, Setup, Unsupported};
use super::tally::Kind;

/// Runs the row.
pub(crate) fn run(settings: &Settings) -> Result<Outcome, Unsupported> {
    let cpu = Pair::of_this_process().first;
    let control = Control { read_before_gate: true, pump_cpu: Some(cpu), ..Control::default() };
    let rig = Rig::new(Setup { control, options: Options::default(), lanes: 1, slots: 4 }, settings)?;
    let region =
        Region::anonymous(1, 1).map_err(|error| Unsupported(format!("a page could not be mapped: {error}")))?;
    stay_on(cpu);
    if let Some(mut device) = Device::new(&rig, 0) {
        while rig.runs() && rig.tally.stale().0 < SHOWN {
            let lease = device.send(Piece::whole(&region), None);
            match region.change().make(Kind::MapFixed) {
                Ok(_) => rig.tally.invalidated(Kind::MapFixed),
                Err(error) => rig.tally.halt(format!("mmap failed: {error}")),
            }
            device.send(Piece::whole(&region), lease);
        }
    }
    Ok(rig.report(RowName::ReadThenInvalidate, None))
}
