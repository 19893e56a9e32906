//! Atomics whose every operation is a possible switch point. One real thread runs them all, so the orderings that are asked
//! for are not looked at: execution is sequentially consistent.

pub use std::sync::atomic::Ordering;

use super::point::point;

/// A possible switch point, and nothing else.
#[inline]
pub fn fence(_order: Ordering) {
    point();
}

macro_rules! operations {
    ($value:ty: $($name:ident),*) => {
        $(
            #[doc = "As the standard library's, behind a possible switch point."]
            #[inline]
            pub fn $name(&self, value: $value, _order: Ordering) -> $value {
                point();
                // ORDERING: Relaxed; only one real thread ever runs.
                self.0.$name(value, Ordering::Relaxed)
            }
        )*
    };
}

macro_rules! atomic {
    ($name:ident, $value:ty, [$($operation:ident),*]) => {
        #[doc = concat!("As the standard library's `", stringify!($name), "`.")]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(std::sync::atomic::$name);

        impl $name {
            /// Makes one with this value.
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            /// The value, behind a possible switch point.
            #[inline]
            #[must_use]
            pub fn load(&self, _order: Ordering) -> $value {
                point();
                // ORDERING: Relaxed; only one real thread ever runs.
                self.0.load(Ordering::Relaxed)
            }

            /// Stores, behind a possible switch point.
            #[inline]
            pub fn store(&self, value: $value, _order: Ordering) {
                point();
                // ORDERING: Relaxed; only one real thread ever runs.
                self.0.store(value, Ordering::Relaxed);
            }

            /// Exchanges the value if it is `current`, behind a possible switch point.
            ///
            /// # Errors
            /// With the value that is there, when it is another.
            #[inline]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                _success: Ordering,
                _failure: Ordering,
            ) -> Result<$value, $value> {
                point();
                // ORDERING: Relaxed; only one real thread ever runs.
                self.0.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed)
            }

            /// As [`compare_exchange`](Self::compare_exchange); it does not fail without a reason.
            ///
            /// # Errors
            /// As there.
            #[inline]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            /// Changes the value by `change` in one step, behind a possible switch point.
            ///
            /// # Errors
            /// With the value that is there, when `change` leaves it.
            #[inline]
            pub fn fetch_update(
                &self,
                _set: Ordering,
                _fetch: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                point();
                // ORDERING: Relaxed; only one real thread ever runs.
                self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            }

            operations!($value: swap, $($operation),*);
        }
    };
}

atomic!(AtomicBool, bool, [fetch_and, fetch_or, fetch_xor]);
atomic!(AtomicU8, u8, [fetch_add, fetch_sub, fetch_and, fetch_or, fetch_max, fetch_min]);
atomic!(AtomicU32, u32, [fetch_add, fetch_sub, fetch_and, fetch_or, fetch_max, fetch_min]);
atomic!(AtomicU64, u64, [fetch_add, fetch_sub, fetch_and, fetch_or, fetch_max, fetch_min]);
atomic!(AtomicI64, i64, [fetch_add, fetch_sub, fetch_and, fetch_or, fetch_max, fetch_min]);
atomic!(AtomicUsize, usize, [fetch_add, fetch_sub, fetch_and, fetch_or, fetch_max, fetch_min]);
