//! Times of a log, and what the calendar says of them.

const US: u64 = 1_000_000;

/// The microseconds of `seconds.fraction`, as `-ttt` writes it.
pub(super) fn microseconds(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    seconds.parse::<u64>().ok()?.checked_mul(US)?.checked_add(fraction)
}

/// The second in which these microseconds since 1970 lie, as a date and time of day in UTC.
pub(super) fn utc(microseconds: u64) -> String {
    let seconds = microseconds / US;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The date that lies `days` after 1970-01-01. Years begin in March here, so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let since_year_zero = days + 719_468;
    let (era, of_era) = (since_year_zero / DAYS_IN_400_YEARS, since_year_zero % DAYS_IN_400_YEARS);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_microsecond() {
        assert_eq!(microseconds("12.000345"), Some(12_000_345));
        assert_eq!(microseconds("12.5"), Some(12_500_000));
        assert_eq!(microseconds("12.000345999"), Some(12_000_345));
        for wrong in ["12", "12.", ".5", "1:2.3", "-1.5", "+1.5", "99999999999999999999.5", "18446744073709551615.5"] {
            assert_eq!(microseconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As `date -u -d @SECONDS` says them.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * US), expected);
        }
        assert!(!utc(u64::MAX).is_empty());
    }
}
