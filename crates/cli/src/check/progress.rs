//! A progress bar on a terminal; nothing in a pipe.

use indicatif::{ProgressBar, ProgressStyle};
use pagemirror_lab::check::Progress;

use pagemirror_lab::report::number;

/// The bar. It hides itself where standard error is no terminal.
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(super) fn over(cases: usize) -> Self {
        let bar = ProgressBar::new(cases as u64);
        // Whatever is wrong with the template, the bar has a style of its own.
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}  {msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    pub(super) fn at(&self, progress: &Progress<'_>) {
        let case = progress.case;
        let (tracker, scenario, engine) = (case.tracker.text(), case.scenario.name, case.engine);
        let executions = number(progress.executions);
        self.bar.set_position(progress.done as u64);
        self.bar.set_message(format!("{tracker} {scenario} {engine} {executions}"));
    }

    /// One more is done.
    pub(super) fn one_more(&self, what: &str) {
        self.bar.inc(1);
        self.bar.set_message(what.to_owned());
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
