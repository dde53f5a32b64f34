//! Time in columns: `i64` in the column's own unit, floor arithmetic, time zones only where a calendar is asked for.
//!
//! Watermarks and timers are in milliseconds (Flink's unit) whatever the unit of the column they come from. The bridge is
//! [`floor_to_millis`]: a watermark `w` says that no row follows whose time, floored to milliseconds, is `<= w`.

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray, TimestampMillisecondArray};
use arrow::array::{TimestampNanosecondArray, TimestampSecondArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use chrono::{Offset, TimeZone};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};

/// How many of `unit` make a second.
pub const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// A time in `unit` as milliseconds, rounded down (also before 1970), saturating for seconds beyond the range.
///
/// ```
/// # use tidemill_core::time::floor_to_millis;
/// # use arrow::datatypes::TimeUnit;
/// assert_eq!(floor_to_millis(1_999, TimeUnit::Microsecond), 1);
/// assert_eq!(floor_to_millis(-1, TimeUnit::Microsecond), -1);
/// ```
pub const fn floor_to_millis(value: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => value.saturating_mul(1_000),
        TimeUnit::Millisecond => value,
        TimeUnit::Microsecond => value.div_euclid(1_000),
        TimeUnit::Nanosecond => value.div_euclid(1_000_000),
    }
}

/// Milliseconds in `unit`; an error that names the value when it does not fit.
pub fn millis_to_unit(millis: i64, unit: TimeUnit) -> Result<i64> {
    let value = match unit {
        TimeUnit::Second => return Ok(millis.div_euclid(1_000)),
        TimeUnit::Millisecond => Some(millis),
        TimeUnit::Microsecond => millis.checked_mul(1_000),
        TimeUnit::Nanosecond => millis.checked_mul(1_000_000),
    };
    value.ok_or_else(|| Error::data(format!("time {millis} ms does not fit TIMESTAMP of {unit:?}s")))
}

/// A duration as people say it.
///
/// ```
/// # use std::time::Duration;
/// # use tidemill_core::time::spoken;
/// let spoken = [12, 3_414, 125_000, 3_720_000].map(|millis| spoken(Duration::from_millis(millis)));
/// assert_eq!(spoken, ["12 ms", "3.41 s", "2 min 5 s", "1 h 2 min"]);
/// ```
pub fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.2} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The unit and zone of a time column, or an error that names the column.
pub fn time_type(name: &str, data_type: &DataType) -> Result<(TimeUnit, Option<Arc<str>>)> {
    match data_type {
        DataType::Timestamp(unit, zone) => Ok((*unit, zone.clone())),
        other => Err(Error::request(format!("column '{name}' is {other}, not a time"))
            .with_hint("a time attribute is a TIMESTAMP(p) or TIMESTAMP_LTZ(p) column")),
    }
}

/// The `i64` values and validity of a timestamp array of any unit.
pub fn time_values(array: &dyn Array) -> Result<(&ScalarBuffer<i64>, Option<&NullBuffer>)> {
    let values = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().values(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => array.as_primitive::<TimestampMillisecondType>().values(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().values(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => array.as_primitive::<TimestampNanosecondType>().values(),
        other => return Err(Error::internal(format!("{other} is not a time"))),
    };
    Ok((values, array.nulls()))
}

/// A timestamp array of `data_type` over `values`.
pub fn time_array(data_type: &DataType, values: Vec<i64>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let values = ScalarBuffer::from(values);
    let DataType::Timestamp(unit, zone) = data_type else {
        return Err(Error::internal(format!("{data_type} is not a time")));
    };
    Ok(match unit {
        TimeUnit::Second => {
            Arc::new(TimestampSecondArray::new(values, nulls).with_timezone_opt(zone.clone())) as ArrayRef
        }
        TimeUnit::Millisecond => {
            Arc::new(TimestampMillisecondArray::new(values, nulls).with_timezone_opt(zone.clone()))
        }
        TimeUnit::Microsecond => {
            Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone_opt(zone.clone()))
        }
        TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::new(values, nulls).with_timezone_opt(zone.clone())),
    })
}

/// A calendar: how instants map to wall-clock time, daylight saving included.
#[derive(Clone, Copy, Debug)]
pub enum Calendar {
    /// Wall clock and instant are the same number: `TIMESTAMP` columns, and `TIMESTAMP_LTZ` in UTC.
    Utc,
    /// A zone with an offset that may change over the year.
    Zone(Tz),
}

impl Calendar {
    /// The calendar of a zone name such as `Europe/Berlin`, `+02:00` or `UTC`.
    pub fn parse(zone: &str) -> Result<Self> {
        if matches!(zone.to_ascii_uppercase().as_str(), "UTC" | "Z" | "ETC/UTC" | "GMT" | "+00:00") {
            return Ok(Self::Utc);
        }
        zone.parse::<Tz>().map(Self::Zone).map_err(|error| {
            Error::request(format!("unknown time zone '{zone}'"))
                .with_hint("a name such as Europe/Berlin or an offset such as +02:00")
                .with_source(error)
        })
    }

    /// Wall-clock time of an instant, both in `unit`.
    pub fn to_local(self, instant: i64, unit: TimeUnit) -> i64 {
        match self {
            Self::Utc => instant,
            Self::Zone(zone) => {
                let seconds = instant.div_euclid(per_second(unit));
                instant.saturating_add(utc_offset_seconds(zone, seconds).saturating_mul(per_second(unit)))
            }
        }
    }

    /// The instant of a wall-clock time, both in `unit`. In the hour that occurs twice it is the later one, so that a window
    /// which ends there has seen both; in the hour that does not occur it is the instant of the jump.
    pub fn to_instant(self, local: i64, unit: TimeUnit) -> i64 {
        let Self::Zone(zone) = self else { return local };
        let scale = per_second(unit);
        let seconds = local.div_euclid(scale);
        let offset_after = utc_offset_seconds(zone, seconds.saturating_sub(DAY_SECONDS));
        let offset_before = utc_offset_seconds(zone, seconds.saturating_add(DAY_SECONDS));
        // The true offset is one of those in force around the day; a local time that occurs twice has both.
        let valid = |offset: i64| utc_offset_seconds(zone, seconds.saturating_sub(offset)) == offset;
        let (low, high) = (offset_after.min(offset_before), offset_after.max(offset_before));
        let offset = match (valid(low), valid(high)) {
            (true, _) => low,
            (false, true) => high,
            // A gap: the old (smaller) offset maps into the hour after the jump; shift back to the jump itself.
            (false, false) => {
                return jump_instant(zone, seconds.saturating_sub(high), seconds.saturating_sub(low)) * scale;
            }
        };
        local.saturating_sub(offset.saturating_mul(scale))
    }
}

const DAY_SECONDS: i64 = 86_400;

fn utc_offset_seconds(zone: Tz, seconds: i64) -> i64 {
    match chrono::DateTime::from_timestamp(seconds, 0) {
        Some(instant) => i64::from(zone.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc()),
        None => 0,
    }
}

/// The first second in `(from, to]` at which the zone's offset differs from that at `from`.
fn jump_instant(zone: Tz, from: i64, to: i64) -> i64 {
    let before = utc_offset_seconds(zone, from);
    let (mut low, mut high) = (from, to);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if utc_offset_seconds(zone, middle) == before { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    #[test]
    fn a_day_may_have_23_or_25_hours() {
        let berlin = Calendar::parse("Europe/Berlin").unwrap();
        let day_hours = |start: i64| {
            let begin = berlin.to_instant(start, TimeUnit::Second);
            let end = berlin.to_instant(start + 24 * HOUR, TimeUnit::Second);
            (end - begin) / HOUR
        };
        let day = |days: i64| days * 24 * HOUR;
        assert_eq!(day_hours(day(19_812)), 24); // 2024-03-30
        assert_eq!(day_hours(day(19_813)), 23); // 2024-03-31, spring forward
        assert_eq!(day_hours(day(20_023)), 25); // 2024-10-27, fall back
    }

    #[test]
    fn local_time_goes_there_and_back() {
        for zone in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "+05:30", "Australia/Lord_Howe"] {
            let calendar = Calendar::parse(zone).unwrap();
            for instant in (1_700_000_000..1_735_000_000).step_by(7 * 3_600) {
                let local = calendar.to_local(instant, TimeUnit::Second);
                let back = calendar.to_instant(local, TimeUnit::Second);
                assert_eq!(calendar.to_local(back, TimeUnit::Second), local, "{zone} {instant}");
            }
        }
    }

    #[test]
    fn a_gap_maps_to_the_jump() {
        let berlin = Calendar::parse("Europe/Berlin").unwrap();
        // 2024-03-31 02:30 does not exist; the jump is at 01:00 UTC.
        assert_eq!(
            berlin.to_instant(19_813 * 24 * HOUR + 2 * HOUR + 1_800, TimeUnit::Second),
            19_813 * 24 * HOUR + HOUR
        );
    }

    #[test]
    fn an_unknown_zone_is_named() {
        assert!(Calendar::parse("Mars/Olympus").unwrap_err().to_string().contains("Mars/Olympus"));
    }
}
