//! What the reports mean: fine, shown, or a finding; and the exit code.

use std::process::ExitCode;

use serde::Serialize;

use crate::rows::catalogue::{Expected, RowName};

use super::child::Ended;
use super::report::RowReport;

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// A coherent row without a stale byte.
    Fine,
    /// A control that showed what its missing part prevents.
    Shown,
    /// A control that needs luck, and had none within its time.
    NotShown,
    /// This machine does not have that kind of memory: what is missing.
    Skipped(String),
    /// A finding, in words.
    Finding(Vec<String>),
}

/// A row, judged.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RowResult {
    pub(crate) row: RowName,
    pub(crate) expected: &'static str,
    pub(crate) verdict: Verdict,
    /// What it reported, if it did.
    pub(crate) report: Option<RowReport>,
}

impl RowResult {
    /// The row of a kind of memory that this machine does not have.
    pub(crate) fn skipped(row: RowName, lacking: String) -> Self {
        Self { row, expected: row.expected().text(), verdict: Verdict::Skipped(lacking), report: None }
    }

    pub(crate) fn judge(ended: Ended, row: RowName) -> Self {
        let expected = row.expected();
        let (report, mut findings) = match ended {
            Ended::Reported(report) => (Some(*report), Vec::new()),
            Ended::Badly(what) => (None, vec![what]),
        };
        if let Some(report) = &report {
            findings.extend(findings_of(report, expected));
        }
        let stale = report.as_ref().map_or(0, |report| report.stale_bytes);
        let verdict = match expected {
            _ if !findings.is_empty() => Verdict::Finding(findings),
            Expected::Zero => Verdict::Fine,
            Expected::Stale | Expected::StaleByLuck if stale > 0 => Verdict::Shown,
            Expected::Stale | Expected::StaleByLuck => Verdict::NotShown,
        };
        Self { row, expected: expected.text(), verdict, report }
    }
}

/// What must not be in a report.
fn findings_of(report: &RowReport, expected: Expected) -> Vec<String> {
    let mut findings = report.findings.clone();
    let stale = report.stale_bytes;
    match expected {
        Expected::Zero => {
            if stale > 0 {
                findings.push(format!("{stale} STALE BYTES in {} uses", report.stale_uses));
            }
            if report.cache.false_retries > 0 {
                findings.push(format!("{} false retries", report.cache.false_retries));
            }
            if report.cache.deregister_failures > 0 {
                findings.push(format!("{} registrations were not taken back", report.cache.deregister_failures));
            }
            if report.uses == 0 || report.invalidations.total() == 0 {
                findings.push("nothing was exercised: no uses, or no invalidations".into());
            }
        }
        Expected::Stale if stale == 0 => {
            findings.push("no stale byte, though this control is certain to show some: the oracle may be blind".into());
        }
        Expected::Stale | Expected::StaleByLuck => {}
    }
    findings
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "u8")]
pub(crate) enum Exit {
    /// All is as expected.
    Fine,
    /// There is a finding.
    Finding,
    /// This machine lacks something.
    Environment,
}

impl Exit {
    pub(crate) fn of(rows: &[RowResult]) -> Self {
        let bad = |row: &RowResult| matches!(row.verdict, Verdict::Finding(_));
        if rows.iter().any(bad) { Self::Finding } else { Self::Fine }
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => 0,
            Exit::Finding => 1,
            Exit::Environment => 2,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(u8::from(exit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stress::report::{CacheFigures, Invalidations, Told};

    fn report(row: RowName, stale_bytes: u64) -> RowReport {
        RowReport {
            row,
            milliseconds: 1000,
            uses: 10,
            checked_bytes: 4096,
            stale_uses: u64::from(stale_bytes > 0),
            stale_bytes,
            unmapped_answers: 0,
            invalidations: Invalidations { munmap: 3, ..Invalidations::default() },
            told: Told::default(),
            cache: CacheFigures::default(),
            waits: Vec::new(),
            note: None,
            examples: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn judged(row: RowName, stale_bytes: u64) -> Verdict {
        RowResult::judge(Ended::Reported(Box::new(report(row, stale_bytes))), row).verdict
    }

    #[test]
    fn a_coherent_row_must_show_nothing_and_a_control_something() {
        assert_eq!(judged(RowName::Mix, 0), Verdict::Fine);
        assert!(matches!(judged(RowName::Mix, 1), Verdict::Finding(_)));
        assert_eq!(judged(RowName::Naive, 1), Verdict::Shown);
        assert!(matches!(judged(RowName::Naive, 0), Verdict::Finding(_)));
        assert_eq!(judged(RowName::FirstAbsence, 0), Verdict::NotShown);
    }

    #[test]
    fn a_coherent_row_that_did_nothing_proves_nothing() {
        let mut empty = report(RowName::Link, 0);
        empty.uses = 0;
        let judged = RowResult::judge(Ended::Reported(Box::new(empty)), RowName::Link);
        assert!(matches!(judged.verdict, Verdict::Finding(_)));
    }

    #[test]
    fn a_crash_is_a_finding_in_a_control_too() {
        let judged = RowResult::judge(Ended::Badly("ended by signal 11".into()), RowName::FirstAbsence);
        assert!(matches!(judged.verdict, Verdict::Finding(_)));
        assert_eq!(u8::from(Exit::of(&[judged])), 1);
    }

    #[test]
    fn a_control_without_luck_is_no_finding() {
        let row = RowResult::judge(Ended::Reported(Box::new(report(RowName::NoProbe, 0))), RowName::NoProbe);
        assert_eq!(u8::from(Exit::of(&[row])), 0);
    }
}
