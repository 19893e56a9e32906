//! Words for comparisons.

use super::table::number;

/// Two figures that differ by less than this share are alike.
const MARGIN: f64 = 0.01;

/// How one tracker stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Less,
    Alike,
    More,
}

/// One against another at a value of what varies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Compared {
    pub(super) value: u64,
    pub(super) outcome: Outcome,
    /// The one divided by the other.
    pub(super) ratio: f64,
}

/// Compares two figures of which less is better.
pub(super) fn compare(value: u64, one: f64, other: f64) -> Compared {
    let ratio = match (one.is_finite(), other.is_finite()) {
        (false, false) => 1.0,
        _ => one / other,
    };
    let outcome = match ratio {
        _ if ratio < 1.0 - MARGIN => Outcome::Less,
        _ if ratio > 1.0 + MARGIN => Outcome::More,
        _ => Outcome::Alike,
    };
    Compared { value, outcome, ratio }
}

/// Runs of values with the same outcome: "alike at 0 to 100, and less at 1,000 to 10,000 (at best 0.50 times)".
pub(super) fn by_value(compared: &[Compared]) -> String {
    let groups = compared.chunk_by(|one, next| one.outcome == next.outcome);
    list(&groups.map(group).collect::<Vec<_>>())
}

fn group(group: &[Compared]) -> String {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return String::new() };
    let at = if first.value == last.value {
        number(first.value)
    } else {
        format!("{} to {}", number(first.value), number(last.value))
    };
    let ratios = || group.iter().map(|one| one.ratio);
    match first.outcome {
        Outcome::Alike => format!("alike at {at}"),
        Outcome::Less => format!("less at {at} (at best {})", times(ratios().fold(f64::INFINITY, f64::min))),
        Outcome::More => format!("more at {at} (at worst {})", times(ratios().fold(0.0, f64::max))),
    }
}

/// A quotient in words.
pub(super) fn times(ratio: f64) -> String {
    match ratio {
        _ if ratio.is_infinite() => "infinitely many times".to_owned(),
        _ if ratio >= 100.0 => format!("{} times", number(ratio.round() as u64)),
        _ if ratio >= 10.0 => format!("{ratio:.1} times"),
        _ if ratio < 0.001 => format!("1/{} times", number((1.0 / ratio).round() as u64)),
        _ if ratio < 0.1 => format!("{ratio:.4} times"),
        _ => format!("{ratio:.2} times"),
    }
}

/// "a", "a and b", "a, b, and c".
pub(super) fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [one, other] => format!("{one} and {other}"),
        [rest @ .., last] => format!("{}, and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_one_outcome_stand_together() {
        let compared =
            [compare(0, 100.0, 100.5), compare(10, 50.0, 100.0), compare(100, 25.0, 100.0), compare(1000, 3.0, 1.0)];
        assert_eq!(
            by_value(&compared),
            "alike at 0, less at 10 to 100 (at best 0.25 times), and more at 1,000 (at worst 3.00 times)"
        );
    }

    #[test]
    fn whoever_serves_nothing_is_infinitely_slow() {
        assert_eq!(compare(1, f64::INFINITY, 5.0).outcome, Outcome::More);
        assert_eq!(compare(1, 5.0, f64::INFINITY).outcome, Outcome::Less);
        assert_eq!(compare(1, f64::INFINITY, f64::INFINITY).outcome, Outcome::Alike);
        assert_eq!(times(f64::INFINITY), "infinitely many times");
        assert_eq!(
            [0.00001, 0.0123, 0.5, 12.34, 1234.0].map(times),
            ["1/100,000 times", "0.0123 times", "0.50 times", "12.3 times", "1,234 times"]
        );
    }
}
