//! Where a measurement took place.

use std::fs;

use serde::Serialize;

/// Facts that a figure means nothing without.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The program's version.
    pub version: String,
    /// Whether it was built with optimisations.
    pub optimised: bool,
    /// The processor's name.
    pub processor: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Name and release of the system.
    pub kernel: String,
    /// The processor's architecture.
    pub architecture: &'static str,
    /// How many threads wanted to run, on average over the minute before: with more than processors, timings of two
    /// threads say more about the others than about the trackers.
    pub load: String,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    /// Looks. What cannot be read is unknown.
    #[must_use]
    pub fn look() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let word = |text: &str| text.split_whitespace().next().unwrap_or(UNKNOWN).to_owned();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            optimised: !cfg!(debug_assertions),
            processor: processor(&read("/proc/cpuinfo")).unwrap_or_else(|| UNKNOWN.to_owned()),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: format!("{} {}", word(&read("/proc/sys/kernel/ostype")), word(&read("/proc/sys/kernel/osrelease"))),
            architecture: std::env::consts::ARCH,
            load: word(&read("/proc/loadavg")),
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let build = if self.optimised { "" } else { ", BUILT WITHOUT OPTIMISATIONS: timings mean nothing" };
        format!(
            "pagemirror {}{build}; {}, {} processors ({}), {}; load {}",
            self.version, self.processor, self.processors, self.architecture, self.kernel, self.load
        )
    }
}

fn processor(cpuinfo: &str) -> Option<String> {
    let named = |line: &&str| line.starts_with("model name") || line.starts_with("Model");
    let (_, name) = cpuinfo.lines().find(named)?.split_once(':')?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_where_the_kernel_names_it() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(processor("processor\t: 0\n"), None);
        assert!(Machine::look().line().starts_with("pagemirror 0."));
    }
}
