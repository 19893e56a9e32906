//! The model checks of every tracker: each case is one scenario on one tracker under one engine, in a process of its own.
//!
//! - `cases` says what there is to run, `expect` what has to come of it.
//! - `child` is the inner side: it runs one case and says what it found. `process` is the outer side, `pool` runs several.
//! - `planted` runs cases with a bug planted in them.
//! - `report` is what the two tell each other; `diagram` draws a finding.
//!
//! A case has a process of its own because a finding is a panic inside a model checker, which may well end the process.

mod cases;
mod child;
mod diagram;
mod expect;
mod planted;
mod pool;
mod process;
mod report;

pub use cases::{Case, Engine, Selection, scenarios, trackers};
pub use child::run as run_child;
pub use diagram::draw;
pub use expect::{Expected, Judged};
pub use pagemirror_trackers::catalogue::TrackerName;
pub use planted::{Bug, HAS_PLANTED_BUGS, Hunted, bugs, hunt, markdown};
pub use pool::{Progress, run};
pub use report::{Ended, Finding, FindingKind, Side, Step};
