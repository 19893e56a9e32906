//! The matrix as a table.

use std::fmt::Write as _;

use pagemirror_lab::report::Table;

use super::catalogue::{Cover, Noticed, Pages, name_of};
use super::{CaseResult, Verdict, differing};

pub(super) fn of_pages(pages: Pages) -> &'static str {
    match pages {
        Pages::Same => "same",
        Pages::Diverged => "diverged",
    }
}

pub(super) fn of_noticed(noticed: Noticed) -> &'static str {
    match noticed {
        Noticed::Before => "before",
        Noticed::After => "after",
        Noticed::Needless => "needlessly",
        Noticed::No => "no",
    }
}

/// Every case with what was seen.
pub(crate) fn table(results: &[CaseResult]) -> String {
    let heading = ["operation", "memory", "old pages", "noticed", "check sees", "covered by", "verdict"];
    let mut table = Table::untitled(&heading, &[0, 1, 2, 3, 4, 5, 6]);
    for result in results {
        let (pages, noticed) =
            result.observed.map_or(("-", "-"), |observed| (of_pages(observed.pages), of_noticed(observed.noticed)));
        let seen = match result.observed.map(|observed| observed.seen_by_check) {
            Some(Some(true)) => "yes",
            Some(Some(false)) => "no",
            Some(None) => "cannot tell",
            None => "-",
        };
        let cover = match result.cover {
            Cover::Watching if result.expected_noticed != Noticed::No => "watching",
            cover => cover.text(),
        };
        let verdict = match &result.verdict {
            Verdict::AsExpected => "as expected",
            Verdict::Differs(_) => "DIFFERS",
            Verdict::Skipped(_) => "SKIPPED",
        };
        let refused = result.observed.and_then(|observed| observed.refused);
        let verdict = refused.map_or(verdict.into(), |errno| {
            format!("{verdict}; refused: {}", std::io::Error::from_raw_os_error(errno))
        });
        let (operation, memory) = (result.operation.text().into(), name_of(result.memory));
        table.row(vec![operation, memory, pages.into(), noticed.into(), seen.into(), cover.into(), verdict]);
    }
    table.lines()
}

/// What is to be said about it below the table.
pub(crate) fn conclusion(results: &[CaseResult]) -> String {
    let mut text = String::new();
    for result in results {
        let what = format!("{}, {}", result.operation.text(), name_of(result.memory));
        let _ = match &result.verdict {
            Verdict::AsExpected => Ok(()),
            Verdict::Differs(how) => writeln!(text, "DIFFERS: {what}: {how}"),
            Verdict::Skipped(why) => writeln!(text, "SKIPPED: {what}: {why}"),
        };
    }
    let differs = differing(results).count();
    let skipped = results.iter().filter(|result| matches!(result.verdict, Verdict::Skipped(_))).count();
    let fired = results.len() - skipped;
    let _ = writeln!(
        text,
        "{fired} of {} cases were fired, {skipped} skipped; {differs} came out otherwise than expected.",
        results.len()
    );
    text.push_str(
        "old pages: whether what the device had pinned is still what the processor sees.\n\
         noticed: whether the registration was made stale, and whether the event was there before or after the pages had \
         changed; needlessly when they stay the same.\n\
         mprotect leaves the pages alone, but the device keeps a right that the program has lost.\n",
    );
    text
}
