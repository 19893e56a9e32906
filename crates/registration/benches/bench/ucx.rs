//! The registration cache of UCX, where its headers are installed (Debian's libucx-dev), in a process of its own.

use std::path::PathBuf;
use std::process::Command;

use super::Samples;

/// A hit of UCX's cache with so many regions, on so many threads: nanoseconds, one for each round. Nothing, and why, where it
/// cannot be had.
pub(crate) fn hits(regions: u64, threads: usize, rounds: usize) -> Result<Samples, String> {
    let program = build()?;
    let words = [regions.to_string(), threads.to_string(), rounds.to_string()];
    let output = Command::new(&program).args(words).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let samples: Result<Vec<f64>, _> = said.lines().map(str::parse).collect();
    match samples {
        Ok(samples) if output.status.success() && samples.len() == rounds => Ok(Samples(samples)),
        _ => Err(format!("it ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Builds it beside this bench, with the optimisation of a release.
fn build() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = own.with_file_name("ucx_rcache");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bench/ucx_rcache.c");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(compiler)
        .args(["-O2", source, "-lucs", "-lpthread", "-o"])
        .arg(&program)
        .output()
        .map_err(|error| format!("no C compiler: {error}"))?;
    if built.status.success() { Ok(program) } else { Err("libucx-dev is not installed".to_owned()) }
}
