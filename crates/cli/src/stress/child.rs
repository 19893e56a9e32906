//! One row in a process of its own: started, bounded, heard, and ended.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::rows::catalogue::RowName;

use super::report::{Outcome, RowReport};

/// What a row may take beyond its time before it counts as hung: every wait inside it ends within 5 s.
const GRACE: Duration = Duration::from_secs(20);
/// How often the parent looks.
const LOOK: Duration = Duration::from_millis(20);
/// The end of what a crashed row wrote to standard error that is shown.
const LAST_WORDS: usize = 600;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) row: RowName,
    pub(crate) time: Duration,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    pub(crate) unprivileged: bool,
}

/// How a row ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Reported(Box<RowReport>),
    /// It crashed, hung, or said nothing: what happened.
    Badly(String),
}

/// Runs the row. `tick` is called now and then with the time that has passed.
///
/// # Errors
/// What is missing, when this machine cannot run it.
pub(crate) fn run(order: &Order, tick: impl Fn(Duration)) -> Result<Ended, String> {
    let mut child = start(order).map_err(|error| format!("this program could not start itself: {error}"))?;
    let (said, complained) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let end = wait(&mut child, order.time + GRACE, tick);
    let hear = |listener: JoinHandle<String>| listener.join().unwrap_or_default();
    let (said, complained) = (hear(said), hear(complained));
    let status = match end {
        End::Exited(status) => status,
        End::Hung => {
            return Ok(Ended::Badly(format!("it hung and was killed {GRACE:?} after its time{}", last(&complained))));
        }
        End::Unknown(error) => return Ok(Ended::Badly(format!("nobody knows how it ended: {error}"))),
    };
    match serde_json::from_str(&said) {
        Ok(Outcome::Ran(report)) => Ok(Ended::Reported(report)),
        Ok(Outcome::Unsupported(what)) => Err(what),
        Err(_) => Ok(Ended::Badly(format!("it ended without a report ({status}){}", last(&complained)))),
    }
}

fn start(order: &Order) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("stress-row")
        .args(["--row", order.row.text()])
        .args(["--milliseconds", &order.time.as_millis().to_string()])
        .args(["--threads", &order.threads.to_string()])
        .args(["--seed", &order.seed.to_string()])
        .args(["--parent", &std::process::id().to_string()])
        .args(order.unprivileged.then_some("--unprivileged"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Reads all that comes, so that the child never waits for room in a pipe.
fn listen(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        if let Some(mut from) = from {
            // What came before an error is heard.
            let _ = from.read_to_end(&mut heard);
        }
        String::from_utf8_lossy(&heard).into_owned()
    })
}

enum End {
    Exited(ExitStatus),
    Hung,
    Unknown(std::io::Error),
}

fn wait(child: &mut Child, limit: Duration, tick: impl Fn(Duration)) -> End {
    let since = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return End::Exited(status),
            Ok(None) => {}
            Err(error) => return End::Unknown(error),
        }
        if since.elapsed() > limit {
            // Killing by handle is killing by number, and the number is ours until it was waited for.
            let killed = child.kill().and_then(|()| child.wait());
            return killed.map_or_else(End::Unknown, |_| End::Hung);
        }
        tick(since.elapsed());
        std::thread::sleep(LOOK);
    }
}

/// The last words of a row, if there are any.
fn last(complained: &str) -> String {
    let complained = complained.trim();
    if complained.is_empty() {
        return String::new();
    }
    let count = complained.chars().count();
    let words: String = complained.chars().skip(count.saturating_sub(LAST_WORDS)).collect();
    format!("; its last words: {words}")
}
