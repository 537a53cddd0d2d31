//! Times and numbers as text, the same in all reports.

use super::scorecard::Close;

/// Seconds as Prometheus writes durations, without fractions from ten seconds on: "1m15s", "4.5s".
#[must_use]
pub fn clock(seconds: f64) -> String {
    if seconds < 9.95 {
        let text = format!("{:.1}", seconds.max(0.0));
        return format!("{}s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and far below the limit")]
    let whole = seconds.round() as u64;
    let parts = [(86_400, 'd', u64::MAX), (3_600, 'h', 24), (60, 'm', 60), (1, 's', 60)];
    let shown = parts.iter().map(|(unit, name, of)| (whole / unit % of, name)).filter(|(n, _)| *n > 0);
    shown.map(|(n, name)| format!("{n}{name}")).collect()
}

/// A measured number with about three digits.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if value.fract() == 0.0 => 0,
        100.0.. => 0,
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        0.01..1.0 => 3,
        _ => return format!("{value:.2e}"),
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// "peaked at 0.62 of 0.75".
#[must_use]
pub fn close(close: &Close) -> String {
    let verb = if close.above { "peaked at" } else { "fell to" };
    let goal = if close.above { "of" } else { "not below" };
    format!("{verb} {} {goal} {}", number(close.value), number(close.threshold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        let cases =
            [(0.0, "0s"), (4.46, "4.5s"), (9.96, "10s"), (75.0, "1m15s"), (940.2, "15m40s"), (90_060.0, "1d1h1m")];
        for (seconds, text) in cases {
            assert_eq!(clock(seconds), text);
        }
    }

    #[test]
    fn numbers() {
        let cases = [(0.62, "0.62"), (12.0, "12"), (262_144.0, "262144"), (3.456, "3.46"), (0.000_12, "1.20e-4")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(f64::INFINITY), "inf");
    }
}
