//! One call: its name, arguments and result.

/// A whole call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call<'t> {
    pub(super) name: &'t str,
    pub(super) args: Vec<&'t str>,
    pub(super) result: CallResult,
}

/// What a call returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallResult {
    Value(u64),
    /// -1 and an error.
    Failed,
    /// `?`: it did not return, or nobody saw it.
    Unknown,
}

/// The name of the call that `text` begins with, or all that was kept of it; empty, if it begins with none.
pub(super) fn name(text: &str) -> &str {
    let name = text.split('(').next().unwrap_or_default();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'?'));
    if is_name { name } else { "" }
}

impl<'t> Call<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, String> {
        let name = name(text);
        let rest = text.get(name.len() + 1..).unwrap_or_default();
        let mut args = Vec::new();
        let end = split_args(rest, &mut args)
            .ok_or_else(|| format!("the arguments of {name} have no end: the line was cut; make the log again"))?;
        let after = rest.get(end..).unwrap_or_default().trim_start();
        let result = after.strip_prefix('=').and_then(|text| result(text.trim()));
        let result = result.ok_or_else(|| format!("there is no result of {name} that could be understood"))?;
        Ok(Self { name, args, result })
    }

    /// The argument with this number, without its comment.
    pub(super) fn arg(&self, number: usize) -> Result<&'t str, String> {
        let arg = self.args.get(number).copied().map(without_comment);
        arg.ok_or_else(|| format!("{} has no argument {}; was the log changed?", self.name, number + 1))
    }

    /// The argument with this number as a number.
    pub(super) fn number(&self, number: usize) -> Result<u64, String> {
        let arg = self.arg(number)?;
        parse_number(arg).ok_or_else(|| {
            format!("argument {} of {} should be a number and is {}", number + 1, self.name, quoted(arg))
        })
    }
}

/// Splits at the commas that are inside nothing else. Returns what follows the parenthesis that closes the list.
fn split_args<'t>(text: &'t str, args: &mut Vec<&'t str>) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut from, mut at, mut depth) = (0, 0, 0_usize);
    loop {
        match *bytes.get(at)? {
            b'"' => at = end_of_string(bytes, at)?,
            b'/' if bytes[at..].starts_with(b"/*") => at += text.get(at..)?.find("*/")? + 1,
            b'<' if is_description(bytes, at) => at = end_of_description(bytes, at)?,
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => {
                let last = text.get(from..at)?.trim();
                if !(last.is_empty() && args.is_empty()) {
                    args.push(last);
                }
                return Some(at + 1);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                args.push(text.get(from..at)?.trim());
                from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
}

/// The quote that closes the string which begins at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match *bytes.get(at)? {
            b'\\' => at += 1,
            b'"' => return Some(at),
            _ => {}
        }
    }
}

/// Whether a file is described here, as `-y` does behind a descriptor, and not a shift written.
fn is_description(bytes: &[u8], at: usize) -> bool {
    at > 0 && bytes[at - 1].is_ascii_digit() && bytes.get(at + 1) != Some(&b'<')
}

/// The bracket that closes a description. A path may hold brackets and commas: only one that the argument ends with counts.
fn end_of_description(bytes: &[u8], from: usize) -> Option<usize> {
    let closes =
        |at: &usize| bytes[*at] == b'>' && matches!(bytes.get(at + 1), None | Some(b',' | b')' | b']' | b'}' | b' '));
    (from..bytes.len()).find(closes)
}

/// The text without a comment at its end, such as `/* MADV_??? */`.
fn without_comment(text: &str) -> &str {
    text.split_once("/*").map_or(text, |(before, _)| before).trim()
}

fn result(text: &str) -> Option<CallResult> {
    // A number of another process may be followed by what it is here.
    if let Some((_, comment)) = text.split_once("/* ")
        && let Some((pid, _)) = comment.split_once(" in strace's PID NS")
    {
        return parse_number(pid).map(CallResult::Value);
    }
    let word = text.split([' ', '<', '/']).next()?;
    if word == "?" {
        return Some(CallResult::Unknown);
    }
    if word.strip_prefix('-').is_some_and(|number| parse_number(number).is_some()) {
        return Some(CallResult::Failed);
    }
    parse_number(word).map(CallResult::Value)
}

/// The beginning of a text in a message, with nothing in it that a terminal would obey.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    format!("{:?}", text.chars().take(SHOWN).collect::<String>())
}

/// A number as strace writes it.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let digits = |text: &str, valid: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(valid);
    if text == "NULL" {
        return Some(0);
    }
    match text.strip_prefix("0x") {
        Some(hex) if digits(hex, u8::is_ascii_hexdigit) => u64::from_str_radix(hex, 16).ok(),
        None if digits(text, u8::is_ascii_digit) => text.parse().ok(),
        _ => None,
    }
}

/// Whether these flags, by names or as numbers, hold the one of this name and these bits.
pub(super) fn has_flag(flags: &str, name: &str, bits: u64) -> bool {
    let one = |flag: &str| flag == name || parse_number(flag).is_some_and(|number| number & bits == bits);
    flags.split('|').any(|flag| one(flag.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<&str> {
        Call::parse(text).unwrap().args
    }

    #[test]
    fn commas_inside_something_separate_nothing() {
        assert_eq!(args("f() = 0"), Vec::<&str>::new());
        assert_eq!(args("f(1, [2, {a=3, b=4}], 5) = 0"), ["1", "[2, {a=3, b=4}]", "5"]);
        assert_eq!(args(r#"f("a, \") b", 2) = 0"#), [r#""a, \") b""#, "2"]);
        assert_eq!(args("f(3</tmp/a,b)>, 2) = 0"), ["3</tmp/a,b)>", "2"]);
        assert_eq!(args("f(3<TCP:[127.0.0.1:1->127.0.0.1:2]>, 2) = 0"), ["3<TCP:[127.0.0.1:1->127.0.0.1:2]>", "2"]);
        assert_eq!(args("f(A|21<<B, 0x12 /* C, D) */) = 0"), ["A|21<<B", "0x12 /* C, D) */"]);
    }

    #[test]
    fn results_of_all_kinds_are_understood() {
        use CallResult::{Failed, Unknown, Value};
        for (text, expected) in [
            ("= 0", Value(0)),
            ("    = 0x7f00", Value(0x7f00)),
            ("= 3</tmp/x>", Value(3)),
            ("= 0 <0.000012>", Value(0)),
            ("= 2 /* 4321 in strace's PID NS */", Value(4321)),
            ("= -1 ENOMEM (Cannot allocate memory)", Failed),
            ("= -1 EINVAL (Invalid argument) <0.1>", Failed),
            ("= ?", Unknown),
            ("= ? ERESTARTSYS (To be restarted)", Unknown),
        ] {
            assert_eq!(Call::parse(&format!("f(1) {text}")).unwrap().result, expected, "{text}");
        }
        for wrong in ["", "=", "= x", "0", "= 0x", "= 99999999999999999999999"] {
            assert!(Call::parse(&format!("f(1) {wrong}")).is_err(), "{wrong}");
        }
        for cut in ["f(1", "f(\"1", "f(1, [2", "f(3</x", "f(1 /* "] {
            assert!(Call::parse(cut).is_err(), "{cut}");
        }
    }

    #[test]
    fn flags_are_names_numbers_or_both() {
        for with in ["MAP_FIXED", "MAP_PRIVATE|MAP_FIXED", "0x12", "18", "MAP_SHARED|0x10"] {
            assert!(has_flag(with, "MAP_FIXED", 0x10), "{with}");
        }
        for without in ["0", "MAP_FIXED_NOREPLACE", "MAP_PRIVATE|0x2", ""] {
            assert!(!has_flag(without, "MAP_FIXED", 0x10), "{without}");
        }
    }
}
