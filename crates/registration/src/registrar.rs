//! What a device has to offer: registering a range and taking it back.

use std::fmt;
use std::io;

use pagemirror_core::addr::PageRange;

/// What the device does with the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// The device reads it (the program writes to a file or a peer).
    Read,
    /// The device writes it, and may read it.
    Write,
}

impl Access {
    /// Whether a registration made for this access serves a request for `wanted`.
    #[must_use]
    pub fn serves(self, wanted: Self) -> bool {
        self == wanted || self == Self::Write
    }
}

/// A device's name for a registration: two words, so that readers can look at one while it is being replaced and see that.
///
/// ```
/// # use pagemirror_registration::Key;
/// /// What an RDMA device gives for a registration.
/// #[derive(Debug, Clone, Copy)]
/// struct Keys {
///     local: u32,
///     remote: u32,
/// }
///
/// impl Key for Keys {
///     fn into_words(self) -> [u64; 2] {
///         [self.local.into(), self.remote.into()]
///     }
///     fn from_words([local, remote]: [u64; 2]) -> Self {
///         Self { local: local as u32, remote: remote as u32 }
///     }
/// }
/// ```
pub trait Key: Copy + Send + Sync + fmt::Debug + 'static {
    /// The name as two words.
    fn into_words(self) -> [u64; 2];

    /// The name that was made into these words.
    fn from_words(words: [u64; 2]) -> Self;
}

macro_rules! number_is_a_key {
    ($($number:ty)*) => {
        $(impl Key for $number {
            #[inline]
            fn into_words(self) -> [u64; 2] {
                [self as u64, 0]
            }
            #[inline]
            fn from_words(words: [u64; 2]) -> Self {
                words[0] as $number
            }
        })*
    };
}

number_is_a_key!(u8 u16 u32 u64 usize);

/// A device that registers ranges of memory: it pins their pages and names them by a key.
///
/// Implementations may be slow and may fail. They are called by the thread that misses and by the cache's worker, at the
/// same time; never by the pump, never under a lock of the cache.
pub trait Registrar: Send + Sync + 'static {
    /// Names a registration to the device.
    type Key: Key;

    /// Registers the pages that are mapped at `range` now.
    ///
    /// # Errors
    /// When the device has no room, or refuses the range.
    ///
    /// # Blocking
    /// May sleep.
    fn register(&self, range: PageRange, access: Access) -> Result<Self::Key, RegisterError>;

    /// Takes a registration back. Every use of it has completed. The key may be given out again afterwards.
    ///
    /// # Errors
    /// When the device did not let go. The cache counts it and keeps the key out of use.
    ///
    /// # Blocking
    /// May sleep.
    fn deregister(&self, key: Self::Key) -> Result<(), RegisterError>;
}

/// What a failed registration means for the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterErrorKind {
    /// The device is full: another registration has to go first.
    NoRoom,
    /// This range cannot be registered, or not now.
    Refused,
}

/// A registration that failed, with the device's reason.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct RegisterError {
    /// What it means for the cache.
    pub kind: RegisterErrorKind,
    /// What happened and what to do about it.
    pub reason: String,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

impl RegisterError {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: RegisterErrorKind, reason: impl Into<String>, source: io::Error) -> Self {
        Self { kind, reason: reason.into(), source }
    }
}

/// A registration as a submission sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered<K> {
    /// The device's name for it.
    pub key: K,
    /// The pages that it covers: those that were asked for, or more.
    pub range: PageRange,
}
