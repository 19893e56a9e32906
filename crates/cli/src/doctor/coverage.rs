//! `doctor --coverage`: fires every operation of the matrix at a really pinned registration, each in a process of its own,
//! and compares what came out with what is expected.
//!
//! - `catalogue` is the matrix; `case` runs one row of it in a child; `child` starts and hears one.
//! - `scratch` is the memory, `fire` the operations, `witness` the device; `print` shows the result.

pub(crate) mod case;
pub(crate) mod catalogue;
pub(crate) mod child;
mod fire;
mod print;
pub(super) mod scratch;
mod witness;

use serde::Serialize;

use case::{Observed, Outcome};
use catalogue::{Case, Cover, Memory, Noticed, Operation, Pages, cases};

pub(crate) use print::{conclusion, table};

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// As the matrix says.
    AsExpected,
    /// Not so: in which way.
    Differs(String),
    /// It was not fired, and why.
    Skipped(String),
}

/// A case, judged.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CaseResult {
    pub(crate) operation: Operation,
    pub(crate) memory: Memory,
    pub(crate) expected_pages: Pages,
    pub(crate) expected_noticed: Noticed,
    pub(crate) cover: Cover,
    pub(crate) observed: Option<Observed>,
    pub(crate) verdict: Verdict,
}

/// Fires the whole matrix. `tick` is called before each case with its number and how many there are.
///
/// # Errors
/// What is missing, when nothing can be fired on this machine.
pub(crate) fn run(tick: impl Fn(usize, usize)) -> Result<Vec<CaseResult>, String> {
    let all = cases().count();
    let mut results = Vec::new();
    for (number, case) in cases().enumerate() {
        tick(number, all);
        results.push(judge(case, fire(&case))?);
    }
    Ok(results)
}

/// Tries on a busy machine before a case counts as skipped.
const TRIES: u32 = 4;

fn fire(case: &Case) -> Outcome {
    let tries = (0..TRIES).map(|_| child::run(case));
    let mut fired = tries.skip_while(|outcome| matches!(outcome, Outcome::Busy));
    fired.next().unwrap_or(Outcome::Busy)
}

fn judge(case: Case, outcome: Outcome) -> Result<CaseResult, String> {
    let (observed, verdict) = match outcome {
        Outcome::Unsupported(what) => return Err(what),
        Outcome::Skipped(why) => (None, Verdict::Skipped(why)),
        Outcome::Busy => (None, Verdict::Skipped("the machine was too busy to hold an event in place".into())),
        Outcome::Broken(what) => (None, Verdict::Differs(what)),
        Outcome::Ran(observed) => (Some(observed), compare(&case, &observed)),
    };
    let Case { operation, memory, pages, noticed, cover } = case;
    Ok(CaseResult { operation, memory, expected_pages: pages, expected_noticed: noticed, cover, observed, verdict })
}

fn compare(case: &Case, observed: &Observed) -> Verdict {
    let Observed { pages, noticed, refused, seen_by_check } = *observed;
    if let Some(errno) = refused
        && pages == Pages::Same
        && noticed == Noticed::No
        && case.pages == Pages::Diverged
    {
        // Refused and harmless, so nothing was shown.
        return Verdict::Skipped(format!("the kernel refused it: {}", std::io::Error::from_raw_os_error(errno)));
    }
    if (pages, noticed) == (case.pages, case.noticed) {
        if seen_by_check == Some(false) && matches!(case.cover, Cover::Check | Cover::CallOrCheck) {
            return Verdict::Differs("a check before the next use was to see it, and did not".into());
        }
        return Verdict::AsExpected;
    }
    Verdict::Differs(format!(
        "expected {}, {}; saw {}, {}",
        print::of_pages(case.pages),
        print::of_noticed(case.noticed),
        print::of_pages(pages),
        print::of_noticed(noticed)
    ))
}

/// The rows that did not come out as expected.
pub(crate) fn differing(results: &[CaseResult]) -> impl Iterator<Item = &CaseResult> {
    results.iter().filter(|result| matches!(result.verdict, Verdict::Differs(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pages: Pages, noticed: Noticed, refused: Option<i32>) -> Verdict {
        let case = Case {
            operation: Operation::Munmap,
            memory: Memory::Anonymous,
            pages: Pages::Diverged,
            noticed: Noticed::After,
            cover: Cover::Watching,
        };
        judge(case, Outcome::Ran(Observed { pages, noticed, seen_by_check: Some(false), refused })).unwrap().verdict
    }

    #[test]
    fn only_what_the_matrix_says_is_as_expected() {
        assert_eq!(verdict(Pages::Diverged, Noticed::After, None), Verdict::AsExpected);
        assert!(matches!(verdict(Pages::Diverged, Noticed::No, None), Verdict::Differs(_)));
        assert!(matches!(verdict(Pages::Diverged, Noticed::Before, None), Verdict::Differs(_)));
        assert!(matches!(verdict(Pages::Same, Noticed::No, None), Verdict::Differs(_)));
        assert!(matches!(verdict(Pages::Same, Noticed::No, Some(1)), Verdict::Skipped(_)));
        assert!(matches!(verdict(Pages::Diverged, Noticed::No, Some(1)), Verdict::Differs(_)));
    }
}
