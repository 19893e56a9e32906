//! The control `naive`: a cache that registers once and never hears of a change. What everybody writes first.

use std::time::Instant;

use pagemirror::{Access, Registrar};

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::device::Object;
use super::oracle;
use super::region::Region;
use super::reuse::SHOWN;
use super::rig::{Clock, Unsupported, open_ring, report_of};
use super::ring::{Lane, Transfer};
use super::tally::{Kind, Tally};

/// Runs the row.
pub(crate) fn run(settings: &Settings) -> Result<Outcome, Unsupported> {
    let (ring, device) = open_ring(1, 1)?;
    let failed = |what: &str, error: &dyn std::fmt::Display| Unsupported(format!("{what} failed: {error}"));
    let region = Region::anonymous(1, 1).map_err(|error| failed("mmap", &error))?;
    let range = region.span().range().map_err(|error| failed("mmap", &error))?;
    let slot = device.register(range, Access::Read).map_err(|error| Unsupported::because(&error))?;
    let mut lane = Lane::new(&ring, 0).map_err(|error| failed("a pipe", &error))?;
    let (tally, clock) = (Tally::default(), Clock::start(settings.time));
    let transfer = Transfer { slot: slot.get(), address: region.span().address(), len: region.span().len() };
    let begun = Instant::now();
    while !clock.is_over() && !tally.is_stopped() && tally.stale().0 < SHOWN {
        if let Err(error) = round(&mut lane, transfer, &region, &tally) {
            tally.halt(format!("after {:?}: {error}", begun.elapsed()));
        }
    }
    Ok(Outcome::Ran(Box::new(report_of(RowName::Naive, &clock, &tally))))
}

fn round(lane: &mut Lane<'_>, transfer: Transfer, region: &Region, tally: &Tally) -> std::io::Result<()> {
    region.change().make(Kind::Munmap)?;
    tally.invalidated(Kind::Munmap);
    let since = region.generations().done();
    lane.submit(transfer)?;
    let sent = lane.wait()?;
    let window = region.generations().window(since);
    let stale = oracle::check(region.id(), 0, lane.read_back(sent)?, window);
    tally.checked("region", region.id(), sent, window, stale);
    Ok(())
}
