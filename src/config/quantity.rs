//! Parsers of durations (`10m`) and sizes (`4MiB`).

use std::time::Duration;

/// A parser of durations from `min` to `max` seconds: `90s`, `10m`, `2h`, `7d`; a number without unit is in seconds.
pub(super) fn duration(min: u64, max: u64) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    const UNITS: &[(&str, u64)] = &[("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    move |text| {
        let expected = || format!("expected a time from {} to {}, such as 90s, 10m or 2h", show(min), show(max));
        let seconds = scaled(text, UNITS).filter(|seconds| (min..=max).contains(seconds)).ok_or_else(expected)?;
        Ok(Duration::from_secs(seconds))
    }
}

/// A parser of sizes from `min` to `max` bytes: `512KiB`, `4MiB`; a number without unit is in bytes.
pub(super) fn bytes(min: usize, max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    const UNITS: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    move |text| {
        let expected = || format!("expected a size from {min} to {max} bytes, such as 512KiB or 4MiB");
        let size = scaled(text, UNITS).and_then(|size| usize::try_from(size).ok());
        size.filter(|size| (min..=max).contains(size)).ok_or_else(expected)
    }
}

/// An integer with an optional unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let unit = units.iter().find_map(|&(name, factor)| Some((text.strip_suffix(name)?, factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    let digits = digits.trim_end();
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// A number of seconds in the largest unit that divides it.
fn show(seconds: u64) -> String {
    match seconds {
        s if s >= 86_400 && s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s >= 3600 && s % 3600 == 0 => format!("{}h", s / 3600),
        s if s >= 60 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn times_have_units_and_a_range() {
        let parse = duration(1, 3600);
        for (text, seconds) in [("30", 30), ("30s", 30), ("2 m", 120), ("1h", 3600)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["0", "61m", "1d", "-1s", "+1s", "1.5h", "ten", "", "s", "99999999999999999999s", "9999999999999999999d"]
        {
            assert_eq!(parse(text), Err("expected a time from 1s to 1h, such as 90s, 10m or 2h".into()), "{text}");
        }
    }

    #[test]
    fn sizes_have_units_and_a_range() {
        let parse = bytes(1024, 1 << 20);
        for (text, size) in [("1024", 1024), ("2KiB", 2048), ("1MiB", 1 << 20), ("4096 B", 4096)] {
            assert_eq!(parse(text), Ok(size), "{text}");
        }
        for text in ["1023", "2MiB", "1KB", "-1", "", "1e6", "18446744073709551615GiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
