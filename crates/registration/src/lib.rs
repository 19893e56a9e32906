//! A coherent registration cache: registering memory with a device once, using it many times, and never using it
//! after the process has unmapped, moved or discarded it.
//!
//! # A newcomer's way in
//! [`RegistrationCache::get`] gives a [`Lease`]; a hit is a search, a miss runs the collision-retry loop, which is the
//! first function of `miss.rs`. [`RegistrationCache::begin`] starts one submission on one or several leases and gives a
//! [`Use`], which goes back when the device has completed. An invalidation makes leases stale; `begin` says so, and the
//! caller gets a new one.
//!
//! ```
//! # use std::time::Duration;
//! # use pagemirror_core::{addr::VirtAddr, wait::Deadline};
//! # use pagemirror_registration::{Access, Error, ErrorKind, RegistrationCache, Registrar};
//! fn send<R: Registrar>(cache: &RegistrationCache<R>, buffer: &[u8], post: impl Fn(R::Key)) -> Result<(), Error> {
//!     let deadline = Deadline::after(Duration::from_secs(5));
//!     loop {
//!         let lease = cache.get(VirtAddr::of(buffer.as_ptr()), buffer.len() as u64, Access::Read, &deadline)?;
//!         match cache.begin(&[&lease], &deadline, |registered| post(registered[0].key)) {
//!             Ok((using, ())) => {
//!                 // ... wait for the device's completion ...
//!                 using.complete();
//!                 return Ok(());
//!             }
//!             Err(error) if error.kind() == ErrorKind::Stale => continue,
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//! ```
//!
//! # Lock order
//! The device lock (rank 2 of the core's table) and the list of what was handed to the worker are never held together,
//! and neither across the registrar.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod cache;
mod error;
mod index;
mod lease;
mod miss;
mod registrar;
mod registration;
mod stats;
mod uses;
mod worker;

pub use cache::{Freshness, Options, RegistrationCache};
pub use error::{Error, ErrorKind};
pub use lease::Lease;
pub use registrar::{Access, RegisterError, RegisterErrorKind, Registered, Registrar};
pub use stats::{Invalidations, Stats, WaitCause, Waits};
pub use uses::Use;
