//! What a person reads: the verdicts as a table, the findings as pictures.

use std::fmt::Write;

use pagemirror_lab::check::{Ended, Engine, Expected, Finding, FindingKind, Judged, draw, scenarios, trackers};

use pagemirror_lab::report::{Table, number};

/// The table, the pictures, and one line that says it all. `not_applicable` names trackers and scenarios that were left out.
pub(super) fn verdicts(judged: &[Judged], not_applicable: &[(&str, &str)]) -> String {
    let mut text = table(judged, not_applicable).lines();
    for case in judged {
        if is_shown(case, judged) {
            text.push_str(&picture(case));
        }
    }
    text.push_str(&summary(judged));
    text
}

/// One line for each scenario of each tracker; an engine in each column, with its executions.
fn table(judged: &[Judged], not_applicable: &[(&str, &str)]) -> Table {
    let heading: Vec<&str> = ["tracker", "scenario"].into_iter().chain(Engine::ALL.map(Engine::text)).collect();
    let mut table = Table::untitled(&heading, &[0, 1]);
    for tracker in trackers() {
        let mut name = tracker;
        for (scenario, _) in scenarios() {
            let cases = judged.iter().filter(|case| (case.tracker, case.scenario) == (tracker, scenario));
            let cases: Vec<&Judged> = cases.collect();
            let left_out = not_applicable.contains(&(tracker, scenario));
            if cases.is_empty() && !left_out {
                continue;
            }
            let absent = if left_out { "n/a" } else { "-" };
            let of = |engine| cases.iter().find(|case| case.engine == engine).map_or(absent.into(), |case| cell(case));
            // The tracker stands beside its first scenario only.
            let names = [std::mem::take(&mut name).to_owned(), scenario.to_owned()];
            table.row(names.into_iter().chain(Engine::ALL.map(of)).collect());
        }
    }
    table
}

/// How a case ended, in a few words.
fn cell(case: &Judged) -> String {
    match (&case.ended, case.as_expected) {
        (Ended::Passed { .. }, false) => "NOT FOUND".into(),
        (Ended::Passed { executions, complete: true }, true) => format!("ok {}", number(*executions)),
        (Ended::Passed { executions, complete: false }, true) => format!("ok {}, time over", number(*executions)),
        (Ended::Found(_), true) => "found".into(),
        (Ended::Found(Finding { kind: FindingKind::Deadlock, .. }), false) => "DEADLOCK".into(),
        (Ended::Found(_), false) => "FOUND".into(),
        (Ended::Badly { .. }, _) => "BROKEN".into(),
    }
}

/// Whatever is not as expected is shown. Of what is, the first of each tracker and engine says enough.
fn is_shown(case: &Judged, judged: &[Judged]) -> bool {
    let same = |other: &&Judged| {
        (other.tracker, other.engine) == (case.tracker, case.engine) && matches!(other.ended, Ended::Found(_))
    };
    let first = judged.iter().find(same).is_some_and(|first| std::ptr::eq(first, case));
    !case.as_expected || (first && case.engine != Engine::Threads)
}

fn picture(case: &Judged) -> String {
    let Judged { tracker, scenario, engine, .. } = case;
    let mut text = format!("\n{tracker}, {scenario}, {engine}");
    match &case.ended {
        Ended::Passed { executions, .. } => {
            let executions = number(*executions);
            let _ = writeln!(
                text,
                ": the known flaw was not found in {executions} executions; the check has lost its power"
            );
        }
        Ended::Found(finding) => {
            let known = if case.as_expected { ", as expected" } else { "" };
            let _ = writeln!(text, ": found{known} in execution {}: {}", number(finding.executions), finding.text);
            if !finding.steps.is_empty() {
                let _ = write!(text, "\n{}", draw(finding));
            }
        }
        Ended::Badly { what } => {
            let _ = writeln!(text, ": {what}");
        }
    }
    text
}

fn summary(judged: &[Judged]) -> String {
    let wrong = judged.iter().filter(|case| !case.as_expected).count();
    let known = judged.iter().filter(|case| case.as_expected && case.expected == Expected::Found).count();
    let cases = judged.len();
    if wrong > 0 {
        return format!("\n{wrong} of {cases} cases are not as expected\n");
    }
    let flaw = if known > 0 {
        format!("; the flaw of the 2019 design was found {known} times, as it must be")
    } else {
        String::new()
    };
    format!("\nall {cases} cases are as expected{flaw}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(tracker: &'static str, engine: Engine, expected: Expected, ended: Ended) -> Judged {
        let as_expected = expected.is_met_by(&ended);
        Judged { tracker, scenario: "aba", engine, expected, as_expected, milliseconds: 1, ended }
    }

    fn found(kind: FindingKind) -> Ended {
        Ended::Found(Finding { kind, text: "VIOLATION: a page".into(), executions: 7, steps: Vec::new() })
    }

    const PASSED: Ended = Ended::Passed { executions: 1234, complete: true };

    #[test]
    fn what_is_as_expected_is_said_softly_and_what_is_not_aloud() {
        let cases = [
            judged("range-valid", Engine::Loom, Expected::Found, found(FindingKind::Violation)),
            judged("range-valid", Engine::Shuttle, Expected::Found, PASSED),
            judged("collision-log", Engine::Loom, Expected::Passes, PASSED),
            judged("collision-log", Engine::Shuttle, Expected::Passes, found(FindingKind::Violation)),
            judged("collision-log", Engine::Threads, Expected::Passes, Ended::Badly { what: "it hung".into() }),
        ];
        let text = verdicts(&cases, &[("notifier-count", "wrap")]);
        let row = |name: &str| {
            let row = text.lines().find(|line| line.starts_with(name)).unwrap();
            row.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("range-valid "), "range-valid aba found NOT FOUND -");
        assert_eq!(row("collision-log "), "collision-log aba ok 1,234 FOUND BROKEN");
        assert_eq!(row("notifier-count "), "notifier-count wrap n/a n/a n/a");
        assert!(text.contains("collision-log, aba, threads: it hung"), "{text}");
        assert!(text.contains("the check has lost its power"), "{text}");
        assert!(text.ends_with("3 of 5 cases are not as expected\n"), "{text}");
    }
}
