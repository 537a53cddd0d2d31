//! IP and TCP numbers: wrapping serial numbers, header sizes.

use std::net::IpAddr;

/// Bytes of the timestamps option in every segment of a connection that uses it (RFC 7323 3.2, padded).
pub(crate) const TIMESTAMPS: u32 = 12;

/// Whether serial number `a` lies after `b`, modulo 2^32 (RFC 9293 3.4, RFC 7323 5.2).
pub(crate) const fn after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// Bytes of IP and TCP headers without options.
pub(crate) const fn headers(peer: IpAddr) -> u32 {
    match peer {
        IpAddr::V4(_) => 40,
        IpAddr::V6(_) => 60,
    }
}

/// The packet size that every path must carry (RFC 791 3.2, RFC 8200 5).
pub(crate) const fn always_fits(peer: IpAddr) -> u32 {
    match peer {
        IpAddr::V4(_) => 576,
        IpAddr::V6(_) => 1280,
    }
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn serial_numbers_wrap() {
        assert!(after(1, 0));
        assert!(!after(0, 0));
        assert!(!after(0, 1));
        assert!(after(5, u32::MAX - 5));
        assert!(!after(u32::MAX - 5, 5));
    }
}
