//! Times as RFC 3339 writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds of a day, of an hour and of a minute.
const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;
const MINUTE: u64 = 60;

/// Days from 0000-03-01, with which the computation begins, to 1970-01-01.
const EPOCH: u64 = 719_468;

/// Days of 400 years.
const ERA: u64 = 146_097;

/// A time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(Duration);

impl Time {
    pub(crate) fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// The time that a text like `2026-11-27T08:30:00Z` or `2026-11-27 09:30:00.25+01:00` names.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected a time like 2026-11-27T08:30:00Z".to_string();
        Self::of(text).ok_or_else(expected)
    }

    fn of(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't', ' '])?;
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let zone = rest.find(['Z', 'z', '+', '-'])?;
        let (clock, zone) = rest.split_at(zone);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
        let is_time = hour < 24 && minute < 60 && second <= 60;
        let (is_east, offset) = offset(zone)?;
        if year < 1970 || !is_time || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let days = days(year, month, day)?;
        let seconds = days * DAY + hour * HOUR + minute * MINUTE + second;
        let seconds =
            if is_east { seconds.checked_sub(offset)? } else { seconds.checked_add(offset)? };
        let micros: u32 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
        Some(Self(Duration::new(seconds, micros * 1000)))
    }
}

/// In UTC, with microseconds: times are in the order of their texts.
impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, seconds) = (self.0.as_secs() / DAY, self.0.as_secs() % DAY);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (seconds / HOUR, seconds / MINUTE % MINUTE, seconds % MINUTE);
        let micros = self.0.subsec_micros();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// Numbers of these lengths.
fn numbers(text: &str, separator: char, lengths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator).zip(lengths).map(|(part, len)| {
        let is_number = part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    });
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    (text.matches(separator).count() == 2).then_some(numbers)
}

/// Whether a zone is east of UTC, and by how many seconds it differs.
fn offset(zone: &str) -> Option<(bool, u64)> {
    if zone.eq_ignore_ascii_case("z") {
        return Some((true, 0));
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let [hours, minutes, _] = numbers(&format!("{hours}:{minutes}:00"), ':', [2, 2, 2])?;
    (hours < 24 && minutes < 60).then_some((zone.starts_with('+'), hours * HOUR + minutes * MINUTE))
}

/// The days from 1970-01-01 to a date; `None` if there is no such date.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_month = (1..=12).contains(&month) && (1..=31).contains(&day);
    // The years begin in March, so that the leap day is their last.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day.checked_sub(1)?;
    let days =
        (era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(EPOCH)?;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (is_month && date(days) == (year, month, day)).then_some(days)
}

/// Year, month and day, so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        // `date -u -d @SECONDS +%FT%TZ`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            let time = Time(Duration::from_secs(seconds));
            assert_eq!(time.to_string(), text);
            assert_eq!(Time::parse(text), Ok(time));
        }
    }

    #[test]
    fn every_day_of_400_years_is_itself() {
        for day in 0..ERA {
            let time = Time(Duration::from_secs(day * DAY));
            assert_eq!(Time::parse(&time.to_string()), Ok(time));
        }
    }

    #[test]
    fn zones_and_fractions_are_read() {
        let time = |text: &str| Time::parse(text).map(|time| time.to_string());
        for text in [
            "2026-11-27T08:30:00.25Z",
            "2026-11-27 09:30:00.25+01:00",
            "2026-11-27t03:00:00.250-05:30",
        ] {
            assert_eq!(time(text).as_deref(), Ok("2026-11-27T08:30:00.250000Z"), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-11-27",
            "2026-11-27T08:30:00",
            "2026-11-27T08:30Z",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-27T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-1-1T00:00:00Z",
            "2026-11-27T08:30:00.xZ",
            "1970-01-01T00:00:00+01:00",
            "2026-11-27T08:30:00+1",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
