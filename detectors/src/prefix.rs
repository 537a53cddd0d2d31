//! An IP prefix in CIDR notation, v4 or v6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network prefix. Host bits are always zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text does not parse as a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("{0:?} is not a prefix in CIDR notation, such as 10.176.96.0/20")]
    Syntax(String),
    #[error("prefix length {length} is longer than an address of {max} bits")]
    Length { length: u8, max: u8 },
}

impl Prefix {
    /// The prefix of `length` bits that contains `address`; host bits are cleared.
    ///
    /// # Errors
    /// When `length` exceeds the address family's width.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let max = width(address);
        if length > max {
            return Err(PrefixError::Length { length, max });
        }
        Ok(Self { address: mask(address, length), length })
    }

    /// The prefix of a single address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: width(address) }
    }

    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && mask(address, self.length) == self.address
    }

    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The other prefix of the same length in the prefix that is one bit shorter; itself if its length is 0.
    #[must_use]
    pub fn neighbour(&self) -> Self {
        let last = u32::from(width(self.address) - self.length);
        let address = match self.address {
            IpAddr::V4(a) => IpAddr::V4((u32::from(a) ^ 1_u32.checked_shl(last).unwrap_or(0)).into()),
            IpAddr::V6(a) => IpAddr::V6((u128::from(a) ^ 1_u128.checked_shl(last).unwrap_or(0)).into()),
        };
        Self { address, ..*self }
    }

    /// The `index`th address of the prefix, counted from its network address; `None` past its end.
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let bits = u32::from(width(self.address) - self.length);
        if bits < 128 && index >> bits != 0 {
            return None;
        }
        Some(match self.address {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base) + u32::try_from(index).ok()?)),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base) + index)),
        })
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask))
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || PrefixError::Syntax(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(syntax)?;
        Self::new(address.parse().map_err(|_| syntax())?, length.parse().map_err(|_| syntax())?)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cleared_and_edges_hold() {
        let p: Prefix = "10.176.98.29/20".parse().unwrap();
        assert_eq!(p.to_string(), "10.176.96.0/20");
        assert!(p.contains("10.176.111.255".parse().unwrap()));
        assert!(!p.contains("10.176.112.0".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<Prefix>().is_err());
        assert!("10.0.0.0".parse::<Prefix>().is_err());
    }

    #[test]
    fn nth_stays_inside() {
        let p: Prefix = "10.176.98.0/24".parse().unwrap();
        assert_eq!(p.nth(29), Some("10.176.98.29".parse().unwrap()));
        assert_eq!(p.nth(256), None);
    }
}
