//! Planted bugs: each must be caught, or the check has no power.
//!
//! Only a build with `--cfg pagemirror_planted` has them; the environment of a case's process chooses one. A bug counts as
//! caught by the first scenario in which it leads to a violation or a deadlock *and which the tracker passes without it*:
//! where the 2019 design fails anyhow, nothing is shown.

use pagemirror_trackers::catalogue::TrackerName;
use pagemirror_trackers::planted::PLANTED;
use pagemirror_trackers::scenario::SCENARIOS;
use serde::Serialize;

use super::cases::{Case, Engine};
use super::expect::Expected;
use super::pool::beside_each_other;
use super::process::{self, Order};
use super::report::{Ended, FindingKind};
use crate::sim;

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bug {
    /// Its name.
    pub name: &'static str,
    /// In which tracker, or in what every tracker stands on.
    pub tracker: TrackerName,
    /// What it breaks.
    pub breaks: &'static str,
}

const fn log(name: &'static str, breaks: &'static str) -> Bug {
    Bug { name, tracker: TrackerName::CollisionLog, breaks }
}

/// The bugs of the log, and of the wait queue and the space below every tracker. Those of the ring's entries and of the gate
/// are hunted by the models of the core.
const OF_THE_LOG: [Bug; 13] = [
    log("number-before-slot", "an invalidation takes its number before it shows its range"),
    log("slots-before-head", "a reader looks for running invalidations before it takes its token"),
    log("no-wait", "a reader begins beside a running invalidation"),
    log("token-relaxed", "the token is loaded without Acquire"),
    log("busy-load-relaxed", "a reader looks for running invalidations without Acquire"),
    log("free-load-relaxed", "a running slot is taken without Acquire from who left it"),
    log("clear-relaxed", "a running slot is left without Release"),
    log("ends-forgotten", "the commit looks only at what runs"),
    log("one-slot-per-thread", "nested invalidations share a running slot"),
    log("hit-without-fence", "no fence between an invalidation's slot and its look at the readers"),
    log("hit-against-zero", "a hit counts though it is older than the token"),
    log("wake-without-fence", "no fence between the end and the look at the sleepers"),
    log("release-without-wake", "the end of the address space wakes nobody"),
];

/// Every bug that the check looks for.
#[must_use]
pub fn bugs() -> Vec<Bug> {
    let others = PLANTED.iter().map(|bug| Bug { name: bug.name, tracker: bug.tracker, breaks: bug.breaks });
    others.chain(OF_THE_LOG).collect()
}

/// Whether this build has the bugs.
pub const HAS_PLANTED_BUGS: bool = cfg!(pagemirror_planted);

/// The checkers that hunt; on real threads a bug needs luck.
const HUNTERS: [Engine; 2] = [Engine::Loom, Engine::Shuttle];

/// Seeds after which the simulator counts as blind to a bug: several times what the rarest one takes.
const MOST_SEEDS: u64 = 2_000;

/// What became of a bug.
#[derive(Debug, Clone, Serialize)]
pub struct Hunted {
    /// Its name.
    pub bug: &'static str,
    /// The tracker's name.
    pub tracker: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// The scenario in which loom caught it.
    pub loom: Option<&'static str>,
    /// The scenario in which shuttle did.
    pub shuttle: Option<&'static str>,
    /// Whether the simulator did.
    pub simulator: bool,
}

impl Hunted {
    /// Whether anybody caught it.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.loom.is_some() || self.shuttle.is_some() || self.simulator
    }
}

/// Hunts each of these. `progress` hears how many are done and which one is hunted, from several threads.
#[must_use]
pub fn hunt(bugs: &[Bug], progress: &(dyn Fn(&Bug) + Sync)) -> Vec<Hunted> {
    beside_each_other(bugs, |bug| {
        let [loom, shuttle] = HUNTERS.map(|engine| caught_by(bug, engine));
        let simulator = sim::hunt(bug.name, MOST_SEEDS).is_some();
        progress(bug);
        Hunted { bug: bug.name, tracker: bug.tracker.text(), breaks: bug.breaks, loom, shuttle, simulator }
    })
}

/// The first scenario that catches the bug under this engine.
fn caught_by(bug: &Bug, engine: Engine) -> Option<&'static str> {
    let cases = SCENARIOS.iter().map(|scenario| Case { tracker: bug.tracker, scenario, engine });
    let mut cases =
        cases.filter(|case| case.scenario.applies_to(case.tracker) && Expected::of(case) == Expected::Passes);
    cases.find(|case| catches(case, bug)).map(|case| case.scenario.name)
}

fn catches(case: &Case, bug: &Bug) -> bool {
    let ended = process::run(&Order { case: *case, planted: Some(bug.name) }, |_| {});
    matches!(ended, Ended::Found(finding) if finding.kind != FindingKind::Panic)
}

/// The table as it stands in `docs/planted-bugs.md`.
#[must_use]
pub fn markdown(hunted: &[Hunted]) -> String {
    let mut text = String::from(HEAD);
    for one in hunted {
        let by = |scenario: Option<&str>| scenario.map_or_else(|| "-".to_owned(), |name| format!("`{name}`"));
        let Hunted { bug, tracker, breaks, loom, shuttle, simulator } = one;
        let (loom, shuttle, simulator) = (by(*loom), by(*shuttle), if *simulator { "found" } else { "-" });
        text.push_str(&format!("| `{bug}` | {tracker} | {breaks} | {loom} | {shuttle} | {simulator} |\n"));
    }
    text
}

const HEAD: &str = "\
# Planted bugs

Each of these was planted on purpose, and a scenario of `pagemirror check` or a seed of `pagemirror sim` has to catch it. The table
is written by `ci/planted.sh`, which fails when a bug is missed by all of them or when this file says something else.

The columns name the first scenario in which the bug leads to a violation or a deadlock, among those that the tracker passes
without it. loom sees orders of execution and of memory; shuttle sees orders of execution only, so what needs a reordering
escapes it, and the simulator, whose numbers of seeds are in [simulator.md](simulator.md).

| bug | tracker | what it breaks | loom | shuttle | simulator |
|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        let bugs = bugs();
        assert_eq!(bugs.iter().map(|bug| bug.name).collect::<HashSet<_>>().len(), bugs.len());
    }

    #[test]
    fn the_table_says_who_caught_what() {
        let (loom, shuttle) = (Some("aba"), None);
        let hunted =
            Hunted { bug: "ends-forgotten", tracker: "collision-log", breaks: "all", loom, shuttle, simulator: false };
        assert!(hunted.is_caught());
        assert!(
            markdown(std::slice::from_ref(&hunted))
                .ends_with("|\n| `ends-forgotten` | collision-log | all | `aba` | - | - |\n")
        );
        assert!(!Hunted { loom: None, ..hunted.clone() }.is_caught());
        let by_simulation = Hunted { loom: None, simulator: true, ..hunted };
        assert!(by_simulation.is_caught() && markdown(&[by_simulation]).ends_with("| - | - | found |\n"));
    }
}
