//! The survey as text.

use std::fmt::Write as _;

use crate::stress::machine::Machine;
use pagemirror_lab::report::Table;

use super::guarantees::Holds;
use super::survey::{Standing, Survey};

fn of_standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Fine => "fine",
        Standing::Lacks => "LACKS",
        Standing::Missing => "MISSING",
        Standing::Fact => "",
    }
}

fn of_holds(holds: Holds) -> &'static str {
    match holds {
        Holds::Yes => "yes",
        Holds::Partly => "PARTLY",
        Holds::No => "NO",
    }
}

pub(super) fn heading(machine: &Machine) -> String {
    let Machine { kernel, architecture, page_bytes, .. } = machine;
    format!(
        "pagemirror {} doctor: Linux {kernel} {architecture}, {page_bytes} bytes a page\n",
        env!("CARGO_PKG_VERSION")
    )
}

pub(super) fn survey(survey: &Survey) -> String {
    let mut checks = Table::untitled(&["asked", "answer", ""], &[0, 1, 2]);
    for check in &survey.checks {
        checks.row(vec![check.question.into(), check.answer.clone(), of_standing(check.standing).into()]);
    }
    let mut guarantees = Table::untitled(&["", "promise", "holds", "because"], &[0, 1, 2, 3]);
    for of in &survey.guarantees {
        guarantees.row(vec![of.name.into(), of.promise.into(), of_holds(of.holds).into(), of.because.clone()]);
    }
    let mut tiers = Table::untitled(&["tier", "what", "to be had", "because"], &[0, 1, 2, 3]);
    for of in &survey.tiers {
        tiers.row(vec![of.tier.to_string(), of.what.into(), of_holds(of.holds).into(), of.because.clone()]);
    }
    let mut text = format!("\n{}\n{}\n{}", checks.lines(), guarantees.lines(), tiers.lines());
    for check in &survey.checks {
        if let Some(advice) = &check.advice {
            let _ = write!(text, "\n{} {}: {advice}\n", of_standing(check.standing), check.question);
        }
    }
    text.push_str(
        "\nWhat userfaultfd does not tell is covered by wrapped calls, checks or an arena, or not at all: \
         doctor --coverage fires every operation and shows which.\n",
    );
    text
}
