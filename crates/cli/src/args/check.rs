//! The arguments of `check`.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use pagemirror_lab::check::{Bug, Engine, Selection, TrackerName, bugs, scenarios, trackers};

/// Check every collision tracker with two model checkers and on real threads.
///
/// Each scenario is a few threads around one page: some read the page table and install what they read, some change it.
/// loom runs it in every order up to a number of switches, shuttle in thousands of random orders from a fixed seed, and
/// the machine's own threads for a moment. What the device holds in the end must be the page that is there, nobody may be
/// kept waiting for ever, and nobody may be sent round whom the tracker promises to leave alone.
///
/// The 2019 design, range-valid, keeps one flag for each range. An invalidation that starts and ends between a reader's
/// snapshot and its commit leaves no trace in it. The check has to find that, and prints what the checker did.
///
/// Exit code: 0 when all is as expected; 1 for a finding that is not, or when the flaw of range-valid is no longer found;
/// 2 for wrong arguments, or when this build or machine lacks something.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Check only this tracker; may be given more than once [default: all]
    #[arg(long = "tracker", value_name = "NAME", value_parser = tracker_names())]
    trackers: Vec<TrackerName>,
    /// Run only this scenario; may be given more than once [default: all]
    #[arg(long = "scenario", value_name = "NAME", value_parser = scenario_names())]
    scenarios: Vec<String>,
    /// Use only this engine; may be given more than once [default: all]
    #[arg(long = "engine", value_name = "NAME", value_parser = engine_names())]
    engines: Vec<Engine>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Show that the checks can fail: plant each bug, or this one, and hunt it with both checkers. Needs a build with
    /// RUSTFLAGS="--cfg pagemirror_planted"
    #[arg(long, value_name = "BUG", num_args = 0..=1, value_parser = bug_names(), conflicts_with_all = ["trackers", "scenarios", "engines"])]
    planted: Option<Option<Bug>>,
    /// Write the table of planted bugs to this file, as it stands in docs/planted-bugs.md
    #[arg(long, value_name = "FILE", requires = "planted")]
    pub(crate) markdown: Option<PathBuf>,
}

impl CheckArgs {
    pub(crate) fn selection(&self) -> Selection {
        Selection { trackers: self.trackers.clone(), scenarios: self.scenarios.clone(), engines: self.engines.clone() }
    }

    /// The bugs to hunt, if that is what was asked for.
    pub(crate) fn planted(&self) -> Option<Vec<Bug>> {
        self.planted.map(|one| one.map_or_else(bugs, |bug| vec![bug]))
    }
}

/// Runs one scenario in this process and says what came of it. Used by `check` itself.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckChildArgs {
    #[arg(long)]
    pub(crate) tracker: String,
    #[arg(long)]
    pub(crate) scenario: String,
    #[arg(long, value_parser = engine_names())]
    pub(crate) engine: Engine,
}

/// Names that clap lists when somebody gives another one.
fn tracker_names() -> impl TypedValueParser<Value = TrackerName> {
    PossibleValuesParser::new(trackers()).try_map(|name| name.parse::<TrackerName>())
}

fn scenario_names() -> impl TypedValueParser<Value = String> {
    let named = |(name, shows): (&'static str, &'static str)| PossibleValue::new(name).help(shows);
    PossibleValuesParser::new(scenarios().into_iter().map(named))
}

fn bug_names() -> impl TypedValueParser<Value = Bug> {
    let named = |bug: Bug| PossibleValue::new(bug.name).hide(true);
    let find = |name: String| {
        bugs().into_iter().find(|bug| bug.name == name).ok_or_else(|| format!("no bug is named {name:?}"))
    };
    PossibleValuesParser::new(bugs().into_iter().map(named)).try_map(find)
}

fn engine_names() -> impl TypedValueParser<Value = Engine> {
    PossibleValuesParser::new(Engine::ALL.map(Engine::text)).try_map(|name| name.parse::<Engine>())
}
