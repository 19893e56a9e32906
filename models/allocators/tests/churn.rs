//! Both programs for a few seconds: no stale byte, and an end.

use std::process::Command;
use std::time::{Duration, Instant};

/// What a hung program is given beyond its time.
const GRACE: Duration = Duration::from_secs(30);

fn churn(program: &str, more: &[&str]) {
    let since = Instant::now();
    let mut child = Command::new(program).arg("3").args(more).spawn().unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > GRACE {
            child.kill().unwrap();
            panic!("{program} hung");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // 2 says SKIPPED and why, on its standard error.
    assert!(matches!(status.code(), Some(0 | 2)), "{program}: {status}");
}

#[test]
fn on_jemalloc() {
    churn(env!("CARGO_BIN_EXE_churn-jemalloc"), &[]);
}

#[test]
fn on_mimalloc() {
    churn(env!("CARGO_BIN_EXE_churn-mimalloc"), &[]);
}

#[test]
fn on_jemalloc_without_a_proof() {
    churn(env!("CARGO_BIN_EXE_churn-jemalloc"), &["without-proof"]);
}
