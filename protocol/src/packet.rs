//! Packets in words: what a command or a reply is called and what it says, field by field.
//!
//! For people who read a trace, and for programs that write one: nothing is refused here, what cannot be understood is
//! shown as it is.

use std::fmt::{self, Write};
use std::time::Duration;

use bytes::Buf;

use crate::command::{CommandCode, find_nul};
use crate::escape::Quoted;
use crate::flags::{Actions, Steps};
use crate::macros::Stage;
use crate::modification::Modification;
use crate::reply::Reply;

/// A command or a reply in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is called.
    pub name: &'static str,
    /// What it says, in order.
    pub fields: Vec<Field<'a>>,
}

/// A part of a packet: its name and its value.
pub type Field<'a> = (&'static str, Value<'a>);

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Number(u64),
    /// A duration, shown in seconds.
    Seconds(Duration),
    /// A word that needs no quotes.
    Word(&'static str),
    /// Text of the peer's or the filter's.
    Text(&'a [u8]),
    /// Several of them.
    Texts(Vec<&'a [u8]>),
    /// Names with values.
    Pairs(Vec<(&'a [u8], &'a [u8])>),
    /// A set of flags.
    Flags(Vec<String>),
    /// A piece of a body, which not everybody is to see.
    Content(&'a [u8]),
}

use Value::{Content, Number, Pairs, Text, Texts, Word};

impl<'a> Packet<'a> {
    /// A command of the MTA.
    pub fn of_command(letter: u8, payload: &'a [u8]) -> Self {
        let Some(command) = CommandCode::from_letter(letter) else { return Packet::unknown(letter, payload) };
        let name = command_name(command);
        let fields = command_fields(command, payload).unwrap_or_else(|| vec![("payload", Text(payload))]);
        Packet { name, fields }
    }

    /// A reply of the filter.
    pub fn of_reply(letter: u8, payload: &'a [u8]) -> Self {
        let Ok(reply) = Reply::decode(letter, payload) else { return Packet::unknown(letter, payload) };
        let mut fields = Vec::new();
        let name = match reply {
            Reply::Negotiated { version, actions, steps, macros } => {
                fields.extend(terms(version, actions, steps));
                fields.push((
                    "macros",
                    Pairs(macros.iter().map(|(stage, names)| (stage_name(*stage).as_bytes(), *names)).collect()),
                ));
                "negotiated"
            }
            Reply::Continue => "continue",
            Reply::Accept => "accept",
            Reply::Reject => "reject",
            Reply::Tempfail => "tempfail",
            Reply::Discard => "discard",
            Reply::Skip => "skip",
            Reply::ReplyCode(text) => {
                fields.push(("text", Text(text)));
                "smtp-reply"
            }
            Reply::Shutdown => "shutdown",
            Reply::ConnectionFailed => "connection-failed",
            Reply::Progress => "progress",
            Reply::ReplaceBody(octets) => {
                fields.push(("body", Content(octets)));
                "replace-body"
            }
            Reply::Modify(modification) => return Packet::of_modification(&modification),
        };
        Packet { name, fields }
    }

    /// A change of the message.
    pub fn of_modification(modification: &Modification<'a>) -> Self {
        let arguments = |arguments: Option<&'a [u8]>| arguments.map(|text| ("arguments", Text(text)));
        let (name, fields) = match *modification {
            Modification::AddHeader { name, value } => {
                ("add-header", vec![("name", Text(name)), ("value", Text(value))])
            }
            Modification::InsertHeader { index, name, value } => {
                ("insert-header", vec![("index", Number(index.into())), ("name", Text(name)), ("value", Text(value))])
            }
            Modification::ChangeHeader { index, name, value } => {
                ("change-header", vec![("index", Number(index.into())), ("name", Text(name)), ("value", Text(value))])
            }
            Modification::ChangeSender { address, arguments: given } => {
                ("change-sender", [("address", Text(address))].into_iter().chain(arguments(given)).collect())
            }
            Modification::AddRecipient { address } => ("add-recipient", vec![("address", Text(address))]),
            Modification::AddRecipientWithArguments { address, arguments: given } => (
                "add-recipient-with-arguments",
                [("address", Text(address))].into_iter().chain(arguments(given)).collect(),
            ),
            Modification::DeleteRecipient { address } => ("delete-recipient", vec![("address", Text(address))]),
            Modification::Quarantine { reason } => ("quarantine", vec![("reason", Text(reason))]),
        };
        Packet { name, fields }
    }

    fn unknown(letter: u8, payload: &'a [u8]) -> Self {
        Packet { name: "unknown-packet", fields: vec![("letter", Number(letter.into())), ("payload", Text(payload))] }
    }

    /// Appends name and fields as text in one line; of [`Value::Content`] so many octets.
    pub fn write_text(&self, out: &mut String, content: usize) {
        out.push_str(self.name);
        write_fields(&self.fields, out, content);
    }
}

/// Without contents.
impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_text(&mut text, 0);
        f.write_str(&text)
    }
}

/// A command by a name that explains itself.
fn command_name(command: CommandCode) -> &'static str {
    match command {
        CommandCode::Negotiate => "negotiate",
        CommandCode::Macro => "macros",
        CommandCode::Connect => "connect",
        CommandCode::Helo => "helo",
        CommandCode::Mail => "mail",
        CommandCode::Rcpt => "rcpt",
        CommandCode::Data => "data",
        CommandCode::Header => "header",
        CommandCode::EndOfHeaders => "end-of-headers",
        CommandCode::Body => "body",
        CommandCode::EndOfBody => "end-of-message",
        CommandCode::Abort => "abort",
        CommandCode::Quit => "quit",
        CommandCode::QuitNewConnection => "quit-new-connection",
        CommandCode::Unknown => "unknown-command",
    }
}

/// `None` when the payload is not what the command calls for.
fn command_fields(command: CommandCode, mut payload: &[u8]) -> Option<Vec<Field<'_>>> {
    Some(match command {
        CommandCode::Negotiate => {
            let mut number = || payload.try_get_u32().ok();
            let (version, actions, steps) = (number()?, number()?, number()?);
            terms(version, Actions::from_bits_retain(actions), Steps::from_bits_retain(steps)).into()
        }
        CommandCode::Macro => {
            let (&letter, pairs) = payload.split_first()?;
            let stage = CommandCode::from_letter(letter).map_or("unknown", command_name);
            let strings = if pairs.is_empty() { Vec::new() } else { strings(pairs)? };
            let pairs = strings.chunks(2).map(|pair| (pair[0], pair.get(1).copied().unwrap_or_default()));
            vec![("stage", Word(stage)), ("macros", Pairs(pairs.collect()))]
        }
        CommandCode::Connect => connect_fields(payload)?,
        CommandCode::Helo => vec![("name", Text(single(payload)?))],
        CommandCode::Unknown => vec![("command", Text(single(payload)?))],
        CommandCode::Mail | CommandCode::Rcpt => {
            let strings = strings(payload)?;
            let (address, arguments) = strings.split_first()?;
            vec![("address", Text(address)), ("arguments", Texts(arguments.to_vec()))]
        }
        CommandCode::Header => {
            let [name, value] = strings(payload)?[..] else { return None };
            vec![("name", Text(name)), ("value", Text(value))]
        }
        CommandCode::Body => vec![("body", Content(payload))],
        CommandCode::EndOfBody if !payload.is_empty() => vec![("body", Content(payload))],
        _ if payload.is_empty() => Vec::new(),
        _ => return None,
    })
}

fn connect_fields(payload: &[u8]) -> Option<Vec<Field<'_>>> {
    let nul = find_nul(payload)?;
    let host = ("host", Text(&payload[..nul]));
    let (family, mut rest) = payload[nul + 1..].split_first()?;
    let family = match family {
        b'U' => return Some(vec![host, ("family", Word("unknown"))]),
        b'4' => "inet",
        b'6' => "inet6",
        b'L' => "unix",
        _ => return None,
    };
    let port = rest.try_get_u16().ok()?;
    let address = ("address", Text(single(rest)?));
    let mut fields = vec![host, ("family", Word(family)), address];
    if family != "unix" {
        fields.push(("port", Number(port.into())));
    }
    Some(fields)
}

fn terms<'a>(version: u32, actions: Actions, steps: Steps) -> [Field<'a>; 3] {
    let actions = flags(actions.iter_names().map(|(name, _)| name), actions.bits() & !NAMED_ACTIONS);
    let steps = flags(steps.iter_names().map(|(name, _)| name), steps.bits() & !NAMED_STEPS);
    [("version", Number(version.into())), ("actions", Value::Flags(actions)), ("steps", Value::Flags(steps))]
}

const NAMED_ACTIONS: u32 = Actions::VERSION_6.bits();
const NAMED_STEPS: u32 = Steps::VERSION_6.bits();

fn flags(names: impl Iterator<Item = &'static str>, others: u32) -> Vec<String> {
    let names = names.map(|name| name.to_ascii_lowercase().replace('_', "-"));
    names.chain((others != 0).then(|| format!("0x{others:x}"))).collect()
}

/// A stage by the name of its command.
pub fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect => "connect",
        Stage::Helo => "helo",
        Stage::Mail => "mail",
        Stage::Rcpt => "rcpt",
        Stage::Data => "data",
        Stage::Eom => "end-of-message",
        Stage::Eoh => "end-of-headers",
    }
}

/// NUL-terminated strings, at least one.
fn strings(payload: &[u8]) -> Option<Vec<&[u8]>> {
    Some(payload.strip_suffix(b"\0")?.split(|&octet| octet == 0).collect())
}

fn single(payload: &[u8]) -> Option<&[u8]> {
    payload.strip_suffix(b"\0").filter(|text| !text.contains(&0))
}

/// Appends fields as text in one line, each with a blank before it; of [`Value::Content`] so many octets.
pub fn write_fields(fields: &[Field<'_>], out: &mut String, content: usize) {
    for (name, value) in fields {
        out.push(' ');
        match value {
            Pairs(pairs) => {
                out.push_str(name);
                out.push_str("={");
                for (at, (name, value)) in pairs.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { " " });
                    write_name(out, name);
                    out.push('=');
                    quote(out, value);
                }
                out.push('}');
            }
            Content(octets) => {
                out.push_str(&format!("octets={}", octets.len()));
                if content > 0 {
                    out.push_str(&format!(" {name}="));
                    quote(out, &octets[..octets.len().min(content)]);
                }
            }
            Number(number) => out.push_str(&format!("{name}={number}")),
            Value::Seconds(duration) => out.push_str(&format!("{name}={:.6}", duration.as_secs_f64())),
            Word(word) => out.push_str(&format!("{name}={word}")),
            Value::Flags(flags) => {
                let flags = if flags.is_empty() { "none".to_owned() } else { flags.join(",") };
                out.push_str(&format!("{name}={flags}"));
            }
            Text(text) => {
                out.push_str(name);
                out.push('=');
                quote(out, text);
            }
            Texts(texts) => {
                out.push_str(name);
                out.push_str("=[");
                for (at, text) in texts.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { " " });
                    quote(out, text);
                }
                out.push(']');
            }
        }
    }
}

/// A name that somebody else has chosen, in quotes unless it is plain.
fn write_name(out: &mut String, name: &[u8]) {
    let is_plain = |octet: &u8| octet.is_ascii_graphic() && !b"=\"\\".contains(octet);
    if !name.is_empty() && name.iter().all(is_plain) {
        out.extend(name.iter().copied().map(char::from));
    } else {
        quote(out, name);
    }
}

/// Appends text in quotes.
fn quote(out: &mut String, text: &[u8]) {
    // Writing to a string does not fail.
    let _ = write!(out, "{}", Quoted(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::ClientAddress;
    use crate::command::Command;
    use crate::frame;

    fn command(command: &Command<'_>) -> String {
        let mut wire = Vec::new();
        command.encode(&mut wire);
        Packet::of_command(wire[4], &wire[frame::HEADER_LEN..]).to_string()
    }

    fn reply(reply: &Reply<'_>) -> String {
        let mut wire = Vec::new();
        reply.encode(&mut wire);
        Packet::of_reply(wire[4], &wire[frame::HEADER_LEN..]).to_string()
    }

    #[test]
    fn commands_in_words() {
        let address = Some(ClientAddress::Inet { address: [192, 0, 2, 1].into(), port: 25 });
        for (given, text) in [
            (
                Command::Negotiate {
                    version: 6,
                    actions: Actions::ADD_HEADERS | Actions::from_bits_retain(0x1000),
                    steps: Steps::NO_BODY | Steps::SKIP,
                },
                "negotiate version=6 actions=add-headers,0x1000 steps=no-body,skip",
            ),
            (
                Command::Macro { letter: b'M', pairs: vec![(b"i", b"Q1"), (b"{a b}", b"x\"y")] },
                r#"macros stage=mail macros={i="Q1" "{a b}"="x\"y"}"#,
            ),
            (Command::Macro { letter: b'C', pairs: vec![] }, "macros stage=connect macros={}"),
            (Command::Connect { host: b"h", address }, r#"connect host="h" family=inet address="192.0.2.1" port=25"#),
            (Command::Connect { host: b"h", address: None }, r#"connect host="h" family=unknown"#),
            (Command::Mail(vec![b"<a>", b"SIZE=1"]), r#"mail address="<a>" arguments=["SIZE=1"]"#),
            (Command::Rcpt(vec![b"<b>"]), r#"rcpt address="<b>" arguments=[]"#),
            (Command::Header { name: b"S", value: b"one\n\ttwo" }, r#"header name="S" value="one\n\ttwo""#),
            (Command::Body(b"secret"), "body octets=6"),
            (Command::EndOfBody(b""), "end-of-message"),
            (Command::Unknown(b"XYZ"), r#"unknown-command command="XYZ""#),
            (Command::Quit, "quit"),
        ] {
            assert_eq!(command(&given), text);
        }
    }

    #[test]
    fn replies_in_words() {
        let (actions, steps) = (Actions::empty(), Steps::NR_HEADER);
        for (given, text) in [
            (
                Reply::Negotiated { version: 6, actions, steps, macros: vec![(Stage::Eom, b"i j")] },
                r#"negotiated version=6 actions=none steps=nr-header macros={end-of-message="i j"}"#,
            ),
            (Reply::Tempfail, "tempfail"),
            (Reply::ReplyCode(b"550 5.7.1 no"), r#"smtp-reply text="550 5.7.1 no""#),
            (Reply::ReplaceBody(b"new"), "replace-body octets=3"),
            (
                Reply::Modify(Modification::InsertHeader { index: 1, name: b"X", value: b"y" }),
                r#"insert-header index=1 name="X" value="y""#,
            ),
            (
                Reply::Modify(Modification::ChangeSender { address: b"<x>", arguments: Some(b"SIZE=1") }),
                r#"change-sender address="<x>" arguments="SIZE=1""#,
            ),
        ] {
            assert_eq!(reply(&given), text);
        }
    }

    #[test]
    fn what_is_not_understood_is_shown_as_it_is() {
        assert_eq!(Packet::of_command(b'M', b"no nul").to_string(), r#"mail payload="no nul""#);
        assert_eq!(Packet::of_command(b'O', b"\0").to_string(), r#"negotiate payload="\u{0}""#);
        assert_eq!(Packet::of_command(b'?', b"x").to_string(), r#"unknown-packet letter=63 payload="x""#);
        assert_eq!(Packet::of_reply(b'y', b"550").to_string(), r#"unknown-packet letter=121 payload="550""#);
    }

    #[test]
    fn one_line_whatever_is_said() {
        let mut text = String::new();
        quote(&mut text, "\r\n\u{85}\u{2028}\u{202e}\x1b[0m \u{e4}".as_bytes());
        quote(&mut text, b"\xe4");
        assert_eq!(text, r#""\r\n\u{85}\u{2028}\u{202e}\u{1b}[0m ä""\xe4""#);
    }

    #[test]
    fn contents_as_far_as_asked_for() {
        let mut text = String::new();
        Packet::of_command(b'B', b"secret").write_text(&mut text, 3);
        assert_eq!(text, r#"body octets=6 body="sec""#);
    }
}
