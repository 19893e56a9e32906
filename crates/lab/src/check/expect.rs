//! What has to come of a case, and whether it did.

use pagemirror_trackers::catalogue::TrackerName;
use serde::Serialize;

use super::cases::{Case, Engine};
use super::report::{Ended, FindingKind};

/// What has to come of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// Nothing is found.
    Passes,
    /// The lost invalidation of the 2019 design is found.
    Found,
    /// It may be found; on real threads that is luck.
    Either,
}

impl Expected {
    /// What is expected of `case`. All trackers pass everything, but for the one flaw that is built into the 2019 design.
    #[must_use]
    pub fn of(case: &Case) -> Self {
        match (case.tracker, case.scenario.forgettable, case.engine) {
            (TrackerName::RangeValid, true, Engine::Loom | Engine::Shuttle) => Self::Found,
            (TrackerName::RangeValid, true, Engine::Threads) => Self::Either,
            _ => Self::Passes,
        }
    }

    /// Whether this is what was expected. What was to be found is a violation: a deadlock would be another flaw.
    #[must_use]
    pub fn is_met_by(self, ended: &Ended) -> bool {
        let found = matches!(ended, Ended::Found(finding) if finding.kind == FindingKind::Violation);
        let passed = matches!(ended, Ended::Passed { .. });
        match self {
            Self::Passes => passed,
            Self::Found => found,
            Self::Either => passed || found,
        }
    }
}

/// A case that has ended, and what that means.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// The tracker's name.
    pub tracker: &'static str,
    /// The scenario's name.
    pub scenario: &'static str,
    /// The engine.
    pub engine: Engine,
    /// What had to come of it.
    pub expected: Expected,
    /// Whether it did.
    pub as_expected: bool,
    /// How long it took.
    pub milliseconds: u64,
    /// What came of it.
    #[serde(flatten)]
    pub ended: Ended,
}

impl Judged {
    pub(crate) fn new(case: &Case, ended: Ended, milliseconds: u64) -> Self {
        let expected = Expected::of(case);
        let as_expected = expected.is_met_by(&ended);
        let (tracker, scenario, engine) = (case.tracker.text(), case.scenario.name, case.engine);
        Self { tracker, scenario, engine, expected, as_expected, milliseconds, ended }
    }
}

#[cfg(test)]
mod tests {
    use pagemirror_trackers::scenario::Scenario;

    use super::super::report::Finding;
    use super::*;

    fn case(tracker: TrackerName, scenario: &str, engine: Engine) -> Case {
        Case { tracker, scenario: Scenario::named(scenario).unwrap(), engine }
    }

    fn found(kind: FindingKind) -> Ended {
        Ended::Found(Finding { kind, text: String::new(), executions: 1, steps: Vec::new() })
    }

    const PASSED: Ended = Ended::Passed { executions: 1, complete: true };

    #[test]
    fn only_the_2019_design_is_expected_to_fail_and_only_where_an_invalidation_can_end_unseen() {
        for tracker in TrackerName::ALL {
            for engine in Engine::ALL {
                let aba = Expected::of(&case(tracker, "aba", engine));
                let known = tracker == TrackerName::RangeValid;
                assert_eq!(aba == Expected::Passes, !known);
                assert_eq!(aba == Expected::Found, known && engine != Engine::Threads);
                assert_eq!(Expected::of(&case(tracker, "start", engine)), Expected::Passes);
            }
        }
    }

    #[test]
    fn a_flaw_that_is_not_found_any_more_is_not_as_expected() {
        assert!(!Expected::Found.is_met_by(&PASSED));
        assert!(Expected::Found.is_met_by(&found(FindingKind::Violation)));
    }

    #[test]
    fn another_failure_is_not_the_known_flaw() {
        for expected in [Expected::Passes, Expected::Found, Expected::Either] {
            assert!(!expected.is_met_by(&found(FindingKind::Deadlock)));
            assert!(!expected.is_met_by(&found(FindingKind::Panic)));
            assert!(!expected.is_met_by(&Ended::Badly { what: "it hung".into() }));
        }
        assert!(!Expected::Passes.is_met_by(&found(FindingKind::Violation)));
        assert!(Expected::Passes.is_met_by(&PASSED) && Expected::Either.is_met_by(&PASSED));
    }
}
