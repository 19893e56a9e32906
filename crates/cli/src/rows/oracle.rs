//! What a device may have sent: tags, generations, and the verdict on every byte.
//!
//! # Guarantee
//! A byte is *stale* when it matches no state that its address had between the begin of the use and its completion.
//!
//! # States
//! An object (a region, an allocated block) goes through generations. Whoever changes it stores `started = g + 1`, makes
//! the change, fills every byte with the tag of `g + 1`, and stores `done = g + 1`. While `started > done` the bytes are
//! those of an old generation, of the new one, or zero (a fresh page).
//!
//! # Interleavings
//! ```text
//! device                                    mutator
//! since := done                             started := g + 1
//! begin; submit; completion                 change; fill
//! until := started                          done := g + 1
//! ```
//! All four are SeqCst. A change that was over before `begin` has raised `since`; one that began before the completion has
//! raised `until`. Every state of the time between is a generation in `[since, until]`, or zero if `until > since`.

/// Bytes that share a tag: a page of any machine is a multiple of it.
pub(crate) const CHUNK: usize = 4096;

/// Different tags. Two generations of one chunk have the same tag only when they are a multiple of this apart, and a use
/// rarely sees more than two.
const TAGS: u64 = 255;

/// The generations that an object may have had during a use, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The newest generation that was complete before the use began.
    pub(crate) since: u64,
    /// The newest generation that had been started when the use completed.
    pub(crate) until: u64,
}

/// What the check of one use found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Bytes that match no state.
    pub(crate) bytes: u64,
    /// The first of them: its offset in the object, and what was sent.
    pub(crate) first: Option<(usize, u8)>,
}

/// The byte that fills `chunk` of object `id` in `generation`. Never zero.
pub(crate) fn tag(id: u64, generation: u64, chunk: u64) -> u8 {
    let place = scatter(id, chunk) % TAGS;
    ((generation % TAGS + place) % TAGS) as u8 + 1
}

/// Writes a generation of object `id` over `bytes`, its first ones.
pub(crate) fn write(id: u64, generation: u64, bytes: &mut [u8]) {
    for (chunk, part) in bytes.chunks_mut(CHUNK).enumerate() {
        part.fill(tag(id, generation, chunk as u64));
    }
}

/// Checks `bytes`, which the device sent from `offset` of object `id`.
pub(crate) fn check(id: u64, offset: usize, bytes: &[u8], window: Window) -> Stale {
    let mut stale = Stale::default();
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let chunk_end = (at / CHUNK + 1) * CHUNK;
        let (part, behind) = rest.split_at(rest.len().min(chunk_end - at));
        check_chunk(id, at, part, window, &mut stale);
        at += part.len();
        rest = behind;
    }
    stale
}

fn check_chunk(id: u64, at: usize, bytes: &[u8], window: Window, stale: &mut Stale) {
    let chunk = (at / CHUNK) as u64;
    let newest = tag(id, window.until, chunk);
    // The usual case, as fast as a comparison of memory: the whole chunk is of the newest generation.
    if bytes.iter().all(|byte| *byte == newest) {
        return;
    }
    for (index, &byte) in bytes.iter().enumerate() {
        if !is_possible(id, chunk, byte, window) {
            stale.bytes += 1;
            stale.first.get_or_insert((at + index, byte));
        }
    }
}

/// Whether `byte` is a state that the chunk may have had in the window.
fn is_possible(id: u64, chunk: u64, byte: u8, window: Window) -> bool {
    if byte == 0 {
        return window.until > window.since;
    }
    let oldest = u64::from(tag(id, window.since, chunk));
    let steps = (u64::from(byte) + TAGS - oldest) % TAGS;
    steps <= window.until.saturating_sub(window.since)
}

/// Spreads object and chunk over the tags, so that neighbours differ.
fn scatter(id: u64, chunk: u64) -> u64 {
    let mut mixed = (id << 20 ^ chunk).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 29;
    mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(id: u64, generation: u64, offset: usize, len: usize) -> Vec<u8> {
        (offset..offset + len).map(|at| tag(id, generation, (at / CHUNK) as u64)).collect()
    }

    #[test]
    fn the_generation_before_the_window_is_stale() {
        let old = filled(7, 41, 0, 2 * CHUNK);
        let stale = check(7, 0, &old, Window { since: 42, until: 42 });
        assert_eq!((stale.bytes, stale.first), (2 * CHUNK as u64, Some((0, old[0]))));
        assert_eq!(check(7, 0, &old, Window { since: 41, until: 42 }), Stale::default());
    }

    #[test]
    fn zero_is_a_state_only_while_a_change_is_under_way() {
        assert_eq!(check(1, 0, &[0; 8], Window { since: 3, until: 4 }).bytes, 0);
        assert_eq!(check(1, 0, &[0; 8], Window { since: 4, until: 4 }).bytes, 8);
    }

    #[test]
    fn bytes_of_another_object_are_stale() {
        let other = filled(2, 10, 0, 16);
        assert_ne!(tag(1, 10, 0), tag(2, 10, 0), "these two objects have different tags");
        assert_eq!(check(1, 0, &other, Window { since: 10, until: 10 }).bytes, 16);
    }

    #[test]
    fn one_wrong_byte_is_found_where_it_is() {
        let mut bytes = filled(3, 9, 100, CHUNK);
        bytes[4000] = 0;
        let stale = check(3, 100, &bytes, Window { since: 9, until: 9 });
        assert_eq!((stale.bytes, stale.first), (1, Some((4100, 0))));
    }

    proptest! {
        #[test]
        fn a_byte_is_possible_exactly_when_a_generation_of_the_window_has_its_tag(
            id in 0_u64..1000, chunk in 0_u64..200, since in 0_u64..100_000, ahead in 0_u64..400, byte: u8,
        ) {
            let window = Window { since, until: since + ahead };
            let named = (window.since..=window.until).any(|generation| tag(id, generation, chunk) == byte);
            let expected = named || (byte == 0 && ahead > 0);
            prop_assert_eq!(is_possible(id, chunk, byte, window), expected);
        }

        #[test]
        fn what_was_filled_in_the_window_is_never_stale(
            id: u32, since in 0_u64..100_000, ahead in 0_u64..5, pick in 0_u64..5, offset in 0_usize..10_000, len in 1_usize..10_000,
        ) {
            let sent = filled(u64::from(id), since + pick.min(ahead), offset, len);
            let window = Window { since, until: since + ahead };
            prop_assert_eq!(check(u64::from(id), offset, &sent, window), Stale::default());
        }
    }
}
