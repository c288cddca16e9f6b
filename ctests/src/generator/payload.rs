//! What the strings of a payload come to, in the words of the record.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::words::quote;

/// Whether a command means nothing without payload.
pub(super) fn is_needed(letter: u8) -> bool {
    b"ODCHMRLBU".contains(&letter)
}

/// The octets before the first NUL, or all.
pub(super) fn string(payload: &[u8]) -> &[u8] {
    payload.split(|octet| *octet == 0).next().unwrap_or_default()
}

/// The arguments of MAIL and RCPT; octets after the last NUL do not count.
pub(super) fn strings(payload: &[u8]) -> Option<String> {
    let end = payload.iter().rposition(|octet| *octet == 0)?;
    Some(payload[..end].split(|octet| *octet == 0).map(|string| format!(" {}", quote(string))).collect())
}

/// Name and value of a header, with an empty name as the reference takes it apart (defect 13).
pub(super) fn header(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let last = payload.len() - 1;
    if payload[last] != 0 {
        return None;
    }
    let separator = 1 + payload.get(1..)?.iter().position(|octet| *octet == 0)?;
    (separator < last).then(|| (string(payload), string(&payload[separator + 1..])))
}

/// Host and address of a client.
pub(super) fn client(payload: &[u8]) -> Option<String> {
    let end = payload.iter().position(|octet| *octet == 0)?;
    let host = quote(&payload[..end]);
    let (&family, rest) = payload[end + 1..].split_first()?;
    if family == b'U' {
        return Some(format!(" {host} NULL"));
    }
    let (port, text) = rest.split_first_chunk()?;
    if text.last() != Some(&0) {
        return None;
    }
    let (port, text) = (u16::from_be_bytes(*port), string(text));
    let address = match family {
        b'4' => format!("inet {port} {}", inet(text)?),
        b'6' => format!("inet6 {port} {}", shown_inet6(inet6(text)?)),
        b'L' if text.len() < 108 => format!("unix {}", quote(text)),
        _ => return None,
    };
    Some(format!(" {host} {address}"))
}

/// An IPv4 address as inet_aton(3) reads it: one to four numbers, each decimal, octal or hexadecimal, the last of which
/// fills the rest; a blank ends the text.
fn inet(text: &[u8]) -> Option<Ipv4Addr> {
    let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t'..=b'\r');
    let text = std::str::from_utf8(text.split(is_blank).next()?).ok()?;
    let numbers: Vec<&str> = text.split('.').collect();
    let mut address = 0u32;
    for (at, number) in numbers.iter().enumerate() {
        let value = number_of_any_base(number)?;
        let largest = match (at + 1 == numbers.len(), at) {
            (true, 0..=3) => u32::MAX >> (8 * at),
            (false, 0..=2) => 0xff,
            _ => return None,
        };
        if value > largest {
            return None;
        }
        address |= if at + 1 == numbers.len() { value } else { value << (24 - 8 * at) };
    }
    Some(address.into())
}

fn number_of_any_base(text: &str) -> Option<u32> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, base) = match hexadecimal {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    digits.chars().all(|c| c.is_digit(base)).then(|| u32::from_str_radix(digits, base).ok())?
}

fn inet6(text: &[u8]) -> Option<Ipv6Addr> {
    let text = std::str::from_utf8(text).ok()?;
    let prefixed = text.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("IPv6:"));
    text[if prefixed { 5 } else { 0 }..].parse().ok()
}

/// As inet_ntop(3) writes it: with an IPv4 part behind ninety-six zero bits.
fn shown_inet6(address: Ipv6Addr) -> String {
    let segments = address.segments();
    let [a, b, c, d] = [segments[6] >> 8, segments[6] & 0xff, segments[7] >> 8, segments[7] & 0xff];
    if segments[..6] == [0; 6] && segments[6] != 0 { format!("::{a}.{b}.{c}.{d}") } else { address.to_string() }
}

/// The macros of a session: seven sets, in the order in which the steps of a session clear them.
#[derive(Default)]
pub(super) struct Macros {
    sets: [Vec<Vec<u8>>; 7],
}

/// What looking a macro up comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Value(Vec<u8>),
    Nothing,
    /// A name at the end of a set without a value: the null pointer in the reference, skipped by ours.
    NameAlone,
    /// A set with such a name was searched in vain: the reference goes on reading behind it.
    BeyondEnd,
}

impl Macros {
    pub(super) fn store(&mut self, payload: &[u8]) {
        let Some(set) = b"CHMRTNE".iter().position(|letter| *letter == payload[0]) else { return };
        let Some(end) = payload[1..].iter().rposition(|octet| *octet == 0) else { return };
        self.sets[set] = payload[1..=end].split(|octet| *octet == 0).map(<[u8]>::to_vec).collect();
    }

    pub(super) fn clear_from(&mut self, set: usize) {
        self.sets[set..].iter_mut().for_each(Vec::clear);
    }

    /// Looks in the latest set first. `lenient` passes over names without a value.
    pub(super) fn find(&self, name: &[u8], lenient: bool) -> Found {
        for set in self.sets.iter().rev() {
            for pair in set.chunks(2) {
                let same = is_same(&pair[0], name);
                match pair {
                    [_, value] if same => return Found::Value(value.clone()),
                    [_] if lenient => {}
                    [_] if same => return Found::NameAlone,
                    [_] => return Found::BeyondEnd,
                    _ => {}
                }
            }
        }
        Found::Nothing
    }
}

fn is_same(known: &[u8], asked: &[u8]) -> bool {
    let bare = |name: &[u8]| match name {
        [letter] | [b'{', letter, b'}'] => Some(*letter),
        _ => None,
    };
    known == asked || (bare(known).is_some() && bare(known) == bare(asked))
}
