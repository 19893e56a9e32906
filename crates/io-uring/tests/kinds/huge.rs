//! Pages larger than the system's: transparent ones of two sizes, and those of hugetlbfs.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::MemfdFlags;

use super::area::{Area, Change, Kind, REMAPS};
use super::support::{PAGE, skipped};
use super::{all, sized, survive};

const MIB: usize = 1 << 20;
/// The size of a huge page of x86-64 and of arm64 with 4 KiB pages.
const HUGE: usize = 2 * MIB;
/// Huge pages that a test needs at a time: an area of one, its alias or its place aside, and a file of five.
const NEEDED: u64 = 8;

/// A setting of the machine, put back at the end. Tests that change one take turns.
struct Setting {
    path: &'static str,
    before: String,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Setting {
    fn change(path: &'static str, value: impl FnOnce(&str) -> String) -> std::io::Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let text = fs::read_to_string(path)?;
        // Of several words the one in brackets is in force.
        let before = text.split(['[', ']']).nth(1).unwrap_or(text.trim()).to_owned();
        let wanted = value(&before);
        if wanted != before {
            File::options().write(true).open(path)?.write_all(wanted.as_bytes())?;
        }
        Ok(Self { path, before, _alone: alone })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(self.path, &self.before);
    }
}

/// How many bytes of `address`'s mapping are in huge pages, as the kernel says.
fn in_huge_pages(address: usize) -> usize {
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut here = false;
    for line in text.lines() {
        if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
            let number = |text| usize::from_str_radix(text, 16);
            if let (Ok(start), Ok(end)) = (number(start), number(end)) {
                here = (start..end).contains(&address);
            }
        } else if here && let Some(size) = line.strip_prefix("AnonHugePages:") {
            return size.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024;
        }
    }
    0
}

#[test]
fn transparent_huge_pages() {
    let test = "huge::transparent_huge_pages";
    let mut area = Area::new(Kind::Anonymous, 1, HUGE).unwrap();
    area.advise(libc::MADV_HUGEPAGE).unwrap();
    area.fill(1);
    if in_huge_pages(area.address()) == 0 {
        return skipped(
            test,
            "the kernel gave no huge page: /sys/kernel/mm/transparent_hugepage/enabled, or no free one",
        );
    }
    survive(test, area, &[&REMAPS[..4], &[Change::Discard, Change::DiscardLocked]].concat());
}

/// A change of one small page inside a huge one splits it; the registration of all of it goes.
#[test]
fn a_small_page_of_a_huge_one() {
    let test = "huge::a_small_page_of_a_huge_one";
    let mut area = Area::new(Kind::Anonymous, HUGE / PAGE, PAGE).unwrap();
    area.advise(libc::MADV_HUGEPAGE).unwrap();
    area.fill(1);
    survive(test, area, &[Change::UnmapTail]);
}

#[test]
fn huge_pages_of_several_sizes() {
    const PATH: &str = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled";
    const COUNT: &str = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/stats/anon_fault_alloc";
    let test = "huge::huge_pages_of_several_sizes";
    let allowed = Setting::change(PATH, |now| if now == "always" { now.into() } else { "madvise".into() });
    let _setting = match allowed {
        Ok(setting) => setting,
        Err(error) => return skipped(test, format_args!("64 KiB pages cannot be had: {PATH}: {error}")),
    };
    let count = || fs::read_to_string(COUNT).map_or(0, |text| text.trim().parse::<u64>().unwrap());
    let before = count();
    let mut area = Area::new(Kind::Anonymous, 4, 64 << 10).unwrap();
    area.advise(libc::MADV_HUGEPAGE).unwrap();
    area.fill(1);
    if count() == before {
        return skipped(test, "the kernel gave no page of 64 KiB");
    }
    survive(test, area, &all(&[Change::Discard]));
}

/// Huge pages of hugetlbfs: reserved for the test where that is permitted.
fn reserve(test: &str) -> Option<Setting> {
    const PATH: &str = "/proc/sys/vm/nr_hugepages";
    let more = |now: &str| (now.parse::<u64>().unwrap_or(0) + NEEDED).to_string();
    match Setting::change(PATH, more) {
        Ok(setting) => Some(setting),
        Err(error) => {
            skipped(test, format_args!("no huge pages can be reserved: {PATH}: {error}"));
            None
        }
    }
}

#[test]
fn private_pages_of_hugetlbfs() {
    let test = "huge::private_pages_of_hugetlbfs";
    let Some(_reserved) = reserve(test) else { return };
    match Area::new(Kind::HugeAnonymous, 1, HUGE) {
        Ok(area) => survive(test, area, &[&REMAPS[..4], &[Change::Discard]].concat()),
        Err(error) => skipped(test, format_args!("no huge pages to be had: {error}")),
    }
}

#[test]
fn shared_pages_of_hugetlbfs() {
    let test = "huge::shared_pages_of_hugetlbfs";
    let Some(_reserved) = reserve(test) else { return };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = rustix::fs::memfd_create("pagemirror-huge", flags).map(File::from);
    let area = file.map_err(std::io::Error::from).and_then(|file| {
        let file = sized(file, HUGE);
        Area::new(Kind::File { file, shared: true }, 1, HUGE)
    });
    let changes = [Change::Unmap, Change::MapOver, Change::MoveAway, Change::MoveOnto, Change::Discard, Change::Remove];
    match area {
        Ok(area) => survive(test, area, &[&changes[..], &[Change::RemoveByAlias]].concat()),
        Err(error) => skipped(test, format_args!("no huge pages to be had: {error}")),
    }
}

/// A lease on a part of a huge page: the whole page is watched, and the part is registered.
#[test]
fn a_part_of_a_page_of_hugetlbfs() {
    let test = "huge::a_part_of_a_page_of_hugetlbfs";
    let Some(_reserved) = reserve(test) else { return };
    let Some(mut ring) = super::ring(test) else { return };
    let mut area = match Area::new(Kind::HugeAnonymous, 1, HUGE) {
        Ok(area) => area,
        Err(error) => return skipped(test, format_args!("no huge pages to be had: {error}")),
    };
    let file = super::memfd();
    for round in 0..8 {
        area.fill(round);
        assert!(super::written_as_seen(&mut ring, &file, &area.bytes()[3 * PAGE..5 * PAGE]));
        assert_eq!(ring.stats().fixed, u64::from(round) + 1, "{:?}", ring.last_refusal());
        area.change(Change::MapOver).unwrap();
    }
}
