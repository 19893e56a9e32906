//! Every way that the field tracks collisions, on one seam, and the scenarios that tell them apart.
//!
//! Built three times from these sources: on real threads, for loom, and for shuttle (`models/`).
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod catalogue;
mod cells;
pub mod engine;
pub mod hull_seq;
pub mod interval_seq;
pub mod notifier_count;
pub mod oracle;
pub mod planted;
pub mod range_valid;
pub mod scenario;
pub mod steps;
