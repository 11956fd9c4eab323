//! Dates and points in time, by `PyYAML`'s rules.

use std::sync::LazyLock;

use regex::Regex;

use crate::dialect::pattern;

static TIMESTAMP: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        "([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})",
        r"(?:(?:[Tt]|[ \t]+)([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]*)?",
        r"(?:[ \t]*(?:Z|[-+]([0-9]{1,2})(?::([0-9]{2}))?))?)?",
    ))
});

/// Year, month, day, hour, minute, second, and the hours and minutes of the zone; 0 for what is absent.
fn parts(text: &str) -> Option<[u32; 8]> {
    let found = TIMESTAMP.captures(text)?;
    let number = |i| found.get(i)?.as_str().parse().ok();
    // A date without a time needs two digits for month and day.
    let is_whole = found.get(4).is_some() || text.len() == "2001-01-01".len();
    is_whole.then(|| std::array::from_fn(|i| number(i + 1).unwrap_or_default()))
}

pub(crate) fn is_timestamp(text: &str) -> bool {
    parts(text).is_some()
}

/// Whether Python's `datetime` accepts it.
pub(crate) fn is_real_time(text: &str) -> bool {
    let Some(
        [
            year,
            month,
            day,
            hour,
            minute,
            second,
            zone_hours,
            zone_minutes,
        ],
    ) = parts(text)
    else {
        return false;
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    let is_date = year > 0 && (1..=days).contains(&day);
    is_date && hour < 24 && minute < 60 && second < 60 && zone_hours * 60 + zone_minutes < 24 * 60
}
