//! A progress bar on a terminal; nothing in a pipe.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::plan::Planned;

/// The bar. It hides itself where standard error is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn over(plan: &[Planned]) -> Self {
        let bar = ProgressBar::new(plan.iter().map(milliseconds).sum());
        // Whatever is wrong with the template, the bar has a style of its own.
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// The row with this number has run for this long.
    pub(crate) fn at(&self, plan: &[Planned], number: usize, elapsed: Duration) {
        let row = &plan[number];
        let over: u64 = plan[..number].iter().map(milliseconds).sum();
        self.bar.set_message(row.name.text());
        self.bar.set_position(over + (elapsed.as_millis() as u64).min(milliseconds(row)));
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn milliseconds(row: &Planned) -> u64 {
    row.time.as_millis() as u64
}
