//! What surrounds a call on its line.

use super::clock;

/// One line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogLine<'t> {
    /// The task; nothing where the log does not say it.
    pub(super) pid: Option<u32>,
    pub(super) at_us: u64,
    pub(super) body: Body<'t>,
}

/// What the line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'t> {
    /// A whole call.
    Call(&'t str),
    /// The beginning of a call.
    Unfinished(&'t str),
    /// The rest of the call of this name.
    Resumed(&'t str, &'t str),
    /// The task has ended.
    Exited,
    /// The task was replaced by this one, which execs.
    Superseded(u32),
    /// A signal came, or stopped the task.
    Signal,
}

impl<'t> LogLine<'t> {
    /// Takes a line apart. Nothing, when it is a message of strace's own.
    pub(super) fn parse(line: &'t str) -> Result<Option<Self>, String> {
        let is_message = |text: &str| text.starts_with("strace: ") || text.starts_with("[ Process PID=");
        if line.trim().is_empty() || is_message(line) {
            return Ok(None);
        }
        let (pid, rest) = number_in_front(line)?;
        let rest = rest.trim_start();
        let (time, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let at_us = clock::microseconds(time).ok_or_else(|| {
            "there is no time in front of the call: make the log with `strace -f -ttt -o FILE ...`; \
             output of the program itself must not be in it"
                .to_owned()
        })?;
        let body = body.trim();
        Ok(if is_message(body) { None } else { Some(Self { pid, at_us, body: Body::parse(body)? }) })
    }
}

impl<'t> Body<'t> {
    fn parse(text: &'t str) -> Result<Self, String> {
        if let Some(said) = text.strip_prefix("+++ ").and_then(|text| text.strip_suffix(" +++")) {
            if let Some(by) = said.strip_prefix("superseded by execve in pid ") {
                return by
                    .parse()
                    .map(Self::Superseded)
                    .map_err(|_| format!("{} is no process number", super::call::quoted(by)));
            }
            if said.starts_with("exited with ") || said.starts_with("killed by ") {
                return Ok(Self::Exited);
            }
        }
        if text.starts_with("--- ") && text.ends_with(" ---") {
            return Ok(Self::Signal);
        }
        if let Some((name, rest)) = text.strip_prefix("<... ").and_then(|text| text.split_once(" resumed>")) {
            return Ok(Self::Resumed(name, rest));
        }
        if super::call::name(text).is_empty() || !text.contains('(') {
            return Err("this is no line that strace writes: make the log with `strace -f -ttt -o FILE ...`".to_owned());
        }
        // A detached task is not seen again, and neither is the end of its call.
        let begun = text.strip_suffix("<unfinished ...>").or_else(|| text.strip_suffix("<detached ...>"));
        Ok(begun.map_or(Self::Call(text), |begun| Self::Unfinished(begun.trim_end())))
    }
}

/// The process number in front of a line: `[pid 12] `, or `12 ` in front of the time. What follows it.
fn number_in_front(line: &str) -> Result<(Option<u32>, &str), String> {
    let pid = |text: &str| text.trim().parse::<u32>().ok().filter(|pid| *pid != super::UNNAMED);
    if let Some((inside, rest)) = line.strip_prefix("[pid ").and_then(|text| text.split_once(']')) {
        let pid = pid(inside).ok_or_else(|| "there is no process number behind `[pid`".to_owned())?;
        return Ok((Some(pid), rest));
    }
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) {
        let pid = pid(first).ok_or_else(|| "the process number in front is none".to_owned())?;
        return Ok((Some(pid), rest));
    }
    Ok((None, line))
}

/// Whether strace wrote its message about a new task into the middle of this line: what was there before it, and the task.
pub(super) fn interrupted_by_attach(line: &str) -> Option<(&str, u32)> {
    let (before, message) = line.rsplit_once("strace: Process ")?;
    let child = message.strip_suffix(" attached")?.parse().ok()?;
    Some((before, child))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> LogLine<'_> {
        LogLine::parse(line).unwrap().unwrap()
    }

    #[test]
    fn the_number_may_stand_in_front_in_either_way_or_not_at_all() {
        let body = Body::Call("brk(NULL) = 0x1000");
        for (line, pid) in [
            ("1.5 brk(NULL) = 0x1000", None),
            ("77 1.5 brk(NULL) = 0x1000", Some(77)),
            ("77    1.500 brk(NULL) = 0x1000", Some(77)),
            ("[pid 77] 1.5 brk(NULL) = 0x1000", Some(77)),
            ("[pid    77] 1.5 brk(NULL) = 0x1000", Some(77)),
        ] {
            assert_eq!(parsed(line), LogLine { pid, at_us: 1_500_000, body }, "{line}");
        }
    }

    #[test]
    fn what_is_no_call_is_told_apart() {
        let body =
            |text: &str| LogLine::parse(&format!("7 1.5 {text}")).map(|line| format!("{:?}", line.unwrap().body));
        for (text, expected) in [
            ("+++ exited with 1 +++", "Exited"),
            ("+++ killed by SIGSEGV (core dumped) +++", "Exited"),
            ("+++ superseded by execve in pid 12 +++", "Superseded(12)"),
            ("--- SIGCHLD {si_signo=SIGCHLD, si_pid=3} ---", "Signal"),
            ("--- stopped by SIGSTOP ---", "Signal"),
            ("mmap(NULL, 12,  <unfinished ...>", r#"Unfinished("mmap(NULL, 12,")"#),
            ("<... mmap resumed>) = 0x1000", r#"Resumed("mmap", ") = 0x1000")"#),
            ("<... mmap resumed> PROT_READ) = 0x1000", r#"Resumed("mmap", " PROT_READ) = 0x1000")"#),
        ] {
            assert_eq!(body(text).as_deref(), Ok(expected), "{text}");
        }
        for wrong in ["", "+++ hello +++", "mmap", "(NULL)", "+++ superseded by execve in pid x +++"] {
            assert!(body(wrong).is_err(), "{wrong}");
        }
        for message in [
            "",
            "strace: Process 7 attached",
            "[ Process PID=7 runs in 32 bit mode. ]",
            "7 1.5 [ Process PID=7 runs in 32 bit mode. ]",
        ] {
            assert_eq!(LogLine::parse(message), Ok(None), "{message}");
        }
    }

    #[test]
    fn lines_without_a_time_are_refused() {
        for line in
            ["brk(NULL) = 0", "77 brk(NULL) = 0", "11:22:33 brk(NULL) = 0", "[pid x] 1.5 brk(NULL)", "0 1.5 f()"]
        {
            assert!(LogLine::parse(line).is_err(), "{line}");
        }
    }
}
