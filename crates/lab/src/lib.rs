//! The laboratory: model checks, the simulator, traces of real programs, and measurements of every tracker.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod bench;
pub mod check;
pub mod drive;
pub mod replay;
pub mod report;
pub mod sim;
pub mod trace;
pub mod variant;
pub mod workload;
