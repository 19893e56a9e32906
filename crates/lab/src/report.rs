//! Reports: one page of HTML that needs nothing else, and tables for a terminal.
//!
//! - `machine` is where it ran; `table`, `plot` and `html` are what a page is made of;
//! - `answer` says in words what the figures say; `phrase` has the words for comparisons;
//! - `bench_page` and `replay_page` put the two reports together.

mod answer;
mod bench_page;
mod bench_tables;
mod html;
mod machine;
mod phrase;
mod plot;
mod replay_page;
mod table;

pub use answer::answer;
pub use bench_page::bench_page;
pub use bench_tables::bench_tables;
pub use machine::Machine;
pub use replay_page::{replay_page, replay_tables};
pub use table::{Table, figure, number};

/// The question that the reports answer.
pub const QUESTION: &str = "A review of the kernel's HMM in June 2019 left a question open: is it worth tracking each range, \
                            so that a fault collides only with invalidations that overlap it, or would the count of running \
                            notifiers, used as one global lock, be as good and simpler?";
