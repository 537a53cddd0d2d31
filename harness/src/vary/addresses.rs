//! Every IPv4 address and prefix of a scenario, moved so that they keep their relations.
//!
//! Addresses that share their first 16 bits do so afterwards, and keep their last 12 bits; so prefixes of 20 bits and
//! more stay prefixes, and a host has the same number in its subnet. Prefixes of less than 16 bits do not move, and what
//! they contain moves within them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use fastrand::Rng;

use super::tree::Tree;

/// Ranges for private use (RFC 1918), for carriers (RFC 6598) and for benchmarks (RFC 2544).
const RANGES: [(u8, u8, u8); 4] = [(10, 0, 255), (172, 16, 31), (100, 64, 127), (198, 18, 19)];

/// Where the first 16 bits go, and what the 4 bits after them are combined with.
type Moves = BTreeMap<[u8; 2], ([u8; 2], u8)>;

/// A prefix of less than 16 bits. It stays where it is, and what is inside stays inside.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wide {
    bits: u16,
    length: u8,
}

impl Wide {
    fn host_bits(&self) -> u16 {
        u16::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }

    fn contains(&self, half: [u8; 2]) -> bool {
        (u16::from_be_bytes(half) ^ self.bits) & !self.host_bits() == 0
    }

    fn draw(&self, rng: &mut Rng) -> [u8; 2] {
        (self.bits & !self.host_bits() | rng.u16(..) & self.host_bits()).to_be_bytes()
    }
}

pub fn draw(tree: &mut Tree, rng: &mut Rng) -> String {
    let mut halves: BTreeSet<[u8; 2]> = BTreeSet::new();
    let mut wide: BTreeSet<Wide> = BTreeSet::new();
    let mut collect = |text: &str| {
        replaced(text, &mut |address, length| {
            let [a, b, ..] = address.octets();
            if length < 16 {
                wide.insert(Wide { bits: u16::from_be_bytes([a, b]), length });
            } else {
                halves.insert([a, b]);
            }
            address
        });
    };
    tree.scalars("", &mut |_, scalar| collect(&scalar.text));
    tree.keys_mut(&mut |key| collect(key));
    let mut moves = Moves::new();
    for half in halves {
        let within = |half: [u8; 2]| wide.iter().filter(move |wide| wide.contains(half));
        let home = within(half).max_by_key(|wide| wide.length);
        let to = loop {
            let to = match home {
                Some(home) => home.draw(rng),
                None => {
                    let (a, first, last) = RANGES[rng.usize(..RANGES.len())];
                    [a, rng.u8(first..=last)]
                }
            };
            let related = within(half).eq(within(to));
            if related && moves.values().all(|(taken, _)| *taken != to) {
                break to;
            }
        };
        moves.insert(half, (to, rng.u8(..16) << 4));
    }
    let mut go = |address: Ipv4Addr, length: u8| {
        if length < 16 {
            return address;
        }
        let [a, b, c, d] = address.octets();
        let ([a, b], bits) = moves.get(&[a, b]).copied().unwrap_or(([a, b], 0));
        let moved = u32::from(Ipv4Addr::new(a, b, c ^ bits, d));
        Ipv4Addr::from(moved & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0))
    };
    tree.scalars_mut("", &mut |_, scalar| scalar.text = replaced(&scalar.text, &mut go));
    tree.keys_mut(&mut |key| *key = replaced(key, &mut go));
    let moves = moves.iter().map(|([a, b], ([c, d], bits))| format!("{a}.{b}.* to {c}.{d}.* ({bits})"));
    format!("Addresses: {}.", super::listed(moves))
}

/// The text with each IPv4 address in it replaced; `/LENGTH` behind one makes it a prefix.
fn replaced(text: &str, with: &mut dyn FnMut(Ipv4Addr, u8) -> Ipv4Addr) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        done.push_str(before);
        // A full stop may follow in a sentence.
        let address = word.trim_end_matches('.');
        let joined = before.chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '-');
        match address.parse::<Ipv4Addr>() {
            Ok(parsed) if !joined => {
                let digits = after.strip_prefix('/').map(|rest| rest.chars().take_while(char::is_ascii_digit));
                let length = digits.and_then(|digits| digits.collect::<String>().parse().ok()).unwrap_or(32);
                done.push_str(&with(parsed, length).to_string());
                done.push_str(&word[address.len()..]);
            }
            _ => done.push_str(word),
        }
        rest = after;
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_any_text() {
        let mut up = |address: Ipv4Addr, length| {
            if length == 32 { Ipv4Addr::from(u32::from(address) + 1) } else { [9, 9, 0, 0].into() }
        };
        for (text, moved) in [
            ("10.0.0.1", "10.0.0.2"),
            ("server/10.0.0.1:53", "server/10.0.0.2:53"),
            ("path/10.0.0.0/24", "path/9.9.0.0/24"),
            ("at 10.0.0.1, or 10.0.0.5.", "at 10.0.0.2, or 10.0.0.6."),
            ("1/128", "1/128"),
            ("46950-47009", "46950-47009"),
            ("oss.example.com", "oss.example.com"),
            ("0.7", "0.7"),
        ] {
            assert_eq!(replaced(text, &mut up), moved);
        }
    }

    #[test]
    fn related_addresses_stay_related() {
        let list = |items: &[&str]| Tree::List(items.iter().map(|item| Tree::string(*item)).collect());
        for seed in 0..200 {
            let mut tree =
                list(&["10.176.96.0/20", "10.176.98.29", "10.176.0.0/16", "10.176.64.0/20", "192.168.40.0/24"]);
            draw(&mut tree, &mut Rng::with_seed(seed));
            let text = |place: usize| tree.items()[place].text().unwrap_or_default().to_owned();
            let prefix = |place: usize| text(place).parse::<relapse_detectors::prefix::Prefix>().unwrap();
            assert!(prefix(0).contains(text(1).parse().unwrap()), "{tree:?}");
            assert!(prefix(2).contains(prefix(0).address()) && prefix(2).contains(prefix(3).address()), "{tree:?}");
            assert!(!prefix(0).overlaps(&prefix(3)) && !prefix(4).overlaps(&prefix(2)), "{tree:?}");
            let mut tree = list(&["10.0.0.0/8", "10.176.98.29", "192.168.40.0/24"]);
            draw(&mut tree, &mut Rng::with_seed(seed));
            let text = |place: usize| tree.items()[place].text().unwrap_or_default();
            assert!(text(0) == "10.0.0.0/8" && text(1).starts_with("10.") && !text(2).starts_with("10."), "{tree:?}");
        }
    }
}
