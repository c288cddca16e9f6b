//! Milter packets in readable form: what an MTA sends and what a filter answers.
//!
//! The tables here are the harness's own, so that a mistake in the library's codec is not
//! repeated by its test.

use std::fmt;

use crate::words::{Word, quote};

/// A packet: length, letter, payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The command or reply.
    pub letter: u8,
    /// What follows it.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The packet as octets.
    ///
    /// # Panics
    ///
    /// When the payload is longer than a length field can say.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len() + 1).expect("a payload below 4 GiB");
        let mut octets = length.to_be_bytes().to_vec();
        octets.push(self.letter);
        octets.extend_from_slice(&self.payload);
        octets
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((name, _, shape)) = REPLIES.iter().find(|(_, letter, _)| *letter == self.letter) else {
            return write!(f, "frame {} {}", quote(&[self.letter]), quote(&self.payload));
        };
        f.write_str(name)?;
        let mut rest = &self.payload[..];
        let numbers: &[bool] = match shape {
            Shape::Options => &[false, true, true],
            Shape::Indexed => &[false],
            _ => &[],
        };
        for hexadecimal in numbers {
            let Some((number, after)) = rest.split_first_chunk() else { break };
            let number = u32::from_be_bytes(*number);
            if *hexadecimal {
                write!(f, " {number:x}")?
            } else {
                write!(f, " {number}")?
            }
            rest = after;
        }
        // The last end goes without saying in dialogues.
        if let (Shape::Strings | Shape::Indexed, Some(strings)) = (shape, rest.strip_suffix(b"\0")) {
            strings.split(|octet| *octet == 0).try_for_each(|string| write!(f, " {}", quote(string)))
        } else if rest.is_empty() {
            Ok(())
        } else {
            write!(f, " {}", quote(rest))
        }
    }
}

/// How the words of a line become a payload.
#[derive(Clone, Copy)]
enum Shape {
    Nothing,
    /// Each word with a NUL.
    Strings,
    /// One word as it is, which may be missing.
    Raw,
    /// One number, then strings.
    Indexed,
    /// Decimal version, hexadecimal actions and steps, then symbol lists: stage, names.
    Options,
    /// Stage letter, then name=value.
    Macros,
    /// Host, family, and unless that is unknown port and text.
    Client,
}

type Named = (&'static str, u8, Shape);

const COMMANDS: [Named; 15] = [
    ("OPTNEG", b'O', Shape::Options),
    ("MACRO", b'D', Shape::Macros),
    ("CONNECT", b'C', Shape::Client),
    ("HELO", b'H', Shape::Strings),
    ("MAIL", b'M', Shape::Strings),
    ("RCPT", b'R', Shape::Strings),
    ("DATA", b'T', Shape::Nothing),
    ("HEADER", b'L', Shape::Strings),
    ("EOH", b'N', Shape::Nothing),
    ("BODY", b'B', Shape::Raw),
    ("BODYEOB", b'E', Shape::Raw),
    ("ABORT", b'A', Shape::Nothing),
    ("QUIT", b'Q', Shape::Nothing),
    ("QUIT_NC", b'K', Shape::Nothing),
    ("UNKNOWN", b'U', Shape::Strings),
];

const REPLIES: [Named; 18] = [
    ("OPTNEG", b'O', Shape::Options),
    ("CONTINUE", b'c', Shape::Nothing),
    ("ACCEPT", b'a', Shape::Nothing),
    ("REJECT", b'r', Shape::Nothing),
    ("TEMPFAIL", b't', Shape::Nothing),
    ("DISCARD", b'd', Shape::Nothing),
    ("SKIP", b's', Shape::Nothing),
    ("REPLYCODE", b'y', Shape::Strings),
    ("ADDHEADER", b'h', Shape::Strings),
    ("INSHEADER", b'i', Shape::Indexed),
    ("CHGHEADER", b'm', Shape::Indexed),
    ("CHGFROM", b'e', Shape::Strings),
    ("ADDRCPT", b'+', Shape::Strings),
    ("ADDRCPT_PAR", b'2', Shape::Strings),
    ("DELRCPT", b'-', Shape::Strings),
    ("REPLBODY", b'b', Shape::Raw),
    ("QUARANTINE", b'q', Shape::Strings),
    ("PROGRESS", b'p', Shape::Nothing),
];

/// The octets of a command line: a named command, `frame` with letter and payload, or `hex`.
pub(crate) fn command(words: &[Word]) -> Result<Vec<u8>, String> {
    if words.first().is_some_and(|word| word.octets == b"hex") {
        return hex(&words[1..]);
    }
    named(&COMMANDS, words).map(|frame| frame.octets())
}

/// The packet of a reply line.
pub(crate) fn reply(words: &[Word]) -> Result<Frame, String> {
    named(&REPLIES, words)
}

fn named(table: &[Named], words: &[Word]) -> Result<Frame, String> {
    let (name, arguments) = words.split_first().ok_or("nothing between two semicolons")?;
    if name.octets == b"frame" {
        let [letter, payload] = arguments else {
            return Err("frame needs a letter and a payload".into());
        };
        let [letter] = letter.octets[..] else { return Err(format!("{letter} is not one letter")) };
        return Ok(Frame { letter, payload: payload.octets.clone() });
    }
    let name = name.text()?;
    let (_, letter, shape) =
        table.iter().find(|(known, ..)| *known == name).ok_or_else(|| format!("unknown packet {name}"))?;
    Ok(Frame { letter: *letter, payload: payload(*shape, name, arguments)? })
}

fn payload(shape: Shape, name: &str, words: &[Word]) -> Result<Vec<u8>, String> {
    match (shape, words) {
        (Shape::Nothing, []) => Ok(Vec::new()),
        (Shape::Strings, words) => Ok(strings(words)),
        (Shape::Raw, words) => Ok(words.iter().flat_map(|word| word.octets.clone()).collect()),
        (Shape::Indexed, [index, rest @ ..]) => {
            let mut payload = number(index, 10)?.to_be_bytes().to_vec();
            payload.extend(strings(rest));
            Ok(payload)
        }
        (Shape::Options, [version, actions, steps, lists @ ..]) => {
            let numbers = [number(version, 10)?, number(actions, 16)?, number(steps, 16)?];
            let mut payload: Vec<u8> = numbers.into_iter().flat_map(u32::to_be_bytes).collect();
            for pair in lists.chunks(2) {
                let [stage, names] = pair else {
                    return Err("a symbol list is a stage and its names".into());
                };
                payload.extend(number(stage, 10)?.to_be_bytes());
                payload.extend(strings(std::slice::from_ref(names)));
            }
            Ok(payload)
        }
        (Shape::Macros, [stage, pairs @ ..]) => {
            let mut payload = stage.octets.clone();
            for pair in pairs {
                for part in pair.octets.splitn(2, |octet| *octet == b'=') {
                    payload.extend_from_slice(part);
                    payload.push(0);
                }
            }
            Ok(payload)
        }
        (Shape::Client, [host, family, address @ ..]) => {
            let letter = match family.text()? {
                "inet" => b'4',
                "inet6" => b'6',
                "unix" => b'L',
                "unknown" => b'U',
                _ => return Err(format!("unknown family {family}")),
            };
            let mut payload = strings(std::slice::from_ref(host));
            payload.push(letter);
            if let [port, text] = address {
                let port = u16::try_from(number(port, 10)?).map_err(|_| "a port has 16 bits")?;
                payload.extend(port.to_be_bytes());
                payload.extend(strings(std::slice::from_ref(text)));
            }
            Ok(payload)
        }
        _ => Err(format!("{name} does not take these arguments")),
    }
}

fn strings(words: &[Word]) -> Vec<u8> {
    words.iter().flat_map(|word| word.octets.iter().copied().chain([0])).collect()
}

fn number(word: &Word, radix: u32) -> Result<u32, String> {
    let text = word.text()?;
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => u32::from_str_radix(text, radix),
    }
    .map_err(|_| format!("{word} is not a number"))
}

fn hex(words: &[Word]) -> Result<Vec<u8>, String> {
    let mut digits = String::new();
    for word in words {
        digits.push_str(word.text()?);
    }
    if !digits.len().is_multiple_of(2) {
        return Err(format!("half an octet in {digits}"));
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| format!("not hexadecimal: {digits}")))
        .collect()
}
