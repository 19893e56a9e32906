//! The Linux side of pagemirror: changes of this process's memory, told by userfaultfd.
//!
//! [`Userfault`] is the one source of a process. It registers ranges for notification only (nothing is ever protected, so
//! no page fault is ever handled here), runs the *pump* that reads events and revokes, answers the *probe*, and ends
//! *doubts* when it has proof.
//!
//! - `source` opens it and watches ranges; `pump` and `watchdog` are its threads that never allocate; `prover` is the one
//!   that may.
//! - `calls` are the changes of memory that say so first.
//! - `check` looks at what is not told; `arena` is memory that it cannot happen to.
//! - [`process`] is the memory that a mirror mirrors; [`memory`] copies to and from it.
//! - [`abi`] is the kernel's interface as this crate uses it; [`maps`], [`pagemap`] and [`tasks`] read `/proc`.
//!
//! # What is not told
//! mprotect, `MADV_GUARD_INSTALL`, holes punched or files truncated by descriptor, `remap_file_pages`, `shmat(SHM_REMAP)`,
//! shmdt (so a System V segment is never called covered), discards of a shared file by another process or through a mapping that
//! is not watched, and whatever a task does that shares the memory without being a thread of the process (vfork).
//!
//! # Side effects of watching
//! Multi-size huge pages and fault-around are off in a watched mapping, and one mremap over two mappings fails there.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod abi;
mod aliases;
mod arena;
mod calls;
mod check;
mod config;
mod fork;
pub mod lock;
pub mod mapping;
pub mod maps;
pub mod memory;
pub mod pagemap;
pub mod process;
mod prover;
mod pump;
mod source;
mod stats;
pub mod tasks;
mod threads;
mod watchdog;

pub use arena::{Arena, Block, Sealing};
pub use calls::{CallError, Discard, Discarded, Unmapped, Uses};
pub use config::{Config, Control, OpenError};
pub use process::ProcessSpace;
pub use pump::{SECTION_LIMIT, STUCK_LIMIT};
pub use source::{Privilege, Userfault};
pub use stats::SourceStats;
