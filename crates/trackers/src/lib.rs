//! Every way that the field tracks collisions, on one seam, and the scenarios that tell them apart.
//!
//! Built three times from these sources: on real threads, for loom, and for shuttle (`models/`).
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod oracle;
