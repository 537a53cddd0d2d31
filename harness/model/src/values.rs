//! Strings with a syntax: names, durations, addresses, prefixes, fractions, port ranges, subjects, days.
//!
//! Each is a type that holds only valid values, and a [`Format`], by which the check of a whole file finds every
//! malformed string, not only the first.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use jiff::civil::Date;
use relapse_detectors::finding;
use relapse_detectors::prefix::Prefix as IpPrefix;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::diagnostics::quoted;
use crate::plan::Failure;

/// The syntax of one kind of string.
pub struct Format {
    /// Its `format` in the JSON Schema.
    pub name: &'static str,
    /// "a duration"
    pub what: &'static str,
    /// How to write it.
    pub right: &'static str,
    /// Whether a string is valid.
    pub accepts: fn(&str) -> bool,
}

/// All formats.
pub const FORMATS: &[Format] = &[
    Name::FORMAT,
    Duration::FORMAT,
    LongDuration::FORMAT,
    Address::FORMAT,
    ServerAddress::FORMAT,
    Prefix::FORMAT,
    Fraction::FORMAT,
    PortRange::FORMAT,
    Percent::FORMAT,
    Rate::FORMAT,
    Subject::FORMAT,
    Day::FORMAT,
    FailureText::FORMAT,
];

macro_rules! text {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal, $what:literal, $pattern:literal, $right:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl $name {
            pub const FORMAT: Format =
                Format { name: $format, what: $what, right: $right, accepts: |text| Self::parse(text).is_some() };
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| de::Error::custom(format!("{} is not {}", quoted(&text), $what)))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "pattern": $pattern })
            }
        }
    };
}

text! {
    /// A DNS label.
    Name(String), "name", "a name", "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
    "write at most 63 lower-case letters, digits and dashes, such as `worker-1`"
}
text! {
    /// A span of time.
    Duration(std::time::Duration), "duration-text", "a duration", "^([0-9]+(\\.[0-9]+)? ?(h|m|s|ms|us) ?)+$",
    "write a number and its unit, such as `400ms`, `5s` or `1m 30s`, up to 24 hours"
}
text! {
    /// A span of time that may be days.
    LongDuration(std::time::Duration), "long-duration", "a duration", "^([0-9]+(\\.[0-9]+)? ?(d|h|m|s|ms|us) ?)+$",
    "write a number and its unit, such as `600ms`, `1h` or `60d`"
}
text! {
    /// An IP address.
    Address(IpAddr), "address", "an IP address", "^[0-9a-fA-F.:]+$",
    "write an address such as `10.176.46.4`"
}
text! {
    /// An IP address and a port.
    ServerAddress(SocketAddr), "server-address", "an address and port", "^[0-9a-fA-F.:\\[\\]]+:[0-9]+$",
    "write an address and a port, such as `10.176.46.4:3306`"
}
text! {
    /// An IPv4 prefix. Rules of a cluster support only IPv4.
    Prefix(IpPrefix), "prefix", "an IPv4 prefix", "^[0-9.]+/[0-9]+$",
    "write a network and its length, such as `10.176.96.0/20`, with no bits set beyond it"
}
text! {
    /// A fraction above 0 and up to 1, exact.
    Fraction((u32, u32)), "fraction", "a fraction", "^[0-9]+/[0-9]+$",
    "write two whole numbers, the first no larger than the second, such as `1/128`"
}
text! {
    /// Ports, both ends included.
    PortRange(RangeInclusive<u16>), "port-range", "a range of ports", "^[0-9]+-[0-9]+$",
    "write the first and the last port, such as `46990-46999`"
}
text! {
    /// A share, in parts per million.
    Percent(u32), "percent", "a percentage", "^[0-9]+(\\.[0-9]{1,4})?%$",
    "write a number up to 100 with at most four decimals and a percent sign, such as `5%` or `0.1%`"
}
text! {
    /// Bits per second.
    Rate(u64), "rate", "a rate", "^[0-9]+(\\.[0-9]+)?(k|M|G)?bit$",
    "write a number above 0 and its unit, such as `100Mbit` (a second), `512kbit` or `1Gbit`"
}
text! {
    /// What a finding is about.
    Subject(finding::Subject), "subject", "a subject", "^(node|pod|service|path|flow|name|server)/.+$",
    "write node/NAME, pod/NAME, service/NAME, path/PREFIX, name/DOMAIN, server/ADDRESS:PORT or flow/FLOW"
}
text! {
    /// A day of the calendar.
    Day(Date), "day", "a day", "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "write year, month and day, such as `2027-03-01`"
}

text! {
    /// How an attempt fails.
    FailureText(Failure), "failure", "a failure", "^(any|timeout|refused|name-error|http-[45][0-9]{2})$",
    "one of: any, timeout, refused, name-error, or a status such as `http-502`"
}

impl Default for FailureText {
    fn default() -> Self {
        Self(Failure::Any)
    }
}

impl FailureText {
    fn parse(text: &str) -> Option<Self> {
        Failure::parse(text).map(Self)
    }
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let bytes = text.as_bytes();
        (bytes.len() <= 63 && bytes.iter().copied().all(good) && edge(bytes.first()) && edge(bytes.last()))
            .then(|| Self(text.to_owned()))
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Duration {
    /// `None` if it is not one, or longer than a day.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const UNITS: [&str; 5] = ["h", "m", "s", "ms", "us"];
        let number = |c: char| c.is_ascii_digit() || c == '.' || c == ' ';
        if !text.split(number).all(|unit| unit.is_empty() || UNITS.contains(&unit)) {
            return None;
        }
        let duration = jiff::fmt::friendly::SpanParser::new().parse_unsigned_duration(text).ok()?;
        (duration <= std::time::Duration::from_secs(24 * 3600)).then_some(Self(duration))
    }
}

impl LongDuration {
    /// Days, then what a [`Duration`] may be.
    fn parse(text: &str) -> Option<Self> {
        const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
        let (days, rest) = match text.split_once('d') {
            Some((days, rest)) => (days.trim_end().parse::<u32>().ok()?, rest.trim_start()),
            None => (0, text),
        };
        let rest = if rest.is_empty() && days > 0 { std::time::Duration::ZERO } else { Duration::parse(rest)?.0 };
        (days <= 3650).then(|| Self(DAY * days + rest))
    }
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl ServerAddress {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).map(Self)
    }
}

impl Prefix {
    fn parse(text: &str) -> Option<Self> {
        let prefix: IpPrefix = text.parse().ok()?;
        let address: IpAddr = text.split_once('/')?.0.parse().ok()?;
        (prefix.address() == address && address.is_ipv4()).then_some(Self(prefix))
    }
}

impl Fraction {
    fn parse(text: &str) -> Option<Self> {
        let (over, under) = text.split_once('/')?;
        let (over, under) = (number(over)?, number(under)?);
        (over > 0 && over <= under).then_some(Self((over, under)))
    }
}

impl PortRange {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let port = |text| number::<u16>(text).filter(|port| *port > 0);
        let (first, last) = (port(first)?, port(last)?);
        (first <= last).then_some(Self(first..=last))
    }
}

impl Percent {
    fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = decimal(text.strip_suffix('%')?)?;
        let padded = number::<u64>(&format!("{decimals:0<4}")).filter(|_| decimals.len() <= 4)?;
        let millionths = whole.checked_mul(10_000)?.checked_add(padded)?;
        (millionths <= 1_000_000).then(|| u32::try_from(millionths).ok().map(Self)).flatten()
    }
}

impl Rate {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix("bit")?;
        let units = [("k", 3), ("M", 6), ("G", 9)];
        let with_unit = units.iter().find_map(|(unit, zeros)| Some((text.strip_suffix(unit)?, *zeros)));
        let (text, zeros) = with_unit.unwrap_or((text, 0));
        let (whole, decimals) = decimal(text)?;
        let part = number::<u64>(&format!("{decimals:0<zeros$}")).filter(|_| decimals.len() <= zeros);
        let part = if decimals.is_empty() { 0 } else { part? };
        let bits = whole.checked_mul(10_u64.pow(u32::try_from(zeros).ok()?))?.checked_add(part)?;
        (bits > 0).then_some(Self(bits))
    }
}

impl Subject {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl Day {
    fn parse(text: &str) -> Option<Self> {
        // Ten characters: otherwise a time of day after the date would be dropped silently.
        text.parse().ok().filter(|_| text.len() == 10).map(Self)
    }
}

/// The number before the decimal point, and the digits after it.
fn decimal(text: &str) -> Option<(u64, &str)> {
    match text.split_once('.') {
        Some((whole, decimals)) => {
            let digits = !decimals.is_empty() && decimals.bytes().all(|b| b.is_ascii_digit());
            Some((number(whole)?, decimals)).filter(|_| digits)
        }
        None => Some((number(text)?, "")),
    }
}

/// Only digits: no sign, no space.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let parse = |text| Duration::parse(text).map(|d| d.0.as_micros());
        assert_eq!(parse("5s"), Some(5_000_000));
        assert_eq!(parse("400ms"), Some(400_000));
        assert_eq!(parse("1m 30s"), Some(90_000_000));
        assert_eq!(parse("0s"), Some(0));
        for wrong in ["", "5", "-5s", "5 seconds", "PT5S", "1d", "s", "5s ago", "99999999h", "5.s.s"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn percentages_and_rates() {
        let percent = |text| Percent::parse(text).map(|percent| percent.0);
        assert_eq!([percent("5%"), percent("0.1%"), percent("0.0001%")], [Some(50_000), Some(1_000), Some(1)]);
        assert_eq!([percent("100%"), percent("0%")], [Some(1_000_000), Some(0)]);
        for wrong in ["5", "101%", "100.1%", "-1%", "1.%", ".5%", "0.00001%", "5 %", "%", "99999999999999999999%"] {
            assert_eq!(percent(wrong), None, "{wrong}");
        }
        let rate = |text| Rate::parse(text).map(|rate| rate.0);
        assert_eq!(
            [rate("100Mbit"), rate("512kbit"), rate("9600bit")],
            [Some(100_000_000), Some(512_000), Some(9_600)]
        );
        assert_eq!([rate("1.5Gbit"), rate("0.064kbit")], [Some(1_500_000_000), Some(64)]);
        for wrong in ["100", "0Mbit", "0.5bit", "Mbit", "1.Mbit", "1 Mbit", "1mbit", "-1kbit", "99999999999Gbit"] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_fractions_ranges_prefixes() {
        assert!(Name::parse("worker-1").is_some());
        assert!(["", "-a", "a-", "A", "a.b", "a/b"].into_iter().all(|n| Name::parse(n).is_none()));
        assert_eq!(Fraction::parse("1/128"), Some(Fraction((1, 128))));
        assert!(["1/0", "0/1", "2/1", "+1/2", "1", "1/2/3"].into_iter().all(|f| Fraction::parse(f).is_none()));
        assert_eq!(PortRange::parse("46990-46999"), Some(PortRange(46990..=46999)));
        assert!(["0-5", "9-8", "1", "1-70000"].into_iter().all(|p| PortRange::parse(p).is_none()));
        assert!(Prefix::parse("10.176.96.0/20").is_some());
        assert!(
            ["10.176.98.29/20", "10.0.0.0/33", "10.0.0.0", "fd00::/16"].into_iter().all(|p| Prefix::parse(p).is_none())
        );
    }
}
