//! Arguments of `sim`.

use pagemirror_lab::sim::{Setting, TrackerName};

/// Seeds where nothing is said: some seconds of work.
const DEFAULT_SEEDS: u64 = 1000;

/// Run the protocol in a modelled Linux, from a seed, with faults, and look for what is stale, lost or blocked.
///
/// The real code of the core runs as coroutines in virtual time: the address space, the gate, turns of the pump, doubts,
/// waits, and the tracker. Threads of a modelled process unmap, replace, move, discard and protect memory; devices pin it and
/// use it; callers are late, callbacks slow, starts refused, sections overdue, coherence is lost. One seed decides
/// everything, so a seed that fails fails again; it is then made smaller and shown step by step.
///
/// Exit code: 0 when nothing is found; 1 for a finding; 2 for wrong arguments, or a build without planted bugs.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {
    /// Run this one seed
    #[arg(long, conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Run so many seeds, on all processors [default: 1000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: Option<u64>,
    /// The first of them
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    pub(crate) from: u64,
    /// The tracker to try: range-valid, notifier-count, hull-seq, interval-seq or collision-log. range-valid loses
    /// invalidations by design, so it is a finding
    #[arg(long, default_value_t = TrackerName::CollisionLog)]
    pub(crate) tracker: TrackerName,
    /// Set options instead of letting the seed choose them: name=value, or `simplest` for the smallest world. A wrong name
    /// lists them
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    pub(crate) options: Vec<Setting>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the steps of the run, also when nothing is found
    #[arg(long, requires = "seed", conflicts_with = "json")]
    pub(crate) trace: bool,
    /// Hunt this planted bug, or all of them, and say how many seeds each takes. Needs a build with RUSTFLAGS="--cfg
    /// pagemirror_planted"
    #[arg(long, value_name = "BUG", num_args = 0..=1, conflicts_with_all = ["seed", "from", "options", "tracker", "trace"])]
    #[expect(clippy::option_option, reason = "absent, all, or one: what an optional value of an option is to clap")]
    pub(crate) planted: Option<Option<String>>,
}

impl SimArgs {
    /// How many seeds to run, or to hunt with.
    pub(crate) fn count(&self, otherwise: u64) -> u64 {
        if self.seed.is_some() { 1 } else { self.seeds.unwrap_or(otherwise) }
    }

    /// The seeds to run.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        let first = self.seed.unwrap_or(self.from);
        first..first.saturating_add(self.count(DEFAULT_SEEDS))
    }
}

/// Hunts the bug that the environment planted, and prints what was found as JSON. Used by `sim --planted` itself.
#[derive(Debug, clap::Args)]
pub(crate) struct SimChildArgs {
    #[arg(long)]
    pub(crate) tracker: TrackerName,
    #[arg(long)]
    pub(crate) seeds: u64,
}
