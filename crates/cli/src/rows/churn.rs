//! An allocator under churn: blocks of the program's own allocator, made by one device thread and freed by another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::device::{Device, Object, Piece};
use super::generations::Generations;
use super::memory;
use super::oracle;
use super::rng::Rng;
use super::tally::Kind;

/// Blocks of at least this many bytes are mappings of their own; smaller ones come from the allocator's heaps, which are
/// trimmed now and then.
const MAPPED_FROM: usize = 96 << 10;
/// The smallest block, and the largest.
const SMALLEST: usize = 64 << 10;
const LARGEST: usize = 512 << 10;
/// The largest block of the usual size, and how often one is larger.
const USUAL: usize = 144 << 10;
const LARGE_ONCE_IN: usize = 8;
/// Blocks that live at once: little enough for an ordinary user's limit on locked memory.
const LIVE: usize = 8;
/// The most that is sent of a block, but for once in a while.
const PIECE: usize = 16 << 10;
const WHOLE_ONCE_IN: usize = 16;

/// How often a new block is filled by the device.
const RECEIVE_ONCE_IN: usize = 8;

/// A block and its contents, which change only when the device fills it.
#[derive(Debug)]
struct Block {
    id: u64,
    bytes: Vec<u8>,
    generations: Generations,
}

impl Object for Block {
    fn name(&self) -> &'static str {
        "block"
    }
    fn id(&self) -> u64 {
        self.id
    }
    fn address(&self) -> usize {
        self.bytes.as_ptr().addr()
    }
    fn generations(&self) -> &Generations {
        &self.generations
    }
}

/// The blocks that live.
#[derive(Debug)]
pub(crate) struct Churn {
    live: Mutex<Vec<Block>>,
    next: AtomicU64,
}

impl Churn {
    /// Tunes the allocator, so that its churn reaches the kernel. Call it before there are other threads.
    pub(crate) fn new() -> Self {
        memory::allocate_by_mapping(MAPPED_FROM);
        // Names that no region has.
        Self { live: Mutex::new(Vec::with_capacity(LIVE)), next: AtomicU64::new(1 << 32) }
    }

    /// Makes a block and sends it, or sends one that somebody made and frees it.
    pub(crate) fn step(&self, device: &mut Device<'_>, rng: &mut Rng) {
        match self.take(rng) {
            Some(block) => {
                send(&block, device, rng);
                let counts = block.bytes.capacity() >= MAPPED_FROM;
                drop(block);
                if counts {
                    device.rig.tally.invalidated(Kind::Allocator);
                }
            }
            None => {
                let mut block = self.make(rng);
                if rng.once_in(RECEIVE_ONCE_IN) {
                    receive(&mut block, device);
                }
                send(&block, device, rng);
                self.live.lock().unwrap_or_else(PoisonError::into_inner).push(block);
            }
        }
    }

    /// A block to be freed: always when enough of them live, otherwise half of the time.
    fn take(&self, rng: &mut Rng) -> Option<Block> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.is_empty() || live.len() < LIVE && rng.once_in(2) {
            return None;
        }
        let chosen = rng.below(live.len());
        Some(live.swap_remove(chosen))
    }

    fn make(&self, rng: &mut Rng) -> Block {
        let most = if rng.once_in(LARGE_ONCE_IN) { LARGEST } else { USUAL };
        let len = SMALLEST + rng.below(most - SMALLEST);
        // ORDERING: Relaxed; only the numbers have to differ.
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = vec![0; len];
        oracle::write(id, 0, &mut bytes);
        Block { id, bytes, generations: Generations::default() }
    }
}

/// Sends a piece of the block through a lease on all of it.
fn send(block: &Block, device: &mut Device<'_>, rng: &mut Rng) {
    let most = if rng.once_in(WHOLE_ONCE_IN) { LARGEST } else { PIECE };
    let len = most.min(block.bytes.len()).min(device.lane.largest());
    let offset = rng.below(block.bytes.len() - len + 1);
    device.send(Piece { object: block, offset, len }, None);
}

/// Has the device fill the block, and checks that the program sees what it wrote: a device that still had the pages of a
/// block that was here before would have written there.
fn receive(block: &mut Block, device: &mut Device<'_>) {
    let len = block.bytes.len();
    if len > device.lane.largest() || !device.receive(Piece { object: block, offset: 0, len }) {
        return;
    }
    block.generations.begin();
    block.generations.finish();
    let window = block.generations.window(block.generations.done());
    // Borrowed anew: the kernel has changed it behind the compiler's back.
    let bytes: &mut Vec<u8> = std::hint::black_box(&mut block.bytes);
    let stale = oracle::check(block.id, 0, bytes, window);
    device.rig.tally.checked("received block", block.id, len, window, stale);
}
