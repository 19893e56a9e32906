//! Messages that are read from a userfaultfd, from 32 raw bytes to a value. No system call, nothing unsafe.

use std::os::fd::RawFd;

/// The length of one message in bytes.
pub const MESSAGE_LEN: usize = 32;

/// One message as the kernel writes it.
pub type RawMessage = [u8; MESSAGE_LEN];

/// The first byte of a message: what happened.
pub mod event {
    /// Somebody touched a page that is missing or protected.
    pub const PAGEFAULT: u8 = 0x12;
    /// The process forked.
    pub const FORK: u8 = 0x13;
    /// Pages were moved by mremap(2).
    pub const REMAP: u8 = 0x14;
    /// Pages are about to be discarded by madvise(2).
    pub const REMOVE: u8 = 0x15;
    /// Pages were unmapped.
    pub const UNMAP: u8 = 0x16;
}

/// Where the fields of a message lie, in bytes from its start. Those of different events share their places.
pub mod message_offset {
    /// What happened, one byte.
    pub const EVENT: usize = 0;
    /// FORK: the number of the new descriptor, four bytes.
    pub const FORK_FD: usize = 8;
    /// PAGEFAULT: the flags, eight bytes.
    pub const PAGEFAULT_FLAGS: usize = 8;
    /// PAGEFAULT: the address, eight bytes.
    pub const PAGEFAULT_ADDRESS: usize = 16;
    /// REMAP: the old address, eight bytes.
    pub const REMAP_FROM: usize = 8;
    /// REMAP: the new address, eight bytes.
    pub const REMAP_TO: usize = 16;
    /// REMAP: the old length, eight bytes.
    pub const REMAP_LEN: usize = 24;
    /// REMOVE and UNMAP: the first address, eight bytes.
    pub const START: usize = 8;
    /// REMOVE and UNMAP: the first address behind the range, eight bytes.
    pub const END: usize = 16;
}

/// What a message says. Addresses and lengths are in bytes, as the kernel wrote them: nothing was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The pages from `start` to before `end` were unmapped. They are gone already.
    Unmap {
        /// The first address.
        start: u64,
        /// The first address behind the range.
        end: u64,
    },
    /// `len` bytes at `from` were moved to `to`. They are there already.
    Remap {
        /// The old address.
        from: u64,
        /// The new address.
        to: u64,
        /// The old length.
        len: u64,
    },
    /// The pages from `start` to before `end` will be discarded once this message is read. Nothing tells the end of it.
    Remove {
        /// The first address.
        start: u64,
        /// The first address behind the range.
        end: u64,
    },
    /// The process forked, and reading this message has opened a descriptor for the child's memory.
    Fork {
        /// The new descriptor, which belongs to who reads the message: it must be closed.
        fd: RawFd,
    },
    /// A page was touched that needs service. A source that only listens never sees this.
    Pagefault {
        /// The address, rounded down to a page unless `EXACT_ADDRESS` was asked for.
        address: u64,
        /// Why: written to, write-protected, minor.
        flags: u64,
    },
    /// An event that this version does not know.
    Unknown(u8),
}

impl Message {
    /// Reads a message. Every input has a meaning: what is not known is [`Unknown`](Self::Unknown).
    ///
    /// ```
    /// use pagemirror_linux::abi::{Message, event};
    /// let mut raw = [0; 32];
    /// raw[0] = event::UNMAP;
    /// raw[8..16].copy_from_slice(&0x1000_u64.to_ne_bytes());
    /// raw[16..24].copy_from_slice(&0x3000_u64.to_ne_bytes());
    /// assert_eq!(Message::decode(&raw), Message::Unmap { start: 0x1000, end: 0x3000 });
    /// ```
    #[must_use]
    pub fn decode(raw: &RawMessage) -> Self {
        use message_offset as at;
        match raw[at::EVENT] {
            event::UNMAP => Self::Unmap { start: word(raw, at::START), end: word(raw, at::END) },
            event::REMOVE => Self::Remove { start: word(raw, at::START), end: word(raw, at::END) },
            event::REMAP => Self::Remap {
                from: word(raw, at::REMAP_FROM),
                to: word(raw, at::REMAP_TO),
                len: word(raw, at::REMAP_LEN),
            },
            event::FORK => Self::Fork { fd: i32::from_ne_bytes(bytes(raw, at::FORK_FD)) },
            event::PAGEFAULT => {
                Self::Pagefault { address: word(raw, at::PAGEFAULT_ADDRESS), flags: word(raw, at::PAGEFAULT_FLAGS) }
            }
            other => Self::Unknown(other),
        }
    }
}

fn word(raw: &RawMessage, at: usize) -> u64 {
    u64::from_ne_bytes(bytes(raw, at))
}

fn bytes<const N: usize>(raw: &RawMessage, at: usize) -> [u8; N] {
    std::array::from_fn(|index| raw[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this event whose three words are distinct and hold no byte twice.
    fn sample(event: u8) -> RawMessage {
        let mut raw: RawMessage = std::array::from_fn(|index| index as u8);
        raw[0] = event;
        raw
    }

    fn ne(first: u8) -> u64 {
        u64::from_ne_bytes(std::array::from_fn(|index| first + index as u8))
    }

    #[test]
    fn every_event_takes_its_fields_from_their_own_places() {
        let read = |event| Message::decode(&sample(event));
        assert_eq!(read(event::UNMAP), Message::Unmap { start: ne(8), end: ne(16) });
        assert_eq!(read(event::REMOVE), Message::Remove { start: ne(8), end: ne(16) });
        assert_eq!(read(event::REMAP), Message::Remap { from: ne(8), to: ne(16), len: ne(24) });
        assert_eq!(read(event::PAGEFAULT), Message::Pagefault { flags: ne(8), address: ne(16) });
        assert_eq!(read(event::FORK), Message::Fork { fd: i32::from_ne_bytes([8, 9, 10, 11]) });
    }

    #[test]
    fn what_is_not_known_is_said_to_be_unknown() {
        let known = event::PAGEFAULT..=event::UNMAP;
        for number in (0..=u8::MAX).filter(|number| !known.contains(number)) {
            assert_eq!(Message::decode(&sample(number)), Message::Unknown(number));
        }
    }

    #[test]
    fn the_highest_address_survives() {
        let mut raw = [0xff; MESSAGE_LEN];
        raw[0] = event::REMOVE;
        assert_eq!(Message::decode(&raw), Message::Remove { start: u64::MAX, end: u64::MAX });
    }
}
