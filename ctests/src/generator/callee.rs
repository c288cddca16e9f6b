//! The filter's half of the model: callbacks that follow a plan, and the calls they make.

use std::collections::BTreeSet;

use super::{
    defect::Defect,
    model::{LIMIT, Nature},
    negotiation::Outputs,
    payload::{Found, Macros},
    plan::{CONTINUE, Callback, Deed, Modification, Plan, Text},
};
use crate::words::quote;

/// The filter, and what belongs to its session.
pub(super) struct Callee<'a> {
    plan: &'a Plan,
    nature: Nature,
    calls: [u32; 13],
    /// The record.
    pub(super) events: Vec<String>,
    /// Sent in this session.
    pub(super) output: Vec<u8>,
    pub(super) differences: BTreeSet<Defect>,
    pub(super) undefined: bool,
    pub(super) actions: u32,
    pub(super) macros: Macros,
    pub(super) symbol_lists: [Option<Vec<u8>>; 7],
    /// The MTA does not read any more.
    pub(super) deaf: bool,
    stored_reply: Option<Vec<u8>>,
    private: i32,
}

impl<'a> Callee<'a> {
    pub(super) fn new(plan: &'a Plan, nature: Nature) -> Callee<'a> {
        Callee {
            plan,
            nature,
            calls: [0; 13],
            events: Vec::new(),
            output: Vec::new(),
            differences: BTreeSet::new(),
            undefined: false,
            actions: 0,
            macros: Macros::default(),
            symbol_lists: Default::default(),
            deaf: false,
            stored_reply: None,
            private: 0,
        }
    }

    pub(super) fn begin_session(&mut self) {
        let calls = self.calls;
        let events = std::mem::take(&mut self.events);
        let differences = std::mem::take(&mut self.differences);
        let undefined = self.undefined;
        *self = Callee { calls, events, differences, undefined, ..Callee::new(self.plan, self.nature) };
    }

    pub(super) fn send(&mut self, letter: u8, payload: &[u8]) {
        self.output.extend(u32::try_from(payload.len() + 1).expect("limited").to_be_bytes());
        self.output.push(letter);
        self.output.extend_from_slice(payload);
    }

    /// A refusal with the stored reply, if that is of this class, or the general one.
    pub(super) fn refuse(&mut self, class: u8, general: u8) {
        match self.stored_reply.take_if(|reply| reply[0] == class) {
            Some(reply) => self.send(b'y', &terminated(&[&reply])),
            None => self.send(general, b""),
        }
    }

    pub(super) fn has_stored_reply(&self) -> bool {
        self.stored_reply.is_some()
    }

    pub(super) fn forget_reply(&mut self) {
        self.stored_reply = None;
    }

    /// Runs a callback; `modifiable` where modifications are allowed.
    pub(super) fn call(
        &mut self,
        callback: Callback,
        record: &str,
        mut outputs: Option<&mut Outputs>,
        modifiable: bool,
    ) -> i32 {
        self.events.push(record.to_owned());
        self.calls[callback as usize] += 1;
        let call = self.calls[callback as usize];
        let mut value = CONTINUE;
        let plan = self.plan;
        for step in plan.steps.iter().filter(|step| step.callback == callback && [0, call].contains(&step.nth)) {
            match &step.deed {
                Deed::Return(verdict) => value = *verdict,
                Deed::Output(at, output) => outputs.as_mut().expect("only in negotiate")[*at] = *output,
                deed => {
                    let event = self.act(deed, modifiable);
                    self.events.push(event);
                }
            }
        }
        value
    }

    fn act(&mut self, deed: &Deed, modifiable: bool) -> String {
        let result = |success: bool| if success { 0 } else { -1 };
        match deed {
            Deed::Return(_) | Deed::Output(..) => unreachable!("no calls"),
            Deed::SetReply(code, status, line) => {
                let reply = stored_reply(code, status, line);
                format!("setreply {}", result(self.store(reply)))
            }
            Deed::SetMlReply(code, status, lines) => {
                let mut reply = multi_line_reply(code, status, lines);
                // A reply without lines ends like one that goes on.
                if let (Some(reply), []) = (&mut reply, &lines[..]) {
                    self.differences.insert(Defect(24));
                    if self.nature == Nature::Documented {
                        reply[3] = b' ';
                    }
                }
                format!("setmlreply {}", result(self.store(reply)))
            }
            Deed::GetSymVal(name) => self.look_up(name),
            Deed::SetSymList(stage, names) => {
                let place = usize::try_from(*stage).ok().and_then(|stage| self.symbol_lists.get_mut(stage));
                let set = match (place, names) {
                    (Some(place @ None), Some(names)) => {
                        *place = Some(names.clone());
                        true
                    }
                    _ => false,
                };
                format!("setsymlist {}", result(set))
            }
            Deed::SetPriv(value) => {
                self.private = *value;
                "setpriv 0".into()
            }
            Deed::GetPriv => format!("getpriv {}", self.private),
            Deed::Progress => {
                if !self.deaf {
                    self.send(b'p', b"");
                }
                format!("progress {}", result(!self.deaf))
            }
            Deed::Modify(modification) => {
                let name = modification.to_string();
                let name = name.split(' ').next().unwrap_or_default();
                format!("{name} {}", result(modifiable && self.modify(modification)))
            }
        }
    }

    fn store(&mut self, reply: Option<Vec<u8>>) -> bool {
        let valid = reply.is_some();
        if valid {
            self.stored_reply = reply;
        }
        valid
    }

    fn look_up(&mut self, name: &Text) -> String {
        let asked = name.as_deref().unwrap_or_default();
        let shown = name.as_ref().map_or_else(|| "NULL".into(), |name| quote(name));
        let mut found = if asked.is_empty() { Found::Nothing } else { self.macros.find(asked, false) };
        if matches!(found, Found::NameAlone | Found::BeyondEnd) {
            self.differences.insert(Defect(14));
            self.undefined |= found == Found::BeyondEnd;
            if self.nature == Nature::Documented {
                found = self.macros.find(asked, true);
            }
        }
        match found {
            Found::Value(value) => format!("getsymval {shown} {}", quote(&value)),
            _ => format!("getsymval {shown} NULL"),
        }
    }

    /// False, and nothing is sent, for what is not allowed, says nothing, or is too large.
    fn modify(&mut self, modification: &Modification) -> bool {
        let named = |text: &Text| text.clone().filter(|text| !text.is_empty());
        let packet = (|| {
            Some(match modification {
                Modification::AddHeader(name, value) => (0x1, b'h', terminated(&[&named(name)?, value.as_ref()?])),
                Modification::InsHeader(at, name, value) => {
                    (0x1, b'i', indexed(*at, &[&named(name)?, value.as_ref()?])?)
                }
                Modification::ChgHeader(name, at, value) => {
                    (0x10, b'm', indexed(*at, &[&named(name)?, &value.clone().unwrap_or_default()])?)
                }
                Modification::ChgFrom(address, arguments) => (0x40, b'e', with_arguments(named(address)?, arguments)),
                Modification::AddRcpt(address) => (0x4, b'+', terminated(&[&named(address)?])),
                Modification::AddRcptPar(address, arguments) => {
                    (0x80, b'2', with_arguments(named(address)?, arguments))
                }
                Modification::DelRcpt(address) => (0x8, b'-', terminated(&[&named(address)?])),
                Modification::ReplaceBody(octets, length) => {
                    let length = usize::try_from(*length).ok()?;
                    match octets {
                        None if length > 0 => return None,
                        None => (0x2, b'b', Vec::new()),
                        Some(octets) => (0x2, b'b', octets[..length].to_vec()),
                    }
                }
                Modification::Quarantine(reason) => (0x20, b'q', terminated(&[&named(reason)?])),
            })
        })();
        let Some((action, letter, payload)) = packet else { return false };
        if self.actions & action == 0 || self.deaf {
            return false;
        }
        if letter == b'b' {
            let pieces = payload.len().div_ceil(LIMIT).max(1);
            for piece in 0..pieces {
                let end = payload.len().min((piece + 1) * LIMIT);
                self.send(letter, &payload[piece * LIMIT..end]);
            }
            return true;
        }
        let fits = payload.len() <= LIMIT;
        if fits {
            self.send(letter, &payload);
        }
        fits
    }
}

fn terminated(strings: &[&[u8]]) -> Vec<u8> {
    strings.iter().flat_map(|string| string.iter().copied().chain([0])).collect()
}

fn indexed(index: i32, strings: &[&[u8]]) -> Option<Vec<u8>> {
    let index = u32::try_from(index).ok()?.to_be_bytes();
    Some([&index[..], &terminated(strings)].concat())
}

fn with_arguments(address: Vec<u8>, arguments: &Text) -> Vec<u8> {
    match arguments {
        Some(arguments) => terminated(&[&address, arguments]),
        None => terminated(&[&address]),
    }
}

fn valid_code(code: &Text) -> Option<&[u8]> {
    let code = code.as_deref()?;
    matches!(code, [b'4' | b'5', b'0'..=b'9', b'0'..=b'9']).then_some(code)
}

fn valid_status(status: &[u8]) -> bool {
    let parts: Vec<&[u8]> = status.split(|octet| *octet == b'.').collect();
    let number = |part: &[u8]| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    matches!(parts[..], [[b'2' | b'4' | b'5'], subject, detail] if number(subject) && number(detail))
}

fn valid_line(line: &[u8]) -> bool {
    line.len() <= 980 && !line.iter().any(|octet| matches!(octet, b'\r' | b'\n'))
}

fn stored_reply(code: &Text, status: &Text, line: &Text) -> Option<Vec<u8>> {
    let mut reply = valid_code(code)?.to_vec();
    reply.push(b' ');
    if let Some(status) = status {
        if !valid_status(status) {
            return None;
        }
        reply.extend_from_slice(status);
    }
    if let Some(line) = line {
        if !valid_line(line) {
            return None;
        }
        if status.is_some() {
            reply.push(b' ');
        }
        reply.extend_from_slice(line);
    }
    Some(reply)
}

fn multi_line_reply(code: &Text, status: &Text, lines: &[Vec<u8>]) -> Option<Vec<u8>> {
    let code = valid_code(code)?;
    let general = [code[0], b'.', b'0', b'.', b'0'];
    let status = status.as_deref().unwrap_or(&general);
    if !valid_status(status) || lines.len() > 32 || !lines.iter().all(|line| valid_line(line)) {
        return None;
    }
    let start = |separator: &[u8]| [code, separator, status].concat();
    let (last, others) = match lines.split_last() {
        Some(parts) => parts,
        None => return Some(start(b"-")),
    };
    let mut reply = Vec::new();
    for line in others {
        reply.extend([&start(b"-"), &b" "[..], line, b"\r\n"].concat());
    }
    reply.extend([&start(b" "), &b" "[..], last].concat());
    Some(reply)
}
