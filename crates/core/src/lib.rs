//! Collision-retry between the fault side of a device and the invalidations of a process's memory.
//!
//! A device keeps translations of memory that the process may unmap, move or discard at any time. The fault side reads
//! the page table and installs what it read **only if no overlapping invalidation started since it began**; otherwise
//! it goes round again. This crate is that algorithm, with no input or output and no unsafe code.
//!
//! Where to look:
//! - [`space`]: the address space, invalidations from start to end, attempts.
//! - [`device`]: the device lock, and the permit that only a commit under it gives.
//! - [`log`]: the tracker; [`collision`]: the seam it plugs into; [`memory`]: its words.
//! - [`gate`]: uses and sections; [`turn`]: one turn of the pump against them.
//! - [`hold`]: who holds what, so that nobody takes it away.
//! - [`doubt`]: discards that were announced and do not say when they are over.
//! - [`source`]: what is asked of the operating system; [`check`]: what can be seen of a range before a use; [`holder`]: who knows whether a device has let go.
//! - [`mirror`]: the fault path of such a device, and its mediated access.
//! - [`table`]: the page table of a device that walks it itself.
//! - [`interval`]: which of many registrations a range overlaps.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod addr;
pub mod check;
pub mod collision;
pub mod device;
pub mod doubt;
pub mod error;
pub mod gate;
pub mod hold;
pub mod holder;
pub mod interval;
pub mod log;
pub mod memory;
pub mod mirror;
pub mod notify;
pub mod source;
pub mod space;
pub mod table;
pub mod turn;
pub mod wait;
