//! What is asked, and in which order. Every answer is that of a call made by this run.

use serde::Serialize;

use super::{guarantees, kernel, limits, memory, watching};

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    /// All is there.
    Fine,
    /// Something works less well, or not for everything, without it.
    Lacks,
    /// Nothing works without it.
    Missing,
    /// A fact.
    Fact,
}

/// One question with its answer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// A name that stays the same, for machines.
    pub(crate) name: &'static str,
    pub(crate) question: &'static str,
    pub(crate) standing: Standing,
    pub(crate) answer: String,
    /// What is lost without it, and what to do.
    pub(crate) advice: Option<String>,
}

impl Check {
    pub(crate) fn fine(name: &'static str, question: &'static str, answer: impl Into<String>) -> Self {
        Self { name, question, standing: Standing::Fine, answer: answer.into(), advice: None }
    }

    pub(crate) fn fact(name: &'static str, question: &'static str, answer: impl Into<String>) -> Self {
        Self { standing: Standing::Fact, ..Self::fine(name, question, answer) }
    }

    pub(crate) fn lacks(
        name: &'static str,
        question: &'static str,
        answer: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { standing: Standing::Lacks, advice: Some(advice.into()), ..Self::fine(name, question, answer) }
    }

    pub(crate) fn missing(
        name: &'static str,
        question: &'static str,
        answer: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { standing: Standing::Missing, ..Self::lacks(name, question, answer, advice) }
    }

    pub(crate) fn is_there(&self) -> bool {
        matches!(self.standing, Standing::Fine | Standing::Fact)
    }
}

/// Everything that was asked, and what follows from it.
#[derive(Debug, Serialize)]
pub(crate) struct Survey {
    pub(crate) checks: Vec<Check>,
    pub(crate) guarantees: Vec<guarantees::Guarantee>,
    pub(crate) tiers: Vec<guarantees::Tier>,
}

impl Survey {
    /// Asks everything.
    pub(crate) fn make() -> Self {
        let mut checks = Vec::new();
        kernel::ask(&mut checks);
        let source = watching::ask(&mut checks);
        if let Some(source) = &source {
            memory::ask(source, &mut checks);
        }
        limits::ask(&mut checks);
        let facts = guarantees::Facts::of(&checks);
        Self { guarantees: guarantees::guarantees(&facts), tiers: guarantees::tiers(&facts), checks }
    }

    pub(crate) fn is_missing_something(&self) -> bool {
        self.checks.iter().any(|check| check.standing == Standing::Missing)
    }
}
