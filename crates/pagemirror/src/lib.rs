//! Keep what a device believes about this process's memory true while the process unmaps, discards, moves and protects it.
//!
//! This crate is what a program depends on; it re-exports the parts:
//! - [`Userfault`], the process's source of invalidations ([`linux`]);
//! - [`RegistrationCache`] over any [`Registrar`]: leases, uses ([`registration`]);
//! - [`FixedBuffers`] and [`CoherentRing`]: io_uring fixed buffers ([`io_uring`]);
//! - [`LockedMemory`]: pages kept in memory, a registrar that needs no hardware;
//! - [`core`]: the algorithm itself.
//!
//! ```no_run
//! use std::{fs::File, os::fd::AsFd, time::Duration};
//! use pagemirror::{CoherentRing, Deadline, RingOptions};
//!
//! let mut ring = CoherentRing::open(RingOptions::default())?;
//! let deadline = Deadline::after(Duration::from_secs(5));
//!
//! let file = File::create("out")?;
//! let mut buffer = vec![1_u8; 1 << 20]; // any allocator's memory; registered on first use
//! ring.write_at(file.as_fd(), &buffer, 0, &deadline)?;
//!
//! buffer = vec![2_u8; 1 << 20]; // freed, unmapped, perhaps mapped again at the same address
//! ring.write_at(file.as_fd(), &buffer, 1 << 20, &deadline)?; // never the old pages
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod locked_memory;

pub use locked_memory::LockedMemory;
pub use pagemirror_core as core;
pub use pagemirror_core::addr::{PageRange, VirtAddr};
pub use pagemirror_core::check::{Change, Checked};
pub use pagemirror_core::gate::LostCause;
pub use pagemirror_core::holder::Holder;
pub use pagemirror_core::source::{Probe, Source, WatchError, Watched};
pub use pagemirror_core::wait::{CancelToken, Deadline};
pub use pagemirror_io_uring as io_uring;
pub use pagemirror_io_uring::{CoherentRing, FixedBuffers, FixedEntry, RingOptions, RingStats, Slot};
pub use pagemirror_linux as linux;
pub use pagemirror_linux::{
    Arena, Block, CallError, Config, Control, Discard, Discarded, OpenError, Privilege, Sealing, SourceStats, Unmapped,
    Userfault, Uses,
};
pub use pagemirror_registration as registration;
pub use pagemirror_registration::{
    Access, Error, ErrorKind, Freshness, Key, Lease, Options, OwnedUse, RegisterError, RegisterErrorKind, Registered,
    Registrar, RegistrationCache, Stats, Tracked, Use, Verified, WaitCause, Waits,
};

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[derive(Debug)]
pub struct Readme;
