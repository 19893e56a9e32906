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
//! # use pagemirror_registration::{Access, Error, RegistrationCache, Registrar};
//! fn send<R: Registrar>(cache: &RegistrationCache<R>, buffer: &[u8], post: impl Fn(R::Key)) -> Result<(), Error> {
//!     let deadline = Deadline::after(Duration::from_secs(5));
//!     let (address, len) = (VirtAddr::of(buffer.as_ptr()), buffer.len() as u64);
//!     let (using, ()) = cache.begin_at(address, len, Access::Read, &deadline, |registered| post(registered.key))?;
//!     // ... wait for the device's completion ...
//!     using.complete();
//!     Ok(())
//! }
//! ```
//!
//! # Which registration serves
//! One that is live, contains all pages of the request, and was made for the access that is asked for, or for writing. None is
//! enlarged, merged or split: what overlaps is registered beside it, and an invalidation of any part takes all of it away. When the
//! device or the [limits](Options) leave no room, what was not asked for lately goes (second chance: a hand goes round, and
//! passes once what was asked for since its last round), but never what is leased or in use.
//!
//! # When a lease turns stale
//! [`RegistrationCache::explain`] says what took a registration away, and when.
//!
//! # Lock order
//! The device lock (rank 2 of the core's table) and the list of what was handed to the worker are never held together,
//! and neither across the registrar.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod cache;
mod error;
mod fetch;
mod hints;
mod index;
mod journal;
mod lease;
mod miss;
mod place;
#[cfg(feature = "metrics")]
mod publish;
mod registrar;
mod registry;
mod stats;
mod tracked;
mod uses;
mod verified;
mod worker;

pub use cache::{Freshness, Options, RegistrationCache};
pub use error::{Error, ErrorKind};
pub use fetch::Get;
pub use journal::{Cause, Taken};
pub use lease::Lease;
pub use registrar::{Access, Key, RegisterError, RegisterErrorKind, Registered, Registrar};
pub use stats::{Invalidations, Stats, WaitCause, Waits};
pub use tracked::Tracked;
pub use uses::{OwnedUse, Use};
pub use verified::Verified;
