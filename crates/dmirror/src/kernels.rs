//! Small programs that run on the device, on memory that the CPU built with ordinary pointers.
//!
//! Each reads through the device's page table into a buffer of the device, and computes there.

use pagemirror_core::addr::VirtAddr;
use pagemirror_core::wait::Deadline;

use crate::accelerator::Accelerator;
use crate::error::Error;

/// Bytes of the device's own buffer: one access at a time.
const BUFFER: usize = 64 * 1024;
/// Words that it holds.
const WORDS: usize = BUFFER / size_of::<u32>();

/// A node of a list that the CPU builds. The device follows the same pointers.
#[derive(Debug)]
#[repr(C)]
pub struct Node {
    /// What is summed.
    pub value: u64,
    /// The next node; null for none, as `Option<Box<_>>` is laid out.
    pub next: Option<Box<Node>>,
}

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Nodes that were visited.
    pub nodes: u64,
    /// The sum of their values, which goes round.
    pub sum: u64,
    /// The list went on when the limit was reached.
    pub cut_short: bool,
}

impl Accelerator {
    /// `out[i] = left[i] + right[i]`, which goes round.
    ///
    /// # Errors
    /// [`Error::Lengths`] when the operands are not as long; what transfers say.
    ///
    /// # Blocking
    /// As [`read`](Self::read).
    pub fn add(&self, left: &[u32], right: &[u32], out: &mut [u32], by: &Deadline<'_>) -> Result<(), Error> {
        if left.len() != right.len() || left.len() != out.len() {
            let other = if left.len() == right.len() { out.len() } else { right.len() };
            return Err(Error::Lengths { left: left.len(), right: other });
        }
        let parts = left.chunks(WORDS).zip(right.chunks(WORDS)).zip(out.chunks_mut(WORDS));
        for ((left, right), out) in parts {
            let (left, right) = (self.words(left, by)?, self.words(right, by)?);
            let sums: Vec<u32> = left.iter().zip(&right).map(|(a, b)| a.wrapping_add(*b)).collect();
            self.write_words(out, &sums, by)?;
        }
        Ok(())
    }

    /// The sum of `values`.
    ///
    /// # Errors
    /// What transfers say.
    ///
    /// # Blocking
    /// As [`read`](Self::read).
    pub fn reduce(&self, values: &[u32], by: &Deadline<'_>) -> Result<u64, Error> {
        let mut sum = 0;
        for part in values.chunks(WORDS) {
            sum += self.words(part, by)?.into_iter().map(u64::from).sum::<u64>();
        }
        Ok(sum)
    }

    /// How often each byte is in `bytes`.
    ///
    /// # Errors
    /// What transfers say.
    ///
    /// # Blocking
    /// As [`read`](Self::read).
    pub fn histogram(&self, bytes: &[u8], by: &Deadline<'_>) -> Result<[u64; 256], Error> {
        let mut counts = [0; 256];
        let mut buffer = vec![0; BUFFER.min(bytes.len())];
        for part in bytes.chunks(BUFFER) {
            let buffer = &mut buffer[..part.len()];
            self.read(VirtAddr::of(part.as_ptr()), buffer, by)?;
            buffer.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        }
        Ok(counts)
    }

    /// Follows the pointers of a list from `head` on, for at most `most` nodes.
    ///
    /// # Errors
    /// What transfers say: a pointer to nowhere is a bad address.
    ///
    /// # Blocking
    /// As [`read`](Self::read).
    pub fn walk(&self, head: &Node, most: u64, by: &Deadline<'_>) -> Result<Walked, Error> {
        const VALUE: usize = std::mem::offset_of!(Node, value);
        const NEXT: usize = std::mem::offset_of!(Node, next);
        let mut walked = Walked { nodes: 0, sum: 0, cut_short: false };
        let mut at = VirtAddr::of(head);
        while at.get() != 0 {
            if walked.nodes == most {
                walked.cut_short = true;
                break;
            }
            let mut node = [0; size_of::<Node>()];
            self.read(at, &mut node, by)?;
            walked.nodes += 1;
            walked.sum = walked.sum.wrapping_add(word_at(&node, VALUE));
            at = VirtAddr::new(word_at(&node, NEXT));
        }
        Ok(walked)
    }

    fn words(&self, words: &[u32], by: &Deadline<'_>) -> Result<Vec<u32>, Error> {
        let mut bytes = vec![0; size_of_val(words)];
        self.read(VirtAddr::of(words.as_ptr()), &mut bytes, by)?;
        let (chunks, _) = bytes.as_chunks();
        Ok(chunks.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect())
    }
}

/// The eight bytes at `offset`, as a number.
fn word_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; size_of::<u64>()];
    word.copy_from_slice(&bytes[offset..offset + size_of::<u64>()]);
    u64::from_ne_bytes(word)
}

const _: () = assert!(size_of::<Option<Box<Node>>>() == size_of::<u64>());
