//! What there is to check: trackers, scenarios, engines.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pagemirror_trackers::catalogue::TrackerName;
use pagemirror_trackers::scenario::{SCENARIOS, Scenario};
use serde::{Deserialize, Serialize};

/// What runs the threads of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Every interleaving up to a number of preemptions, every reordering that the memory model permits.
    Loom,
    /// Random schedules from a fixed seed.
    Shuttle,
    /// The machine's own threads.
    Threads,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Loom, Self::Shuttle, Self::Threads];

    /// Its name.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Loom => "loom",
            Self::Shuttle => "shuttle",
            Self::Threads => "threads",
        }
    }

    /// The most executions of one case. Loom knows by itself when it has seen everything.
    pub(crate) const fn executions(self) -> u64 {
        match self {
            Self::Loom | Self::Threads => u64::MAX,
            // Random schedules of one scenario: enough that each planted bug which needs no reordering is met many times.
            Self::Shuttle => 4_000,
        }
    }

    /// The longest that one case explores. For the checkers this is far above what a case takes, so that a verdict does not
    /// depend on the machine; on real threads it is what decides.
    pub(crate) const fn time(self) -> Duration {
        match self {
            Self::Loom | Self::Shuttle => Duration::from_secs(60),
            Self::Threads => Duration::from_millis(150),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|engine| engine.text() == text).ok_or_else(|| format!("no engine is named {text:?}"))
    }
}

/// One scenario on one tracker under one engine.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// On what.
    pub tracker: TrackerName,
    /// What.
    pub scenario: &'static Scenario,
    /// Under what.
    pub engine: Engine,
}

/// The names of all trackers.
#[must_use]
pub fn trackers() -> Vec<&'static str> {
    TrackerName::ALL.iter().map(|tracker| tracker.text()).collect()
}

/// The names of all scenarios, and what each shows.
#[must_use]
pub fn scenarios() -> Vec<(&'static str, &'static str)> {
    SCENARIOS.iter().map(|scenario| (scenario.name, scenario.shows)).collect()
}

/// What somebody chose to check. Where nothing was chosen, everything is.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The trackers.
    pub trackers: Vec<TrackerName>,
    /// The scenarios, by name.
    pub scenarios: Vec<String>,
    /// The engines.
    pub engines: Vec<Engine>,
}

impl Selection {
    /// The cases, tracker by tracker; those whose tracker does not promise what the scenario asks are left out.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let pairs = self.pairs().filter(|(tracker, scenario)| scenario.applies_to(*tracker));
        let engines = |engine: &Engine| self.engines.is_empty() || self.engines.contains(engine);
        let of_a_pair = |(tracker, scenario)| {
            let engines = Engine::ALL.into_iter().filter(engines);
            engines.map(move |engine| Case { tracker, scenario, engine })
        };
        pairs.flat_map(of_a_pair).collect()
    }

    /// The trackers and scenarios that were left out, by name.
    #[must_use]
    pub fn not_applicable(&self) -> Vec<(&'static str, &'static str)> {
        let pairs = self.pairs().filter(|(tracker, scenario)| !scenario.applies_to(*tracker));
        pairs.map(|(tracker, scenario)| (tracker.text(), scenario.name)).collect()
    }

    fn pairs(&self) -> impl Iterator<Item = (TrackerName, &'static Scenario)> {
        let tracker = |tracker: &TrackerName| self.trackers.is_empty() || self.trackers.contains(tracker);
        let scenario = |scenario: &&Scenario| {
            self.scenarios.is_empty() || self.scenarios.iter().any(|chosen| chosen == scenario.name)
        };
        let trackers = TrackerName::ALL.into_iter().filter(tracker);
        trackers.flat_map(move |tracker| SCENARIOS.iter().filter(scenario).map(move |scenario| (tracker, scenario)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_tracker_has_scenarios_under_every_engine() {
        for tracker in TrackerName::ALL {
            for engine in Engine::ALL {
                let only = Selection { trackers: vec![tracker], engines: vec![engine], ..Selection::default() };
                assert!(only.cases().len() > 10, "{} under {engine}", tracker.text());
            }
        }
    }

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_a_tracker() {
        let names: HashSet<_> = scenarios().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for name in names {
            let only = Selection { scenarios: vec![name.into()], ..Selection::default() };
            assert!(!only.cases().is_empty(), "{name} is for nobody");
        }
    }

    #[test]
    fn what_was_not_chosen_is_left_out() {
        let selection = Selection {
            trackers: vec![TrackerName::ALL[0]],
            scenarios: vec!["aba".into()],
            engines: vec![Engine::Loom],
        };
        let cases = selection.cases();
        assert_eq!(cases.len(), 1);
        assert_eq!((cases[0].scenario.name, cases[0].engine), ("aba", Engine::Loom));
        assert!(selection.not_applicable().is_empty());
    }

    #[test]
    fn what_a_tracker_does_not_promise_is_named_and_not_run() {
        let selection = Selection {
            trackers: vec![TrackerName::NotifierCount],
            scenarios: vec!["neighbours".into()],
            ..Selection::default()
        };
        assert!(selection.cases().is_empty());
        assert_eq!(selection.not_applicable(), [("notifier-count", "neighbours")]);
    }

    #[test]
    fn engines_are_found_by_name() {
        for engine in Engine::ALL {
            assert_eq!(engine.text().parse(), Ok(engine));
        }
        assert!("none".parse::<Engine>().is_err());
    }
}
