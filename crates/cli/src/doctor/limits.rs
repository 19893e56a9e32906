//! The limits of the process and of the machine.

use rustix::process::{Resource, getrlimit};

use super::kernel::read;
use super::survey::Check;

/// Pinned memory below which a registration cache is of little use.
const LITTLE_MEMORY: u64 = 1 << 20;
/// Free descriptors below which a program is close to having none.
const FEW_DESCRIPTORS: u64 = 64;
/// The capability that frees a process from the limit on locked memory: its bit in `CapEff`.
const CAP_IPC_LOCK: u64 = 1 << 14;

pub(super) fn ask(checks: &mut Vec<Check>) {
    checks.push(locked_memory());
    checks.push(descriptors());
    checks.push(mappings());
    checks.push(huge_pages());
}

fn amount(limit: Option<u64>) -> String {
    limit.map_or("unlimited".into(), |bytes| format!("{} KiB", bytes >> 10))
}

fn locked_memory() -> Check {
    let (name, question) = ("memlock", "locked memory (RLIMIT_MEMLOCK)");
    let limit = getrlimit(Resource::Memlock).current;
    let status = read("/proc/self/status");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let capabilities = field("CapEff:").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    if capabilities & CAP_IPC_LOCK != 0 {
        let answer = format!("{}, which does not count with CAP_IPC_LOCK", amount(limit));
        return Check::fine(name, question, answer);
    }
    match limit {
        Some(bytes) if bytes < LITTLE_MEMORY => {
            Check::lacks(name, question, amount(limit), "what io_uring pins is counted: raise ulimit -l")
        }
        _ => Check::fine(name, question, amount(limit)),
    }
}

fn descriptors() -> Check {
    let (name, question) = ("nofile", "descriptors (RLIMIT_NOFILE)");
    let limit = getrlimit(Resource::Nofile).current;
    // The listing itself has one open.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count().saturating_sub(1) as u64);
    let answer = format!("{open} open of {}", limit.map_or("unlimited".into(), |limit| limit.to_string()));
    match limit {
        Some(limit) if limit.saturating_sub(open) < FEW_DESCRIPTORS => {
            Check::lacks(name, question, answer, "raise ulimit -n")
        }
        _ => Check::fine(name, question, answer),
    }
}

fn mappings() -> Check {
    let (name, question) = ("max-map-count", "mappings (vm.max_map_count)");
    let used = read("/proc/self/maps").lines().count();
    let limit = read("/proc/sys/vm/max_map_count");
    let answer = format!("{used} of {limit}");
    match limit.parse::<usize>() {
        // Each range that is watched alone splits a mapping in three.
        Ok(limit) if limit < 3 * used => Check::lacks(
            name,
            question,
            answer,
            "each watched range in the middle of a mapping takes two more: raise vm.max_map_count or use larger ranges",
        ),
        Ok(_) => Check::fine(name, question, answer),
        Err(_) => Check::fact(name, question, answer),
    }
}

fn huge_pages() -> Check {
    let text = read("/proc/meminfo");
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map_or("unknown", str::trim);
    let answer = format!("{} free of {}", field("HugePages_Free:"), field("HugePages_Total:"));
    Check::fact("hugetlb", "huge pages that are set aside", answer)
}
