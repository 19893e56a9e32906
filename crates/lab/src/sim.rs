//! The simulator: the real code of the core in a modelled Linux, deterministic from one seed.
//!
//! It runs the sources of `pagemirror-core` and `pagemirror-trackers`, built with `--cfg sim`, as coroutines in virtual time:
//! the address space, the gate, turns of the pump, doubts, waits and every tracker. Around them lies a model of what the
//! kernel does to a process's memory and says of it, and actors that change memory, use devices, and break things.
//!
//! # Guarantee
//! A seed gives the same run each time, to the last step; a seed that fails is made smaller while it still fails.
//!
//! # Checkers
//! Apart from the system: `observe` compares every answer of the tracker with the exact history; `table` compares what is
//! installed with what was revoked; `device` asks at each use whether these are still the pages, and whether the program
//! finds what the device wrote; `phases` asks at the end whether everything has come to rest.
//!
//! # Not covered
//! Orderings: execution is sequentially consistent. What the model of the kernel leaves out: see `kernel` and
//! `docs/simulator.md`.

mod actors;
mod counts;
mod device;
mod hunt;
mod kernel;
mod memory;
mod mutator;
mod observe;
mod options;
mod phases;
mod shrink;
mod simulator;
mod table;
#[cfg(test)]
mod tests;
mod world;

pub use counts::{Count, Counts};
pub use hunt::{CHILD, Found, HuntError, bugs, child, hunt, not_hunted, try_hunt};
pub use options::{OptionError, Options, SIMPLEST, Setting};
pub use pagemirror_trackers_sim::catalogue::TrackerName;
pub use phases::Run;
pub use shrink::Shrunk;
pub use simulator::{Simulator, Totals};
pub use world::Step;
