//! Whether this machine gives the huge pages that a row is about: a row that ran on small ones would show nothing.

use std::fs;

use super::catalogue::RowName;
use super::device::Object;
use super::patch::Patch;

const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
const MEDIUM: &str = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled";
const MEDIUM_COUNT: &str = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/stats/anon_fault_alloc";
/// Pages of hugetlbfs for each patch: what it shows, what its file has, and what devices still hold of mappings that are gone.
const FOR_EACH: u64 = 10;

/// What there was before the patches were made.
pub(crate) struct Given {
    row: RowName,
    medium: u64,
}

impl Given {
    /// Says what is missing for `count` patches.
    pub(crate) fn expect(row: RowName, count: usize) -> Result<Self, String> {
        match row {
            RowName::KindHugetlb | RowName::KindHugetlbShared => {
                let (free, wanted) = (number(FREE), FOR_EACH * count as u64);
                if free < wanted {
                    return Err(format!(
                        "{wanted} huge pages are needed and {free} are free: sysctl vm.nr_hugepages={wanted}"
                    ));
                }
            }
            RowName::KindMthp if fs::read_to_string(MEDIUM).map_or(true, |text| text.contains("[never]")) => {
                return Err(format!("huge pages of 64 KiB are off: write madvise to {MEDIUM}"));
            }
            _ => {}
        }
        Ok(Self { row, medium: number(MEDIUM_COUNT) })
    }

    /// Says what is missing now that they are made and filled.
    pub(crate) fn check(&self, patches: &[Patch]) -> Result<(), String> {
        let given = match self.row {
            RowName::KindThp => patches.iter().any(|patch| in_huge_pages(patch.address())),
            RowName::KindMthp => number(MEDIUM_COUNT) > self.medium,
            _ => true,
        };
        if given { Ok(()) } else { Err("the kernel gave no huge page: they are off, or none is free".into()) }
    }
}

fn number(path: &str) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Whether the mapping at `address` has a transparent huge page.
fn in_huge_pages(address: usize) -> bool {
    let text = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut here = false;
    for line in text.lines() {
        let ends = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = ends.and_then(|(start, end)| Some((number(start)?, number(end)?))) {
            here = (start..end).contains(&address);
        } else if here && let Some(size) = line.strip_prefix("AnonHugePages:") {
            return size.trim() != "0 kB";
        }
    }
    false
}
