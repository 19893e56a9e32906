//! `kind-stack`: buffers on the stacks of threads that come and go. The C library keeps the stacks of ended threads, discards
//! their pages, gives them out again, and unmaps those that are too many.

use crate::stress::report::Outcome;

use super::Settings;
use super::catalogue::RowName;
use super::device::{Device, Object, Piece};
use super::generations::Generations;
use super::oracle;
use super::rig::{Rig, Setup, Unsupported};
use super::rng::Rng;
use super::tally::Kind;

/// The buffer, in bytes.
const BUFFER: usize = 16 << 10;
/// A stack that the C library keeps, and one that is more than it keeps altogether (glibc: 40 MiB), so that it is unmapped.
const KEPT: usize = 256 << 10;
const UNMAPPED: usize = 48 << 20;
/// How often a thread has the larger one.
const LARGE_ONCE_IN: usize = 3;
/// Buffers that a thread has one after the other in the same place.
const BUFFERS: u64 = 3;

/// A buffer, by its address: its bytes are on the stack of the thread that made it.
struct OnStack {
    id: u64,
    address: usize,
    generations: Generations,
}

impl Object for OnStack {
    fn name(&self) -> &'static str {
        "buffer on a stack"
    }
    fn id(&self) -> u64 {
        self.id
    }
    fn address(&self) -> usize {
        self.address
    }
    fn generations(&self) -> &Generations {
        &self.generations
    }
}

/// Runs the row.
pub(crate) fn run(settings: &Settings) -> Result<Outcome, Unsupported> {
    let rig = Rig::new(Setup { lanes: settings.threads, slots: 256, ..Setup::default() }, settings)?;
    std::thread::scope(|scope| {
        for number in 0..settings.threads {
            let (rig, rng) = (&rig, Rng::new(settings.seed, number as u64));
            scope.spawn(move || come_and_go(rig, number, rng));
        }
    });
    Ok(rig.report(RowName::KindStack, None))
}

/// Starts one short-lived thread after the other.
fn come_and_go(rig: &Rig, number: usize, mut rng: Rng) {
    let Some(mut device) = Device::new(rig, number) else { return };
    let mut id = (number as u64 + 1) << 40;
    while rig.runs() {
        let size = if rng.once_in(LARGE_ONCE_IN) { UNMAPPED } else { KEPT };
        let device = &mut device;
        let ended = std::thread::scope(|scope| {
            let body = move || (0..BUFFERS).for_each(|next| use_this_stack(device, id + next));
            std::thread::Builder::new().stack_size(size).spawn_scoped(scope, body).map(|thread| thread.join().is_ok())
        });
        match ended {
            Ok(true) => rig.tally.invalidated(Kind::Allocator),
            Ok(false) => rig.tally.halt("a thread panicked"),
            Err(error) => rig.tally.halt(format!("a thread could not be started: {error}")),
        }
        id += BUFFERS;
    }
}

#[inline(never)]
fn use_this_stack(device: &mut Device<'_>, id: u64) {
    let mut buffer = [0_u8; BUFFER];
    oracle::write(id, 0, &mut buffer);
    let bytes = std::hint::black_box(&buffer);
    let object = OnStack { id, address: bytes.as_ptr().addr(), generations: Generations::default() };
    let piece = Piece { object: &object, offset: 0, len: BUFFER.min(device.lane.largest()) };
    let lease = device.send(piece, None);
    device.send(piece, lease);
}
