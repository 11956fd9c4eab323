//! Dates and points in time, by `PyYAML`'s rules.

/// The parts of a timestamp, as `PyYAML`'s resolver splits it.
struct Time<'a> {
    date: [&'a str; 3],
    clock: Option<[&'a str; 3]>,
    zone: Option<(&'a str, &'a str)>,
}

fn digits(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn split_time(text: &str) -> Option<Time<'_>> {
    let end = text.find(['T', 't', ' ', '\t']).unwrap_or(text.len());
    let (date, rest) = text.split_at(end);
    let mut parts = date.split('-');
    let date = [parts.next()?, parts.next()?, parts.next()?];
    if parts.next().is_some() || !digits(date[0], 4..=4) {
        return None;
    }
    if rest.is_empty() {
        let whole = digits(date[1], 2..=2) && digits(date[2], 2..=2);
        return whole.then_some(Time {
            date,
            clock: None,
            zone: None,
        });
    }
    let rest = match rest.strip_prefix(['T', 't']) {
        Some(rest) => rest,
        None => rest.trim_start_matches([' ', '\t']),
    };
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'))
        .unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(end);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    let clock = [parts.next()?, parts.next()?, parts.next()?];
    let right = parts.next().is_none()
        && digits(date[1], 1..=2)
        && digits(date[2], 1..=2)
        && digits(clock[0], 1..=2)
        && digits(clock[1], 2..=2)
        && digits(clock[2], 2..=2)
        && (fraction.is_empty() || digits(fraction, 1..=usize::MAX));
    let zone = split_zone(zone.trim_start_matches([' ', '\t']), zone.is_empty())?;
    right.then_some(Time {
        date,
        clock: Some(clock),
        zone,
    })
}

/// `None`: not a zone. `Some(None)`: no offset.
#[expect(clippy::option_option, reason = "no zone and a wrong zone differ")]
fn split_zone(text: &str, absent: bool) -> Option<Option<(&str, &str)>> {
    if absent || text == "Z" {
        return Some(None);
    }
    let (hours, minutes) = match text.strip_prefix(['-', '+'])?.split_once(':') {
        Some((h, m)) if digits(m, 2..=2) => (h, m),
        Some(_) => return None,
        None => (&text[1..], "0"),
    };
    digits(hours, 1..=2).then_some(Some((hours, minutes)))
}

pub(crate) fn is_timestamp(text: &str) -> bool {
    text.is_ascii() && split_time(text).is_some()
}

/// Whether Python's `datetime` takes it.
pub(crate) fn is_real_time(text: &str) -> bool {
    let Some(time) = split_time(text) else {
        return false;
    };
    let n = |s: &str| s.parse::<u32>().unwrap_or(u32::MAX);
    let [year, month, day] = time.date.map(n);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    year > 0
        && (1..=days).contains(&day)
        && time
            .clock
            .map(|c| c.map(n))
            .is_none_or(|[h, m, s]| h < 24 && m < 60 && s < 60)
        && time.zone.is_none_or(|(h, m)| n(h) * 60 + n(m) < 24 * 60)
}
