//! Durations as Prometheus writes them (`model.ParseDuration` in prometheus/common): `1h30m`, `5m`, `0`.

use std::time::Duration;

/// Units from the largest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Parses a duration: whole numbers with units, each unit at most once, the largest first. `None` for anything else.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total, mut largest) = (text, 0_u64, 0);
    while !rest.is_empty() || largest == 0 {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = UNITS.iter().position(|(unit, _)| rest.get(..letters) == Some(*unit))?;
        if unit < largest {
            return None;
        }
        largest = unit + 1;
        total = total.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        rest = rest.get(letters..)?;
    }
    Some(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_prometheus_reads_them() {
        let seconds = |text| parse(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("0s"), Some(0.0));
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("1d"), Some(86_400.0));
        assert_eq!(seconds("1m500ms"), Some(60.5));
        assert_eq!(seconds("1y2w3d4h5m6s7ms"), Some(33_019_506.007));
        for wrong in ["", "5", "m", "5 m", "30m1h", "1m1m", "1.5h", "-1m", "5min", "1ms2", "99999999999y", "5m "] {
            assert_eq!(seconds(wrong), None, "{wrong:?}");
        }
    }
}
