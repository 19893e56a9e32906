//! The outer side of a case: a process that is started, bounded, heard, and ended.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cases::Case;
use super::report::{Ended, Said};

/// What a case may take beyond its time before it counts as hung: real threads wait at most 10 s for each other.
const GRACE: Duration = Duration::from_secs(30);
/// The end of what a crashed process wrote to standard error that is shown.
const LAST_WORDS: usize = 600;
/// The variable that chooses a planted bug.
const PLANTED: &str = "PAGEMIRROR_PLANTED";

/// How to start the inner side.
#[derive(Debug, Clone)]
pub(crate) struct Order<'a> {
    pub(crate) case: Case,
    /// The bug that is planted in it, if any.
    pub(crate) planted: Option<&'a str>,
}

/// Runs a case to its end. `tick` hears how many executions have begun.
pub(crate) fn run(order: &Order<'_>, tick: impl Fn(u64)) -> Ended {
    let mut child = match start(order) {
        Ok(child) => child,
        Err(error) => return Ended::Badly { what: format!("this program could not start itself: {error}") },
    };
    let (lines, complained) = (listen(child.stdout.take()), hear_all(child.stderr.take()));
    let (ended, hung) = follow(&lines, order.case.engine.time() + GRACE, tick);
    // What has answered has nothing more to say, and is not waited for.
    if hung || ended.is_some() {
        // Killing by handle is killing by number, and the number is ours until it was waited for.
        let _ = child.kill();
    }
    let status = child.wait();
    let complained = complained.join().unwrap_or_default();
    match ended {
        Some(ended) => ended,
        None if hung => Ended::Badly { what: format!("it hung and was killed{}", last(&complained)) },
        None => Ended::Badly { what: format!("it ended without an answer ({}){}", text(&status), last(&complained)) },
    }
}

fn start(order: &Order<'_>) -> std::io::Result<Child> {
    let Case { tracker, scenario, engine } = order.case;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("check-child").args([
        "--tracker",
        tracker.text(),
        "--scenario",
        scenario.name,
        "--engine",
        engine.text(),
    ]);
    match order.planted {
        Some(bug) => command.env(PLANTED, bug),
        None => command.env_remove(PLANTED),
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Hands on each line that comes.
fn listen(from: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (to, lines) = channel();
    std::thread::spawn(move || {
        let Some(from) = from else { return };
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Reads all that comes, so that the child never waits for room in a pipe.
fn hear_all(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        if let Some(mut from) = from {
            // What came before an error is heard.
            let _ = from.read_to_end(&mut heard);
        }
        String::from_utf8_lossy(&heard).into_owned()
    })
}

/// Follows what it says until it has said how it ended, or nothing more comes. Says also whether the time was over first.
fn follow(lines: &Receiver<String>, limit: Duration, tick: impl Fn(u64)) -> (Option<Ended>, bool) {
    let until = Instant::now() + limit;
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(Said::Running(executions)) => tick(executions),
                Ok(Said::Explored { executions, complete }) => {
                    return (Some(Ended::Passed { executions, complete }), false);
                }
                Ok(Said::Found(finding)) => return (Some(Ended::Found(finding)), false),
                // An engine printed something: not for us.
                Err(_) => {}
            },
            Err(RecvTimeoutError::Disconnected) => return (None, false),
            Err(RecvTimeoutError::Timeout) => return (None, true),
        }
    }
}

fn text(status: &std::io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

/// The last words of a process, if there are any.
fn last(complained: &str) -> String {
    let complained = complained.trim();
    if complained.is_empty() {
        return String::new();
    }
    let count = complained.chars().count();
    let words: String = complained.chars().skip(count.saturating_sub(LAST_WORDS)).collect();
    format!("; its last words: {words}")
}
