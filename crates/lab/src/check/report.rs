//! What a case says, and how it ended.

use serde::{Deserialize, Serialize};

/// The two sides of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Reads the page table and installs what it read.
    Fault,
    /// Changes the page table.
    Invalidate,
}

/// Something that a thread of the scenario did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// On which side.
    pub side: Side,
    /// Which thread of that side, from 1 upwards.
    pub number: u8,
    /// What it did.
    pub text: String,
    /// Whether this should not have been possible.
    pub wrong: bool,
}

/// What kind of finding it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A check of the scenario failed.
    Violation,
    /// Every thread waits for another one.
    Deadlock,
    /// A panic of something else: of the tracker, of the checker, or a loop without an end.
    Panic,
}

impl FindingKind {
    /// What the text of a panic says.
    #[must_use]
    pub fn of(text: &str) -> Self {
        // The words of loom and of shuttle for the same thing.
        if text.starts_with("VIOLATION") {
            Self::Violation
        } else if text.starts_with("deadlock;") || text.starts_with("deadlock!") {
            Self::Deadlock
        } else {
            Self::Panic
        }
    }
}

/// An execution that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind it is.
    pub kind: FindingKind,
    /// What the check, or the engine, said.
    pub text: String,
    /// In which execution it was found.
    pub executions: u64,
    /// What each thread did, in the order in which it was executed. Empty on real threads.
    pub steps: Vec<Step>,
}

/// One line of what the process of a case says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Said {
    /// So many executions have begun.
    Running(u64),
    /// It is over, without a finding.
    Explored {
        /// All executions.
        executions: u64,
        /// Whether all that was planned was done.
        complete: bool,
    },
    /// It is over.
    Found(Finding),
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "ended")]
pub enum Ended {
    /// Nothing was found.
    Passed {
        /// All executions.
        executions: u64,
        /// Whether all that was planned was done, or the time was over first.
        complete: bool,
    },
    /// Something was.
    Found(Finding),
    /// Its process crashed, hung, or said nothing that can be understood.
    Badly {
        /// What happened.
        what: String,
    },
}

impl Ended {
    /// All executions that it says it had.
    #[must_use]
    pub const fn executions(&self) -> u64 {
        match self {
            Self::Passed { executions, .. } => *executions,
            Self::Found(finding) => finding.executions,
            Self::Badly { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_the_words_of_the_engines() {
        assert_eq!(FindingKind::of("VIOLATION: a page"), FindingKind::Violation);
        assert_eq!(FindingKind::of("deadlock; threads = [1]"), FindingKind::Deadlock);
        assert_eq!(FindingKind::of("deadlock! blocked tasks: [main-thread]"), FindingKind::Deadlock);
        assert_eq!(FindingKind::of("Model exceeded maximum number of branches"), FindingKind::Panic);
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let steps = vec![Step { side: Side::Fault, number: 1, text: "device lock".into(), wrong: false }];
        let found =
            Said::Found(Finding { kind: FindingKind::Deadlock, text: "deadlock;".into(), executions: 7, steps });
        for said in [Said::Running(3), Said::Explored { executions: 9, complete: true }, found] {
            assert_eq!(serde_json::from_str::<Said>(&serde_json::to_string(&said).unwrap()).unwrap(), said);
        }
    }
}
