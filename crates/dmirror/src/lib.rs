//! An emulated accelerator that shares a process's address space.
//!
//! [`Accelerator`] has a page table of its own over the memory of this process. It is given ordinary addresses, walks its
//! table, faults in what is missing, and copies between the process's memory and its own buffers. On it run a few real
//! kernels ([`kernels`]): what shared virtual memory is for. It shows every rule that a driver of real hardware has to keep.
//!
//! # What it may rely on
//! A device that walks its own table at any time would go on using a page for a moment after munmap has returned, since its
//! translation is revoked when the event has been read, which is what lets munmap return. Such a device must hold pins. This
//! one does not; each of its accesses is *mediated* instead, as the uses of a registration are: the probe, then a section of
//! the gate, and in it the walk and the copy. So no access that begins after a change has returned uses a translation from
//! before it ([`pagemirror_core::mirror`] has the protocol and what checks it).
//!
//! The copy goes by virtual address, through `process_vm_readv` and `process_vm_writev`: a page that vanishes in the middle
//! is an error of the call, not a fault of the thread. The translation is dropped then, and the fault path gives the answer.
//! A page is thus written as a thread of the process would write it: who unmaps memory while the device is at work on it,
//! and has something else mapped there at once, may find the device's bytes in it, as he may find a thread's.
//!
//! ```no_run
//! use std::{sync::Arc, time::Duration};
//! use pagemirror_core::wait::Deadline;
//! use pagemirror_dmirror::{Accelerator, kernels::Node};
//! use pagemirror_linux::{Config, ProcessSpace, Userfault};
//!
//! let host = Arc::new(ProcessSpace::new(Userfault::open(Config::default())?)?);
//! let device = Accelerator::new(host);
//! let list = Node { value: 1, next: Some(Box::new(Node { value: 2, next: None })) };
//! let walked = device.walk(&list, 1000, &Deadline::after(Duration::from_secs(1)))?;
//! assert_eq!((walked.nodes, walked.sum), (2, 3)); // by the CPU's own pointers
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod accelerator;
mod error;
pub mod kernels;
mod snapshot;
mod write;

pub use accelerator::{Accelerator, Transfer};
pub use error::Error;
pub use snapshot::{PageByte, page_bytes};
