//! Copies a file past the page cache, from a buffer of the ordinary allocator that is registered behind the scenes.
//!
//! `cargo run --release -p pagemirror-io-uring --example copy_file -- SRC DST`

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pagemirror_core::wait::Deadline;
use pagemirror_io_uring::{CoherentRing, RingOptions};

/// What one request moves. Large enough that the cost of a request does not count.
const CHUNK: usize = 1 << 20;

/// Direct transfers begin, end and are held in memory at multiples of this. Every disk's block divides it.
const BLOCK: usize = 4096;

/// How long a transfer may wait for changes of memory to be over. None of them takes long.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [source, destination] = arguments.as_slice() else {
        eprintln!("usage: copy_file SRC DST");
        return ExitCode::from(2);
    };
    match copy(source.as_ref(), destination.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("copy_file: {error}");
            ExitCode::FAILURE
        }
    }
}

fn copy(source: &Path, destination: &Path) -> Result<(), Box<dyn Error>> {
    let input = open_direct(source, OpenOptions::new().read(true))?;
    let Opened { file: output, .. } =
        open_direct(destination, OpenOptions::new().write(true).create(true).truncate(true))?;
    let mut ring = CoherentRing::open(RingOptions::default())?;
    let mut memory = vec![0; CHUNK + BLOCK];
    let chunk = aligned(&mut memory);

    let started = Instant::now();
    let mut copied = 0;
    loop {
        let filled = fill(&mut ring, &input, chunk, copied)?;
        if filled == 0 {
            break;
        }
        // The last block is written whole, and what is too much cut off below.
        let whole = filled.next_multiple_of(BLOCK);
        chunk[filled..whole].fill(0);
        drain(&mut ring, &output, &chunk[..whole], copied)?;
        copied += filled as u64;
        if filled < chunk.len() {
            break;
        }
    }
    output.set_len(copied)?;
    report(&ring, copied, started.elapsed());
    Ok(())
}

/// A file, and whether transfers go past the page cache.
struct Opened {
    file: File,
    direct: bool,
}

/// Opens past the page cache, or through it where the file system does not know how.
fn open_direct(path: &Path, options: &mut OpenOptions) -> io::Result<Opened> {
    let name = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match options.custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            eprintln!("{}: no direct transfers on this file system; through the page cache instead", path.display());
            options.custom_flags(0).open(path).map(|file| Opened { file, direct: false }).map_err(name)
        }
        opened => opened.map(|file| Opened { file, direct: true }).map_err(name),
    }
}

/// The whole blocks in memory that the allocator gave.
fn aligned(memory: &mut [u8]) -> &mut [u8] {
    let skip = memory.as_ptr().align_offset(BLOCK);
    &mut memory[skip..skip + CHUNK]
}

/// Fills `chunk` from `offset` on, and says with how much: less than there is room for only at the end of the file.
fn fill(ring: &mut CoherentRing, input: &Opened, chunk: &mut [u8], offset: u64) -> Result<usize, Box<dyn Error>> {
    let mut filled = 0;
    while filled < chunk.len() {
        let at = offset + filled as u64;
        let count = ring.read_at(input.file.as_fd(), &mut chunk[filled..], at, &Deadline::after(PATIENCE))?;
        filled += count;
        // A direct read that ends inside a block has met the end, and could not go on from there. Others can be short
        // anywhere.
        if count == 0 || (input.direct && filled % BLOCK != 0) {
            break;
        }
    }
    Ok(filled)
}

/// Writes all of `bytes`.
fn drain(ring: &mut CoherentRing, output: &File, bytes: &[u8], offset: u64) -> Result<(), Box<dyn Error>> {
    let mut drained = 0;
    while drained < bytes.len() {
        let at = offset + drained as u64;
        match ring.write_at(output.as_fd(), &bytes[drained..], at, &Deadline::after(PATIENCE))? {
            0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            count => drained += count,
        }
    }
    Ok(())
}

fn report(ring: &CoherentRing, copied: u64, took: Duration) {
    let stats = ring.stats();
    let rate = copied as f64 / took.as_secs_f64() / 1e6;
    println!("{copied} bytes in {:.3} s, {rate:.0} MB/s", took.as_secs_f64());
    println!(
        "{} registrations, {} hits, {} transfers by address",
        stats.cache.misses, stats.cache.hits, stats.by_address
    );
    if let Some(why) = ring.last_refusal() {
        println!("by address because {why}");
    }
}
