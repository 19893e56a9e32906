//! Where the run took place.

use serde::Serialize;

/// Facts that a figure means nothing without.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) architecture: &'static str,
    /// Processors that this process may use.
    pub(crate) cpus: usize,
    pub(crate) page_bytes: usize,
    pub(crate) memory_mib: u64,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let memory = rustix::system::sysinfo();
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            architecture: std::env::consts::ARCH,
            cpus: cpus(),
            page_bytes: rustix::param::page_size(),
            memory_mib: (memory.totalram as u64).saturating_mul(u64::from(memory.mem_unit)) >> 20,
        }
    }
}

/// Processors that this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
