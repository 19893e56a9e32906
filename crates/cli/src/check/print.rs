//! What a person reads: the verdicts as a table, the findings as pictures.

use std::fmt::Write;

use pagemirror_lab::check::{Ended, Engine, Expected, Finding, FindingKind, Judged, draw};

use crate::stress::table::{Table, number};

/// The table, the pictures, and one line that says it all.
pub(super) fn verdicts(judged: &[Judged]) -> String {
    let mut text = table(judged).lines();
    for case in judged {
        if is_shown(case, judged) {
            text.push_str(&picture(case));
        }
    }
    text.push_str(&summary(judged));
    text
}

/// One line for each scenario of each tracker; an engine in each column.
fn table(judged: &[Judged]) -> Table {
    let heading: Vec<&str> = ["tracker", "scenario"].into_iter().chain(Engine::ALL.map(Engine::text)).collect();
    let mut table = Table::new(&heading, &[0, 1]);
    let mut last = "";
    for first in judged {
        let same = |other: &&Judged| (other.tracker, other.scenario) == (first.tracker, first.scenario);
        let cases: Vec<&Judged> = judged.iter().filter(same).collect();
        if !cases.first().is_some_and(|case| std::ptr::eq(*case, first)) {
            continue;
        }
        let cell = |engine| cases.iter().find(|case| case.engine == engine).map_or("-".into(), |case| cell(case));
        let tracker = if first.tracker == last { "" } else { first.tracker };
        last = first.tracker;
        let names = [tracker.to_owned(), first.scenario.to_owned()];
        table.row(names.into_iter().chain(Engine::ALL.map(cell)).collect());
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
