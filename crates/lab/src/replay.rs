//! `replay`: every tracker on what real programs did to their address spaces, with a device beside them.

mod shipped;
#[cfg(test)]
mod tests;

pub use shipped::shipped;

use pagemirror_trackers::with_tracker;
use serde::Serialize;

use crate::drive::{Costs, Counts, Plan, TimeModel, drive};
use crate::trace::Trace;
use crate::variant::Variant;
use crate::workload::{DeviceOptions, Lives};

/// What to replay.
#[derive(Debug, Clone, Serialize)]
pub struct ReplayOptions {
    /// The device beside the program.
    pub device: DeviceOptions,
    /// Durations outside the trackers.
    pub time: TimeModel,
    /// Which trackers.
    pub variants: Vec<Variant>,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { device: DeviceOptions::default(), time: TimeModel::default(), variants: Variant::all() }
    }
}

/// One trace on every tracker.
#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    /// What it is called.
    pub name: String,
    /// The program that was traced.
    pub command: String,
    /// Events in it.
    pub events: usize,
    /// Address spaces in which something happened. Each had a tracker and a device of its own.
    pub spaces: usize,
    /// From the first event to the last, in microseconds.
    pub span_us: u64,
    /// What each tracker decided.
    pub rows: Vec<ReplayRow>,
}

/// What one tracker decided, over all address spaces of a trace.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReplayRow {
    /// Which.
    pub variant: Variant,
    /// What was counted: the same on every machine.
    pub counts: Counts,
}

/// Replays one trace. `each` is told of each tracker before its turn.
pub fn replay(name: &str, trace: &Trace, options: &ReplayOptions, each: &mut dyn FnMut(Variant)) -> Replayed {
    let lives = Lives::of(trace);
    let mut row = |&variant: &Variant| {
        each(variant);
        ReplayRow { variant, counts: counts(&lives, variant, options) }
    };
    Replayed {
        name: name.to_owned(),
        command: trace.header().command.clone(),
        events: trace.events().len(),
        spaces: lives.spaces(options.device, options.time).count(),
        span_us: trace.span_us(),
        rows: options.variants.iter().map(&mut row).collect(),
    }
}

fn counts(lives: &Lives, variant: Variant, options: &ReplayOptions) -> Counts {
    lives.spaces(options.device, options.time).fold(Counts::default(), |sum, (mut space, until)| {
        let plan = Plan {
            until,
            device_threads: options.device.threads,
            time: options.time,
            costs: Costs::default(),
            keeping: variant.keeping,
        };
        sum.and(with_tracker!(variant.tracker, |tracker| drive(&tracker, &mut space, &plan)))
    })
}
