//! A finding as a picture: the fault side left, the invalidate side right, time downwards, one line for each step.

use std::collections::HashSet;
use std::fmt::Write;

use super::report::{Finding, FindingKind, Side, Step};

/// Stands before the step that should not have been possible.
const MARK: &str = ">>> ";
const LEFT: &str = "fault side";
const RIGHT: &str = "invalidate side";
/// Between the two columns.
const GAP: usize = 3;

/// Draws the steps of a finding. Nothing is left out and nothing is shortened.
#[must_use]
pub fn draw(finding: &Finding) -> String {
    let lines = lines(finding);
    let left = lines.iter().filter(|line| line.0 == Side::Fault).map(|line| line.1.chars().count());
    let width = left.chain([LEFT.len()]).max().unwrap_or(0) + GAP;
    let right = lines.iter().filter(|line| line.0 == Side::Invalidate).map(|line| line.1.chars().count());
    let right = right.chain([RIGHT.len()]).max().unwrap_or(0);
    let mut drawn = String::new();
    let mut row = |left: &str, right: &str| {
        let _ = writeln!(drawn, "{}", format!("{left:<width$}{right}").trim_end());
    };
    row(LEFT, RIGHT);
    row(&"-".repeat(width - GAP), &"-".repeat(right));
    for (side, text) in &lines {
        match side {
            Side::Fault => row(text, ""),
            Side::Invalidate => row("", text),
        }
    }
    drawn
}

fn lines(finding: &Finding) -> Vec<(Side, String)> {
    let mut lines: Vec<_> = finding.steps.iter().map(|step| (step.side, line(step, &finding.steps))).collect();
    match finding.kind {
        FindingKind::Violation => {}
        // Nobody did anything wrong last: what is wrong is that nobody can go on.
        FindingKind::Deadlock => {
            lines.push((Side::Fault, format!("{MARK}deadlock: every thread waits for another one")))
        }
        FindingKind::Panic => lines.push((Side::Fault, format!("{MARK}{}", finding.text))),
    }
    lines
}

/// One step. Where a side has several threads, its number says which.
fn line(step: &Step, all: &[Step]) -> String {
    let threads: HashSet<u8> = all.iter().filter(|other| other.side == step.side).map(|other| other.number).collect();
    let who = if threads.len() > 1 { format!("{}: ", step.number) } else { String::new() };
    let mark = if step.wrong { MARK } else { "" };
    format!("{mark}{who}{}", step.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(side: Side, number: u8, text: &str) -> Step {
        Step { side, number, text: text.into(), wrong: false }
    }

    fn finding(kind: FindingKind, steps: Vec<Step>) -> Finding {
        Finding { kind, text: "VIOLATION: a page".into(), executions: 1, steps }
    }

    #[test]
    fn steps_stand_below_each_other_in_their_columns_and_the_wrong_one_is_marked() {
        let wrong = Step { wrong: true, ..step(Side::Fault, 1, "install page 0, but page 1 is there") };
        let steps = vec![
            step(Side::Fault, 1, "snapshot: page 0"),
            step(Side::Invalidate, 1, "valid = false"),
            step(Side::Invalidate, 1, "valid = true"),
            wrong,
        ];
        assert_eq!(
            draw(&finding(FindingKind::Violation, steps)),
            "fault side                                invalidate side\n\
             ---------------------------------------   ---------------\n\
             snapshot: page 0\n\
             \u{20}                                         valid = false\n\
             \u{20}                                         valid = true\n\
             >>> install page 0, but page 1 is there\n"
        );
    }

    #[test]
    fn threads_of_one_side_are_told_apart_by_number() {
        let steps = vec![
            step(Side::Invalidate, 1, "start"),
            step(Side::Invalidate, 2, "start"),
            step(Side::Fault, 1, "device lock"),
        ];
        let drawn = draw(&finding(FindingKind::Violation, steps));
        assert!(drawn.contains("1: start\n") && drawn.contains("2: start\n"), "{drawn}");
        assert!(drawn.contains("\ndevice lock\n"), "one thread needs no number: {drawn}");
    }

    #[test]
    fn a_deadlock_ends_with_the_words_for_it() {
        let drawn = draw(&finding(FindingKind::Deadlock, vec![step(Side::Fault, 1, "read_begin")]));
        assert!(drawn.ends_with(">>> deadlock: every thread waits for another one\n"), "{drawn}");
    }

    #[test]
    fn another_panic_is_told_in_its_own_words() {
        let drawn = draw(&finding(FindingKind::Panic, Vec::new()));
        assert!(drawn.ends_with(">>> VIOLATION: a page\n"), "{drawn}");
    }
}
