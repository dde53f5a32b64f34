//! Days since 1970 as calendar dates and back, times of day, and their ISO-8601 text, without a detour over a time library.
//!
//! The calendar is the proleptic Gregorian one. The arithmetic shifts the year to begin in March, so that the leap day is the
//! last of its year and month lengths follow a linear rule.

use arrow::datatypes::TimeUnit;
use tidemill_core::time::{Calendar, per_second};

pub(crate) const DAY_SECONDS: i64 = 86_400;
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_SHIFT: i64 = 719_468;

/// Year, month and day of a day number.
pub(crate) fn date_of_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + EPOCH_SHIFT;
    let era = shifted.div_euclid(ERA_DAYS);
    let day_of_era = shifted.rem_euclid(ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// The day number of a date; `None` if there is no such day.
pub(crate) fn days_of_date(year: i64, month: u32, day: u32) -> Option<i64> {
    if !(1..=12).contains(&month) || day == 0 || day > month_length(year, month) {
        return None;
    }
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * ERA_DAYS + day_of_era - EPOCH_SHIFT)
}

fn month_length(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Appends `2026-11-21`.
pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = date_of_days(days);
    match u32::try_from(year) {
        Ok(year @ 0..=9_999) => write_digits(year, 4, out),
        // ISO-8601 wants a sign before years of more than four digits.
        _ => out.extend_from_slice(format!("{year:+05}").as_bytes()),
    }
    out.push(b'-');
    write_digits(month, 2, out);
    out.push(b'-');
    write_digits(day, 2, out);
}

/// Appends `03:55:24` and as much of the fraction as is not zero, in groups of three digits.
pub(crate) fn write_time(second_of_day: i64, nanos: i64, out: &mut Vec<u8>) {
    write_digits((second_of_day / 3_600) as u32, 2, out);
    out.push(b':');
    write_digits((second_of_day / 60 % 60) as u32, 2, out);
    out.push(b':');
    write_digits((second_of_day % 60) as u32, 2, out);
    if nanos == 0 {
        return;
    }
    out.push(b'.');
    match (nanos % 1_000_000, nanos % 1_000) {
        (0, _) => write_digits((nanos / 1_000_000) as u32, 3, out),
        (_, 0) => write_digits((nanos / 1_000) as u32, 6, out),
        _ => write_digits(nanos as u32, 9, out),
    }
}

/// Appends `number` with leading zeros.
pub(crate) fn write_digits(number: u32, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut left = number;
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// Reads `2026-11-21`.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let (days, rest) = take_date(text.as_bytes())?;
    rest.is_empty().then_some(days)
}

/// Reads `03:55:24.123`: seconds of the day and nanoseconds.
pub(crate) fn parse_time(text: &str) -> Option<(i64, i64)> {
    let (time, rest) = take_time(text.as_bytes())?;
    rest.is_empty().then_some(time)
}

/// Reads `2026-11-21T03:55:24.123Z`: seconds since the epoch and nanoseconds. A blank may stand for the `T`; time of day,
/// seconds, fraction and zone may be missing. Without a zone the text is a wall clock of `calendar`.
pub(crate) fn parse_timestamp(text: &str, calendar: Calendar) -> Option<(i64, i64)> {
    let (days, rest) = take_date(text.as_bytes())?;
    let ((second_of_day, nanos), zone) = match rest {
        [] => ((0, 0), rest),
        [b'T' | b't' | b' ', time @ ..] => take_time(time)?,
        _ => return None,
    };
    let local = days * DAY_SECONDS + second_of_day;
    let to_instant = |calendar: Calendar| calendar.to_instant(local, TimeUnit::Second);
    let seconds = match zone {
        [] => to_instant(calendar),
        [b'Z' | b'z'] => local,
        zone => match std::str::from_utf8(zone).ok()?.trim() {
            "" => to_instant(calendar),
            zone => to_instant(Calendar::parse(zone).ok()?),
        },
    };
    Some((seconds, nanos))
}

/// Seconds and nanoseconds in `unit`; digits that it has no room for are cut.
pub(crate) fn of_unit((seconds, nanos): (i64, i64), unit: TimeUnit) -> Option<i64> {
    let scale = per_second(unit);
    seconds.checked_mul(scale)?.checked_add(nanos / (1_000_000_000 / scale))
}

fn take_date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let width = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(4..=7).contains(&width) {
        return None;
    }
    let year = number(&digits[..width])?;
    let [b'-', month @ ..] = &digits[width..] else { return None };
    let (month, rest) = month.split_at_checked(2)?;
    let [b'-', day @ ..] = rest else { return None };
    let (day, rest) = day.split_at_checked(2)?;
    let year = if negative { -i64::from(year) } else { i64::from(year) };
    Some((days_of_date(year, number(month)?, number(day)?)?, rest))
}

type TimeOfDay = (i64, i64);

fn take_time(text: &[u8]) -> Option<(TimeOfDay, &[u8])> {
    let (hour, rest) = text.split_at_checked(2)?;
    let [b':', minute @ ..] = rest else { return None };
    let (minute, rest) = minute.split_at_checked(2)?;
    let (second, rest) = match rest {
        [b':', second @ ..] => second.split_at_checked(2)?,
        rest => (&b"00"[..], rest),
    };
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = match rest {
        [b'.' | b',', fraction @ ..] => take_fraction(fraction)?,
        rest => (0, rest),
    };
    Some(((i64::from(hour * 3_600 + minute * 60 + second), nanos), rest))
}

/// Nanoseconds of a fraction; digits beyond the ninth are cut.
fn take_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let width = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if width == 0 {
        return None;
    }
    let kept = width.min(9);
    let value = i64::from(number(&text[..kept])?);
    Some((value * 10i64.pow(9 - kept as u32), &text[width..]))
}

/// The value of at most nine digits.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(days: i64) -> String {
        let mut out = Vec::new();
        write_date(days, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_days() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (20_778, "2026-11-21"),
            (-719_528, "0000-01-01"),
            (2_932_897, "+10000-01-01"),
        ] {
            assert_eq!(date(days), text);
            assert_eq!(parse_date(text), Some(days));
        }
    }

    proptest::proptest! {
        #[test]
        fn days_go_there_and_back(days in -300_000_000i64..300_000_000) {
            let (year, month, day) = date_of_days(days);
            proptest::prop_assert_eq!(days_of_date(year, month, day), Some(days));
        }
    }

    #[test]
    fn days_that_are_none() {
        for text in ["2023-02-29", "2023-13-01", "2023-00-10", "2023-1-1", "23-01-01", "2023-01-32", "2023-01-01x", ""]
        {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn timestamps_take_many_forms() {
        let utc = |text: &str| parse_timestamp(text, Calendar::Utc);
        let noon = 20_778 * DAY_SECONDS + 43_200;
        assert_eq!(utc("2026-11-21 12:00:00"), Some((noon, 0)));
        assert_eq!(utc("2026-11-21T12:00"), Some((noon, 0)));
        assert_eq!(utc("2026-11-21T12:00:00.5Z"), Some((noon, 500_000_000)));
        assert_eq!(utc("2026-11-21T13:00:00+01:00"), Some((noon, 0)));
        assert_eq!(utc("2026-11-21 13:00:00.000001 Europe/Berlin"), Some((noon, 1_000)));
        assert_eq!(utc("2026-11-21"), Some((noon - 43_200, 0)));
        let berlin = Calendar::parse("Europe/Berlin").unwrap();
        assert_eq!(parse_timestamp("2026-11-21T13:00:00", berlin), Some((noon, 0)));
        for bad in ["2026-11-21T24:00:00", "2026-11-21x", "2026-11-21T12", "2026-11-21T12:00:00.", "now"] {
            assert_eq!(utc(bad), None, "{bad}");
        }
    }
}
