//! What the MTA says: letters, payloads, both directions of the codec.

use std::ffi::CStr;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{Buf, BufMut};

use crate::callback::ClientAddress;
use crate::flags::{Actions, Callbacks, Steps};
use crate::frame;
use crate::state::State;

/// What the protocol says about a command.
struct Traits {
    code: CommandCode,
    letter: u8,
    name: &'static str,
    state: Option<State>,
    callback: Callbacks,
    left_out: Steps,
    no_reply: Steps,
    needs_payload: bool,
    expects_reply: bool,
}

/// Defines the commands and, in the same order, what the protocol says about them.
macro_rules! commands {
    ($($code:ident: $letter:literal, $name:literal, $state:expr, $callback:expr, $left_out:expr, $no_reply:expr,
       $needs_payload:literal, $expects_reply:literal;)*) => {
        /// The commands, sent under letters (`SMFIC_*`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CommandCode {
            $(#[doc = concat!("`SMFIC_", $name, "`")] $code,)*
        }

        /// In the order of [`CommandCode`].
        const TRAITS: &[Traits] = &[$(Traits {
            code: CommandCode::$code,
            letter: $letter,
            name: $name,
            state: $state,
            callback: $callback,
            left_out: $left_out,
            no_reply: $no_reply,
            needs_payload: $needs_payload,
            expects_reply: $expects_reply,
        }),*];
    };
}

const NONE: Steps = Steps::empty();

// Letter, name, state it leads to; callback it is for; the step under which the MTA leaves it out, the step under which
// the filter does not answer it; whether it needs a payload, whether the MTA waits for a reply.
commands! {
    Negotiate: b'O', "OPTNEG", Some(State::Negotiated), Callbacks::NEGOTIATE, NONE, NONE, true, true;
    Macro: b'D', "MACRO", None, Callbacks::empty(), NONE, NONE, true, false;
    Connect: b'C', "CONNECT", Some(State::Connect), Callbacks::CONNECT, Steps::NO_CONNECT, Steps::NR_CONNECT, true, true;
    Helo: b'H', "HELO", Some(State::Helo), Callbacks::HELO, Steps::NO_HELO, Steps::NR_HELO, true, true;
    Mail: b'M', "MAIL", Some(State::Mail), Callbacks::ENVFROM, Steps::NO_MAIL, Steps::NR_MAIL, true, true;
    Rcpt: b'R', "RCPT", Some(State::Rcpt), Callbacks::ENVRCPT, Steps::NO_RCPT, Steps::NR_RCPT, true, true;
    Data: b'T', "DATA", Some(State::Data), Callbacks::DATA, Steps::NO_DATA, Steps::NR_DATA, false, true;
    Header: b'L', "HEADER", Some(State::Header), Callbacks::HEADER, Steps::NO_HEADERS, Steps::NR_HEADER, true, true;
    EndOfHeaders: b'N', "EOH", Some(State::Eoh), Callbacks::EOH, Steps::NO_EOH, Steps::NR_EOH, false, true;
    Body: b'B', "BODY", Some(State::Body), Callbacks::BODY, Steps::NO_BODY, Steps::NR_BODY, true, true;
    EndOfBody: b'E', "BODYEOB", Some(State::Eom), Callbacks::EOM, NONE, NONE, false, true;
    Abort: b'A', "ABORT", Some(State::Abort), Callbacks::ABORT, NONE, NONE, false, false;
    Quit: b'Q', "QUIT", Some(State::Quit), Callbacks::CLOSE, NONE, NONE, false, false;
    QuitNewConnection: b'K', "QUIT_NC", Some(State::QuitNewConnection), Callbacks::CLOSE, NONE, NONE, false, false;
    Unknown: b'U', "UNKNOWN", Some(State::Unknown), Callbacks::UNKNOWN, Steps::NO_UNKNOWN, Steps::NR_UNKNOWN, true, true;
}

impl CommandCode {
    /// Every command.
    pub fn all() -> impl Iterator<Item = CommandCode> {
        TRAITS.iter().map(|traits| traits.code)
    }

    /// The command behind a letter.
    pub fn from_letter(letter: u8) -> Option<Self> {
        TRAITS.iter().find(|traits| traits.letter == letter).map(|traits| traits.code)
    }

    fn traits(self) -> &'static Traits {
        &TRAITS[self as usize]
    }

    /// The letter of a command.
    pub fn letter(self) -> u8 {
        self.traits().letter
    }

    /// The callback a command is for; MACRO has none.
    pub fn callback(self) -> Callbacks {
        self.traits().callback
    }

    /// Whether the command is part of a message.
    pub fn is_of_message(self) -> bool {
        (CommandCode::Mail as u8..=CommandCode::EndOfBody as u8).contains(&(self as u8))
    }

    /// Whether the command means nothing without a payload.
    pub fn needs_payload(self) -> bool {
        self.traits().needs_payload
    }

    /// Whether the MTA waits for a reply, unless the filter negotiated not to send one.
    pub fn expects_reply(self) -> bool {
        self.traits().expects_reply
    }

    /// The negotiated step that keeps the MTA from sending this command; empty when there is none.
    pub fn left_out_step(self) -> Steps {
        self.traits().left_out
    }

    /// The negotiated step that keeps the filter from answering this command; empty when there is none.
    pub fn no_reply_step(self) -> Steps {
        self.traits().no_reply
    }
}

impl State {
    /// The state a command leads to, by whose number log and debug lines name it; MACRO leads nowhere.
    pub fn after(command: CommandCode) -> Option<State> {
        command.traits().state
    }
}

impl fmt::Display for CommandCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.traits().name)
    }
}

/// A command with its payload, as an MTA sends it. Strings are given without their NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Offer a protocol version, actions and steps.
    Negotiate {
        /// Highest protocol version the MTA speaks.
        version: u32,
        /// Actions on offer.
        actions: Actions,
        /// Steps on offer.
        steps: Steps,
    },
    /// Macros for the command that follows.
    Macro {
        /// Letter of that command.
        letter: u8,
        /// Names and values.
        pairs: Vec<(&'a [u8], &'a [u8])>,
    },
    /// A client has connected.
    Connect {
        /// Its name.
        host: &'a [u8],
        /// Its address, if known.
        address: Option<ClientAddress<'a>>,
    },
    /// HELO or EHLO.
    Helo(&'a [u8]),
    /// MAIL: the address, then ESMTP arguments.
    Mail(Vec<&'a [u8]>),
    /// RCPT: the address, then ESMTP arguments.
    Rcpt(Vec<&'a [u8]>),
    /// DATA.
    Data,
    /// One header.
    Header {
        /// Name without colon.
        name: &'a [u8],
        /// Value.
        value: &'a [u8],
    },
    /// End of headers.
    EndOfHeaders,
    /// A piece of the body.
    Body(&'a [u8]),
    /// End of the message, possibly with a last piece of the body.
    EndOfBody(&'a [u8]),
    /// Give the message up.
    Abort,
    /// End the session.
    Quit,
    /// End the session; another one follows on the same connection.
    QuitNewConnection,
    /// An SMTP command that the MTA does not know.
    Unknown(&'a [u8]),
}

impl Command<'_> {
    /// The letter this command is sent under.
    pub fn code(&self) -> CommandCode {
        match self {
            Command::Negotiate { .. } => CommandCode::Negotiate,
            Command::Macro { .. } => CommandCode::Macro,
            Command::Connect { .. } => CommandCode::Connect,
            Command::Helo(_) => CommandCode::Helo,
            Command::Mail(_) => CommandCode::Mail,
            Command::Rcpt(_) => CommandCode::Rcpt,
            Command::Data => CommandCode::Data,
            Command::Header { .. } => CommandCode::Header,
            Command::EndOfHeaders => CommandCode::EndOfHeaders,
            Command::Body(_) => CommandCode::Body,
            Command::EndOfBody(_) => CommandCode::EndOfBody,
            Command::Abort => CommandCode::Abort,
            Command::Quit => CommandCode::Quit,
            Command::QuitNewConnection => CommandCode::QuitNewConnection,
            Command::Unknown(_) => CommandCode::Unknown,
        }
    }

    /// Appends the command as one frame; the text of an IPv6 address goes without prefix, as Postfix sends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_with_prefix(b"", out);
    }

    /// Appends the command as one frame; the text of an IPv6 address gets the prefix that Sendmail gives it.
    pub fn encode_for_sendmail(&self, out: &mut Vec<u8>) {
        self.encode_with_prefix(INET6_PREFIX, out);
    }

    fn encode_with_prefix(&self, inet6_prefix: &[u8], out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        match self {
            Command::Negotiate { version, actions, steps } => {
                payload.put_u32(*version);
                payload.put_u32(actions.bits());
                payload.put_u32(steps.bits());
            }
            Command::Macro { letter, pairs } => {
                payload.put_u8(*letter);
                pairs.iter().for_each(|(name, value)| {
                    put_string(&mut payload, name);
                    put_string(&mut payload, value);
                });
            }
            Command::Connect { host, address } => {
                put_string(&mut payload, host);
                put_address(&mut payload, address.as_ref(), inet6_prefix);
            }
            Command::Mail(arguments) | Command::Rcpt(arguments) => {
                arguments.iter().for_each(|argument| put_string(&mut payload, argument));
            }
            Command::Header { name, value } => {
                put_string(&mut payload, name);
                put_string(&mut payload, value);
            }
            Command::Helo(text) | Command::Unknown(text) => put_string(&mut payload, text),
            Command::Body(octets) | Command::EndOfBody(octets) => payload.put_slice(octets),
            Command::Data | Command::EndOfHeaders | Command::Abort | Command::Quit | Command::QuitNewConnection => {}
        }
        frame::put(out, self.code().letter(), &[&payload]);
    }
}

fn put_string(payload: &mut Vec<u8>, text: &[u8]) {
    payload.put_slice(text);
    payload.put_u8(0);
}

fn put_address(payload: &mut Vec<u8>, address: Option<&ClientAddress<'_>>, inet6_prefix: &[u8]) {
    let (family, port, text) = match address {
        None => return payload.put_u8(b'U'),
        Some(ClientAddress::Inet { address, port }) => (b'4', *port, address.to_string().into_bytes()),
        Some(ClientAddress::Inet6 { address, port }) => {
            (b'6', *port, [inet6_prefix, address.to_string().as_bytes()].concat())
        }
        Some(ClientAddress::Unix { path }) => (b'L', 0, path.to_vec()),
    };
    payload.put_u8(family);
    payload.put_u16(port);
    put_string(payload, &text);
}

/// Why the payload of a command cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// A string without its NUL, or a missing string.
    Unterminated,
    /// A header without a name.
    EmptyHeaderName,
    /// CONNECT: nothing behind the port. Holds the octets that follow the family.
    ShortAddress(usize),
    /// CONNECT: text that is no IPv4 address.
    BadInet,
    /// CONNECT: text that is no IPv6 address.
    BadInet6,
    /// CONNECT: a path that does not fit an address. Holds its length.
    LongPath(usize),
    /// CONNECT: an address family without a meaning.
    UnknownFamily(u8),
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PayloadError::Unterminated => f.write_str("a string without its NUL"),
            PayloadError::EmptyHeaderName => f.write_str("a header without a name"),
            PayloadError::ShortAddress(len) => write!(f, "wrong length {len} of the address"),
            PayloadError::BadInet => f.write_str("not an IPv4 address"),
            PayloadError::BadInet6 => f.write_str("not an IPv6 address"),
            PayloadError::LongPath(len) => write!(f, "path of {len} octets is too long"),
            PayloadError::UnknownFamily(family) => write!(f, "unknown family {family}"),
        }
    }
}

/// Where the first NUL is.
pub(crate) fn find_nul(octets: &[u8]) -> Option<usize> {
    // Looks at a word at a time.
    CStr::from_bytes_until_nul(octets).ok().map(CStr::count_bytes)
}

/// A string at the start of a payload, with its NUL. What follows the NUL is ignored.
pub(crate) fn string(payload: &mut [u8]) -> Result<&mut [u8], PayloadError> {
    match find_nul(payload) {
        Some(nul) if payload.last() == Some(&0) => Ok(&mut payload[..=nul]),
        _ => Err(PayloadError::Unterminated),
    }
}

/// Name and value of a HEADER payload, each with its NUL. A third string is ignored.
pub(crate) fn header(payload: &mut [u8]) -> Result<(&mut [u8], &mut [u8]), PayloadError> {
    let nul = find_nul(payload).ok_or(PayloadError::Unterminated)?;
    if nul == 0 {
        return Err(PayloadError::EmptyHeaderName);
    }
    let (name, rest) = payload.split_at_mut(nul + 1);
    Ok((name, string(rest)?))
}

/// Host name, with its NUL, and address of a CONNECT payload.
pub(crate) fn connect(payload: &mut [u8]) -> Result<(&mut [u8], Option<ClientAddress<'_>>), PayloadError> {
    let nul = find_nul(payload).ok_or(PayloadError::Unterminated)?;
    let (host, rest) = payload.split_at_mut(nul + 1);
    let (&mut family, rest) = rest.split_first_mut().ok_or(PayloadError::Unterminated)?;
    if family == b'U' {
        return Ok((host, None));
    }
    if rest.len() <= 2 {
        return Err(PayloadError::ShortAddress(rest.len()));
    }
    let mut rest: &[u8] = rest;
    let port = rest.get_u16();
    let text = match find_nul(rest) {
        Some(nul) if rest.last() == Some(&0) => &rest[..nul],
        _ => return Err(PayloadError::Unterminated),
    };
    let address = match family {
        b'4' => ClientAddress::Inet { address: parse_inet(text).ok_or(PayloadError::BadInet)?, port },
        b'6' => ClientAddress::Inet6 { address: parse_inet6(text).ok_or(PayloadError::BadInet6)?, port },
        b'L' if text.len() > ClientAddress::MAX_PATH => return Err(PayloadError::LongPath(text.len())),
        b'L' => ClientAddress::Unix { path: text },
        other => return Err(PayloadError::UnknownFamily(other)),
    };
    Ok((host, Some(address)))
}

/// Reads an IPv4 address the way `inet_aton(3)` does: one to four parts, each decimal, octal (`0` first) or
/// hexadecimal (`0x` first), the last part filling the octets that remain; white space ends the text.
pub fn parse_inet(text: &[u8]) -> Option<Ipv4Addr> {
    let text = text.split(|octet| matches!(octet, b' ' | b'\t'..=b'\r')).next()?;
    let parts = text.split(|&octet| octet == b'.').map(parse_part).collect::<Option<Vec<u32>>>()?;
    let (&last, heads) = parts.split_last()?;
    if heads.len() > 3 || heads.iter().any(|&part| part > 0xff) {
        return None;
    }
    let tail_bits = 32 - 8 * heads.len() as u32;
    if u64::from(last) >> tail_bits != 0 {
        return None;
    }
    let head = heads.iter().fold(0, |address, part| (address << 8) | u64::from(*part));
    u32::try_from((head << tail_bits) | u64::from(last)).ok().map(Ipv4Addr::from)
}

fn parse_part(part: &[u8]) -> Option<u32> {
    let part = std::str::from_utf8(part).ok()?;
    let (digits, radix) = match part.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&part[2..], 16),
        [b'0', _, ..] => (&part[1..], 8),
        _ => (part, 10),
    };
    // Unlike inet_aton(3), from_str_radix takes a sign.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// What Sendmail writes before the text of an IPv6 address.
const INET6_PREFIX: &[u8] = b"IPv6:";

/// Reads an IPv6 address the way `inet_pton(3)` does, with or without the prefix `IPv6:` that Sendmail writes.
pub fn parse_inet6(text: &[u8]) -> Option<Ipv6Addr> {
    let text = match text.get(..INET6_PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(INET6_PREFIX) => &text[INET6_PREFIX.len()..],
        _ => text,
    };
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_go_both_ways() {
        for code in CommandCode::all() {
            assert_eq!(CommandCode::from_letter(code.letter()), Some(code));
        }
        assert_eq!(CommandCode::from_letter(b'Z'), None);
    }

    #[test]
    fn four_commands_are_not_answered() {
        let unanswered: Vec<CommandCode> = CommandCode::all().filter(|code| !code.expects_reply()).collect();
        let four = [CommandCode::Macro, CommandCode::Abort, CommandCode::Quit, CommandCode::QuitNewConnection];
        assert_eq!(unanswered, four);
    }

    #[test]
    fn inet_is_as_liberal_as_inet_aton() {
        let read = |text: &str| parse_inet(text.as_bytes()).map(|address| address.to_string());
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("127.1", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("1.2.3.4 junk", "1.2.3.4"),
            ("255.255.255.255", "255.255.255.255"),
            ("1.65535", "1.0.255.255"),
        ] {
            assert_eq!(read(text).as_deref(), Some(address), "{text}");
        }
        for text in [
            "",
            "1.2.3.4.5",
            "1.2.3.4.0",
            "1.256.1.1",
            "256.1.1.1",
            "1.2.3.256",
            "1.2.3.",
            "a",
            "08",
            "-1",
            "1.+2",
            "4294967296",
            "1..2",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn inet6_takes_sendmails_prefix() {
        let loopback = Some(Ipv6Addr::LOCALHOST);
        assert_eq!(parse_inet6(b"::1"), loopback);
        assert_eq!(parse_inet6(b"ipv6:::1"), loopback);
        assert_eq!(parse_inet6(b"IPv6:"), None);
        assert_eq!(parse_inet6(b"127.0.0.1"), None);
        assert_eq!(parse_inet6(b"fe80::1"), Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn sendmail_writes_its_prefix_for_inet6_alone() {
        let frame = |address| {
            let mut out = Vec::new();
            Command::Connect { host: b"h", address: Some(address) }.encode_for_sendmail(&mut out);
            out
        };
        let inet6 = ClientAddress::Inet6 { address: "2001:db8::1".parse().unwrap(), port: 258 };
        assert_eq!(frame(inet6), b"\0\0\0\x17Ch\x006\x01\x02IPv6:2001:db8::1\0");
        let inet = ClientAddress::Inet { address: Ipv4Addr::LOCALHOST, port: 25 };
        assert_eq!(frame(inet), b"\0\0\0\x10Ch\x004\0\x19127.0.0.1\0");
    }

    #[test]
    fn headers_need_two_strings_and_a_name() {
        let read = |payload: &[u8]| {
            let mut payload = payload.to_vec();
            header(&mut payload).map(|(name, value)| (name.to_vec(), value.to_vec()))
        };
        assert_eq!(read(b"X\0\0"), Ok((b"X\0".to_vec(), b"\0".to_vec())));
        assert_eq!(read(b"a\0b\0c\0"), Ok((b"a\0".to_vec(), b"b\0".to_vec())));
        assert_eq!(read(b"\0ab\0def\0"), Err(PayloadError::EmptyHeaderName), "defect 13");
        for bad in [&b"abc"[..], b"abc\0", b"abc\0def", b""] {
            assert_eq!(read(bad), Err(PayloadError::Unterminated));
        }
    }

    #[test]
    fn strings_end_with_their_nul_and_the_payload_with_one() {
        assert_eq!(string(&mut b"h\0".to_vec()), Ok(&mut b"h\0".to_vec()[..]));
        assert_eq!(string(&mut b"h\0x\0".to_vec()), Ok(&mut b"h\0".to_vec()[..]));
        for bad in [&b""[..], b"h", b"h\0x"] {
            assert_eq!(string(&mut bad.to_vec()), Err(PayloadError::Unterminated));
        }
    }

    #[test]
    fn addresses_of_clients_are_checked() {
        let read = |rest: &[u8]| connect(&mut [b"h\0", rest].concat()).map(|(_, address)| address.is_some());
        assert_eq!(read(b"U"), Ok(false));
        assert_eq!(read(b"4\0\x19127.0.0.1\0"), Ok(true));
        assert_eq!(read(b"4\0\x19127.0.0.1\0junk\0"), Ok(true));
        assert_eq!(read(b"4\0\x19127.0.0.1\0junk"), Err(PayloadError::Unterminated));
        assert_eq!(read(b"4\0\x19"), Err(PayloadError::ShortAddress(2)));
        assert_eq!(read(b"4\0\x19::1\0"), Err(PayloadError::BadInet));
        assert_eq!(read(b"6\0\x19127.0.0.1\0"), Err(PayloadError::BadInet6));
        assert_eq!(read(b"X\0\x19x\0"), Err(PayloadError::UnknownFamily(b'X')));
        let path = |len| read(&[b"L\0\0", &vec![b'p'; len][..], b"\0"].concat());
        assert_eq!(path(ClientAddress::MAX_PATH), Ok(true));
        assert_eq!(path(ClientAddress::MAX_PATH + 1), Err(PayloadError::LongPath(ClientAddress::MAX_PATH + 1)));
    }

    #[test]
    fn connect_survives_every_truncation() {
        let mut whole = Vec::new();
        let address = Some(ClientAddress::Inet6 { address: Ipv6Addr::LOCALHOST, port: 258 });
        Command::Connect { host: b"h", address }.encode(&mut whole);
        let payload = &mut whole[frame::HEADER_LEN..];
        assert_eq!(connect(payload), Ok((&mut b"h\0".to_vec()[..], address)));
        for len in 0..payload.len() {
            assert!(connect(&mut payload[..len]).is_err(), "{len}");
        }
    }
}
