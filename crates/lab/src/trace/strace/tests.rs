//! Logs with every peculiarity, written by hand. Each is compared with the lines of the events that it comes to.

use super::Origin;
use crate::trace::{Trace, TraceError};

mod calls;
mod tasks;

fn import(log: &str) -> Result<Trace, TraceError> {
    Trace::import(log.as_bytes(), &Origin::default())
}

/// The lines of the events, without those in front and behind.
fn events(log: &str) -> Vec<String> {
    let trace = import(log).unwrap_or_else(|error| panic!("{error}\nin\n{log}"));
    let mut bytes = Vec::new();
    trace.write(&mut bytes).unwrap();
    assert_eq!(Trace::read(&bytes[..]).unwrap(), trace);
    let text = String::from_utf8(bytes).unwrap();
    let events = text.lines().skip_while(|line| *line != "events").skip(1);
    events.take_while(|line| !line.starts_with("end")).map(str::to_owned).collect()
}

/// How many were dropped of this kind.
fn dropped(log: &str, kind: &str) -> u64 {
    import(log).unwrap().header().dropped.get(kind).copied().unwrap_or(0)
}

/// The line and the message of the refusal.
fn refused(log: &str) -> (u64, String) {
    let error = import(log).expect_err(log);
    (error.line(), error.to_string())
}
