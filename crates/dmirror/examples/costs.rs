//! What mirroring costs on this machine, by page: `cargo run --release -p pagemirror-dmirror --example costs`.
//!
//! Medians of rounds in one process. The memory is written before, so faults find present pages.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagemirror_core::addr::{PageRange, VirtAddr};
use pagemirror_core::mirror::{Mirror, Need, Request};
use pagemirror_core::notify::Event;
use pagemirror_core::wait::Deadline;
use pagemirror_linux::pagemap::Pagemap;
use pagemirror_linux::{Config, ProcessSpace, Userfault, abi};

const PAGES: u64 = 16 * 1024;
const ROUNDS: usize = 31;

fn main() -> Result<(), Box<dyn Error>> {
    let mirror = Mirror::new(Arc::new(ProcessSpace::new(Userfault::open(Config::default())?)?));
    let memory = vec![1_u8; (PAGES as usize + 1) * 4096];
    let first = VirtAddr::of(memory.as_ptr()).get().next_multiple_of(4096);
    let range = PageRange::covering(VirtAddr::new(first), PAGES * 4096, 4096)?;
    let empty = PageRange::covering(VirtAddr::new(1 << 46), PAGES * 4096, 4096)?;
    let (by, pagemap) = (Deadline::after(Duration::from_secs(60)), Pagemap::open()?);
    let space = Arc::clone(mirror.table().space());
    let revoke = |range| {
        drop(space.invalidate_start(range, Event::Requested));
        Ok(())
    };
    let mut rows: [(&str, Vec<Duration>); 7] = [
        ("fault for reading, present pages", Vec::new()),
        ("walk", Vec::new()),
        ("revoke", Vec::new()),
        ("fault for writing, present pages", Vec::new()),
        ("revoke where nothing is mapped", Vec::new()),
        ("snapshot", Vec::new()),
        ("bare PAGEMAP_SCAN of present pages", Vec::new()),
    ];
    for _ in 0..ROUNDS {
        let mut time = |row: usize, work: &mut dyn FnMut() -> Result<(), Box<dyn Error>>| {
            let begun = Instant::now();
            work()?;
            rows[row].1.push(begun.elapsed());
            Ok::<(), Box<dyn Error>>(())
        };
        time(0, &mut || Ok(mirror.range_fault(range, Request::all(Need::READ), &by).map(drop)?))?;
        time(1, &mut || {
            let pages = (first..range.end().get()).step_by(4096);
            let mapped = pages.filter(|page| mirror.table().walk(VirtAddr::new(*page)).is_valid()).count();
            (mapped as u64 == PAGES).then_some(()).ok_or_else(|| "not all pages were mirrored".into())
        })?;
        time(2, &mut || revoke(range))?;
        time(3, &mut || Ok(mirror.range_fault(range, Request::all(Need::WRITE), &by).map(drop)?))?;
        time(4, &mut || revoke(empty))?;
        time(5, &mut || Ok(mirror.snapshot(range, &by).map(drop)?))?;
        time(6, &mut || {
            let mut runs = 0;
            Ok(pagemap.scan(range, abi::PAGE_IS_PRESENT, abi::PAGE_IS_PRESENT, &mut |_| runs += 1)?)
        })?;
    }
    println!("{PAGES} pages of 4 KiB, median of {ROUNDS} rounds (smallest to largest), ns a page");
    for (what, mut times) in rows {
        times.sort();
        let each = |time: Duration| time.as_nanos() as f64 / PAGES as f64;
        let [least, median, most] = [times[0], times[ROUNDS / 2], times[ROUNDS - 1]].map(each);
        println!("{what:36} {median:8.2} ({least:.2} to {most:.2})");
    }
    Ok(())
}
