//! Plans: what a filter registers, and what its callbacks do.

use std::fmt;

use super::random::Random;
use crate::words::quote;

/// A callback, in the recorder's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callback {
    Connect,
    Helo,
    EnvFrom,
    EnvRcpt,
    Header,
    Eoh,
    Body,
    Eom,
    Abort,
    Close,
    Unknown,
    Data,
    Negotiate,
}

impl Callback {
    pub(super) const ALL: [Callback; 13] = [
        Callback::Connect,
        Callback::Helo,
        Callback::EnvFrom,
        Callback::EnvRcpt,
        Callback::Header,
        Callback::Eoh,
        Callback::Body,
        Callback::Eom,
        Callback::Abort,
        Callback::Close,
        Callback::Unknown,
        Callback::Data,
        Callback::Negotiate,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Callback::Connect => "connect",
            Callback::Helo => "helo",
            Callback::EnvFrom => "envfrom",
            Callback::EnvRcpt => "envrcpt",
            Callback::Header => "header",
            Callback::Eoh => "eoh",
            Callback::Body => "body",
            Callback::Eom => "eom",
            Callback::Abort => "abort",
            Callback::Close => "close",
            Callback::Unknown => "unknown",
            Callback::Data => "data",
            Callback::Negotiate => "negotiate",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A string argument; `None` is the null pointer.
pub(super) type Text = Option<Vec<u8>>;

/// A call that changes the message.
#[derive(Clone, Debug)]
pub(super) enum Modification {
    AddHeader(Text, Text),
    InsHeader(i32, Text, Text),
    ChgHeader(Text, i32, Text),
    ChgFrom(Text, Text),
    AddRcpt(Text),
    AddRcptPar(Text, Text),
    DelRcpt(Text),
    /// With the length that is passed.
    ReplaceBody(Text, i32),
    Quarantine(Text),
}

/// One thing a callback does.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Return(i32),
    /// One of the four results of xxfi_negotiate.
    Output(usize, u64),
    SetReply(Text, Text, Text),
    SetMlReply(Text, Text, Vec<Vec<u8>>),
    GetSymVal(Text),
    SetSymList(i32, Text),
    SetPriv(i32),
    GetPriv,
    Progress,
    Modify(Modification),
}

/// A deed and when it is done.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) callback: Callback,
    /// In the n-th call of the process; 0 for each.
    pub(super) nth: u32,
    pub(super) deed: Deed,
}

/// What the recorder is told.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) callbacks: u16,
    pub(super) version: i32,
    pub(super) flags: u32,
    pub(super) steps: Vec<Step>,
}

fn text(text: &Text) -> String {
    text.as_ref().map_or_else(|| "NULL".into(), |text| quote(text))
}

impl fmt::Display for Modification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Modification::AddHeader(name, value) => write!(f, "addheader {} {}", text(name), text(value)),
            Modification::InsHeader(at, name, value) => write!(f, "insheader {at} {} {}", text(name), text(value)),
            Modification::ChgHeader(name, at, value) => write!(f, "chgheader {} {at} {}", text(name), text(value)),
            Modification::ChgFrom(address, arguments) => write!(f, "chgfrom {} {}", text(address), text(arguments)),
            Modification::AddRcpt(address) => write!(f, "addrcpt {}", text(address)),
            Modification::AddRcptPar(address, arguments) => {
                write!(f, "addrcpt_par {} {}", text(address), text(arguments))
            }
            Modification::DelRcpt(address) => write!(f, "delrcpt {}", text(address)),
            Modification::ReplaceBody(octets, length) => write!(f, "replacebody {} {length}", text(octets)),
            Modification::Quarantine(reason) => write!(f, "quarantine {}", text(reason)),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Return(value) => match VERDICTS.iter().find(|(_, known)| known == value) {
                Some((name, _)) => write!(f, "return {name}"),
                None => write!(f, "return {value}"),
            },
            Deed::Output(at, value) => write!(f, "output {at} 0x{value:x}"),
            Deed::SetReply(code, status, line) => {
                write!(f, "setreply {} {} {}", text(code), text(status), text(line))
            }
            Deed::SetMlReply(code, status, lines) => {
                write!(f, "setmlreply {} {}", text(code), text(status))?;
                lines.iter().try_for_each(|line| write!(f, " {}", quote(line)))
            }
            Deed::GetSymVal(name) => write!(f, "getsymval {}", text(name)),
            Deed::SetSymList(stage, names) => write!(f, "setsymlist {stage} {}", text(names)),
            Deed::SetPriv(value) => write!(f, "setpriv {value}"),
            Deed::GetPriv => f.write_str("getpriv"),
            Deed::Progress => f.write_str("progress"),
            Deed::Modify(modification) => modification.fmt(f),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on {}", self.callback.name())?;
        if self.nth > 0 {
            write!(f, "#{}", self.nth)?;
        }
        write!(f, " {}", self.deed)
    }
}

/// The lines of a plan, as recorder and dialogues read them.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("callbacks")?;
        Callback::ALL
            .into_iter()
            .filter(|callback| self.has(*callback))
            .try_for_each(|callback| write!(f, " {}", callback.name()))?;
        writeln!(f)?;
        if self.version != USUAL_VERSION {
            writeln!(f, "version 0x{:x}", self.version)?;
        }
        if self.flags != ALL_ACTIONS {
            writeln!(f, "flags 0x{:x}", self.flags)?;
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

pub(super) const CONTINUE: i32 = 0;
pub(super) const REJECT: i32 = 1;
pub(super) const DISCARD: i32 = 2;
pub(super) const ACCEPT: i32 = 3;
pub(super) const TEMPFAIL: i32 = 4;
pub(super) const NOREPLY: i32 = 7;
pub(super) const SKIP: i32 = 8;
pub(super) const ALL_OPTS: i32 = 10;

const VERDICTS: [(&str, i32); 8] = [
    ("CONTINUE", CONTINUE),
    ("REJECT", REJECT),
    ("DISCARD", DISCARD),
    ("ACCEPT", ACCEPT),
    ("TEMPFAIL", TEMPFAIL),
    ("NOREPLY", NOREPLY),
    ("SKIP", SKIP),
    ("ALL_OPTS", ALL_OPTS),
];

/// Values that mean nothing; 20 to 22 mean something inside the reference.
const UNDEFINED: [i32; 13] = [5, 6, 9, 10, 11, 19, 20, 21, 22, 23, 99, -1, i32::MIN];

pub(super) const USUAL_VERSION: i32 = 0x0100_0001;
const ALL_ACTIONS: u32 = 0x1ff;

/// Callbacks that a verdict of an SMTP client's business comes from, and the bit with which the filter declines to reply.
const ASKED: [(Callback, u32); 9] = [
    (Callback::Connect, 0x1000),
    (Callback::Helo, 0x2000),
    (Callback::EnvFrom, 0x4000),
    (Callback::EnvRcpt, 0x8000),
    (Callback::Data, 0x1_0000),
    (Callback::Unknown, 0x2_0000),
    (Callback::Header, 0x80),
    (Callback::Eoh, 0x4_0000),
    (Callback::Body, 0x8_0000),
];

impl Plan {
    pub(super) fn has(&self, callback: Callback) -> bool {
        self.callbacks & callback.bit() != 0
    }

    /// Whether the library calls it: filters of old versions do not have all of them.
    pub(super) fn calls(&self, callback: Callback) -> bool {
        let since = match callback {
            Callback::Unknown => 3,
            Callback::Data => 4,
            Callback::Negotiate => 5,
            _ => 2,
        };
        self.has(callback) && self.version >= since
    }

    /// A filter of the usual version and all actions that does nothing.
    pub(super) fn with(callbacks: &[Callback]) -> Plan {
        let callbacks = callbacks.iter().fold(0, |set, callback| set | callback.bit());
        Plan { callbacks, version: USUAL_VERSION, flags: ALL_ACTIONS, steps: Vec::new() }
    }

    /// The same plan without one of its callbacks, if it has that one.
    pub(super) fn without(&self, callback: Callback) -> Option<Plan> {
        self.has(callback).then(|| {
            let steps = self.steps.iter().filter(|step| step.callback != callback).cloned().collect();
            Plan { callbacks: self.callbacks & !callback.bit(), steps, ..self.clone() }
        })
    }

    /// The same plan for a filter of the usual version and all actions, if it is not that already.
    pub(super) fn usual(&self) -> Option<Plan> {
        let differs = self.version != USUAL_VERSION || self.flags != ALL_ACTIONS;
        differs.then(|| Plan { version: USUAL_VERSION, flags: ALL_ACTIONS, ..self.clone() })
    }

    pub(super) fn random(random: &mut Random) -> Plan {
        let all = (1 << Callback::ALL.len()) - 1;
        let most = all & !Callback::Negotiate.bit();
        let mut callbacks = random.weighted(&[(40, most), (45, 0), (15, Callback::Eom.bit())]);
        if callbacks != most {
            callbacks |= random.bits(u32::from(most)) as u16;
        }
        // Without xxfi_close little is seen.
        if random.percent(90) {
            callbacks |= Callback::Close.bit();
        }
        if random.percent(45) {
            callbacks |= Callback::Negotiate.bit();
        }
        let mut plan = Plan {
            callbacks,
            version: random.weighted(&[(85, USUAL_VERSION), (5, 0x0100_0000), (4, 2), (3, 3), (3, 4)]),
            flags: random.weighted(&[(60, ALL_ACTIONS), (15, 0), (10, 0x3f), (15, 0x8000_0000)]),
            steps: Vec::new(),
        };
        if plan.flags == 0x8000_0000 {
            let offered = if random.percent(90) { ALL_ACTIONS } else { 0x1fff };
            plan.flags = random.bits(offered);
        }
        plan.invent_steps(random);
        plan
    }

    fn invent_steps(&mut self, random: &mut Random) {
        // Whether this filter only does what makes sense, so that well-behaved sessions get far.
        let sane = random.percent(50);
        if self.has(Callback::Negotiate) {
            self.negotiate(random, sane);
        }
        let eager = random.one_of(&[5, 20, 40]);
        for callback in Callback::ALL.into_iter().filter(|callback| *callback != Callback::Negotiate) {
            if !self.has(callback) {
                continue;
            }
            let busy = if callback == Callback::Eom { 60 } else { eager };
            while random.percent(busy) && self.steps.len() < 30 {
                let deed = invent_deed(random, callback);
                self.push(callback, moment(random), deed);
            }
            if random.percent(if sane { eager / 2 } else { eager }) {
                let verdict = verdict(random, callback, sane);
                self.push(callback, moment(random), Deed::Return(verdict));
            }
        }
    }

    fn negotiate(&mut self, random: &mut Random, sane: bool) {
        let callback = Callback::Negotiate;
        match random.below(10) {
            0..=2 => self.push(callback, 0, Deed::Return(ALL_OPTS)),
            3 if !sane => {
                let value = random.one_of(&[REJECT, ACCEPT, NOREPLY, 5, 99, -1]);
                self.push(callback, moment(random), Deed::Return(value));
            }
            3..=5 => {}
            _ => {
                let mut wanted = 0;
                for (asked, no_reply) in ASKED {
                    if random.percent(35) {
                        wanted |= no_reply;
                        if random.percent(if sane { 100 } else { 80 }) {
                            self.push(asked, 0, Deed::Return(NOREPLY));
                        }
                    }
                }
                if random.percent(50) {
                    wanted |= random.bits(0x37f);
                }
                wanted |= random.bits(if sane { 0xc00 } else { 0x10_0c00 });
                if !sane && random.percent(5) {
                    wanted |= random.bits(u32::MAX);
                }
                let high = if random.percent(3) { 0xdead_0000_0000_0000 } else { 0 };
                self.push(callback, moment(random), Deed::Output(1, high | u64::from(wanted)));
            }
        }
        if random.percent(25) {
            let possible = if random.percent(90) { ALL_ACTIONS } else { 0x1_01ff };
            let actions = random.bits(possible);
            self.push(callback, 0, Deed::Output(0, u64::from(actions)));
        }
        if random.percent(5) {
            let at = random.between(2, 3);
            self.push(callback, 0, Deed::Output(at, 7));
        }
        while random.percent(25) {
            let list = symbol_list(random);
            self.push(callback, 0, list);
        }
    }

    fn push(&mut self, callback: Callback, nth: u32, deed: Deed) {
        if self.has(callback) {
            self.steps.push(Step { callback, nth, deed });
        }
    }
}

fn moment(random: &mut Random) -> u32 {
    random.weighted(&[(60, 0), (20, 1), (15, 2), (5, 3)])
}

fn verdict(random: &mut Random, callback: Callback, sane: bool) -> i32 {
    let undefined = random.one_of(&UNDEFINED);
    let verdicts = [(15, CONTINUE), (25, REJECT), (20, TEMPFAIL), (15, ACCEPT), (15, DISCARD), (10, SKIP)];
    if sane {
        let passing = matches!(callback, Callback::Header | Callback::Body);
        return random.weighted(&verdicts[..if passing { 6 } else { 5 }]);
    }
    match random.below(100) {
        0..=7 => NOREPLY,
        8..=13 => undefined,
        _ => random.weighted(&verdicts),
    }
}

fn given(text: &[u8]) -> Text {
    Some(text.to_vec())
}

const MACROS: [&str; 12] =
    ["i", "{i}", "j", "_", "{mail_addr}", "mail_addr", "{rcpt_addr}", "{m}", "m", "{}", "x", "{x}"];

/// Names a filter asks for.
fn macro_name(random: &mut Random) -> Text {
    match random.below(40) {
        0 => None,
        1 => given(b""),
        _ => given(random.one_of(&MACROS).as_bytes()),
    }
}

fn symbol_list(random: &mut Random) -> Deed {
    let stage = if random.percent(90) { random.below(7) as i32 } else { random.one_of(&[-1, 7, 8, 1000]) };
    let lists: [Option<&[u8]>; 5] = [Some(b"j {if_name}"), Some(b"{rcpt_addr}"), Some(b""), None, Some(b"i")];
    Deed::SetSymList(stage, random.one_of(&lists).map(<[u8]>::to_vec))
}

fn invent_deed(random: &mut Random, callback: Callback) -> Deed {
    let modifies = matches!(callback, Callback::Eom) || random.percent(10);
    match random.below(100) {
        0..=44 if modifies => Deed::Modify(modification(random)),
        45..=49 => Deed::Progress,
        50..=64 => stored_reply(random),
        65..=69 => multi_line_reply(random),
        70..=73 => Deed::SetPriv(random.below(3) as i32),
        74..=77 => Deed::GetPriv,
        78 => symbol_list(random),
        _ => Deed::GetSymVal(macro_name(random)),
    }
}

fn code(random: &mut Random) -> Text {
    let codes: [&[u8]; 8] = [b"550", b"550", b"554", b"451", b"421", b"250", b"5x0", b"5500"];
    if random.percent(2) { None } else { given(random.one_of(&codes)) }
}

fn status(random: &mut Random) -> Text {
    let statuses: [&[u8]; 9] =
        [b"5.7.1", b"5.7.1", b"4.2.0", b"2.1.1", b"5.123.456", b"5.7.", b"5.7.1x", b"3.0.0", b"5.1234.1"];
    if random.percent(25) { None } else { given(random.one_of(&statuses)) }
}

fn line(random: &mut Random) -> Vec<u8> {
    match random.below(50) {
        0 => b"a\rb".to_vec(),
        1 => b"a\nb".to_vec(),
        2 => vec![b'x'; 980],
        3 => vec![b'x'; 981],
        4 => Vec::new(),
        5 => b"\xff 100%".to_vec(),
        _ => b"no".to_vec(),
    }
}

fn stored_reply(random: &mut Random) -> Deed {
    let text = if random.percent(10) { None } else { Some(line(random)) };
    Deed::SetReply(code(random), status(random), text)
}

fn multi_line_reply(random: &mut Random) -> Deed {
    let count = random.weighted(&[(10, 0), (20, 1), (50, 3), (10, 32), (10, 33)]);
    let mut lines = vec![b"no".to_vec(); count];
    if count > 0 && random.percent(60) {
        let at = random.below(count);
        lines[at] = line(random);
    }
    Deed::SetMlReply(code(random), status(random), lines)
}

fn modification(random: &mut Random) -> Modification {
    let length = if random.percent(97) { 3 } else { random.between(65_525, 65_537) };
    let mut optional = |text: &[u8]| match random.below(12) {
        0 => None,
        1 => given(b""),
        2 => Some(vec![b'v'; length]),
        _ => given(text),
    };
    let (name, value, address) = (optional(b"X-A"), optional(b"v\n w"), optional(b"<c@x>"));
    let arguments = optional(b"SIZE=1");
    let index = random.one_of(&[0, 1, 2, 70_000, -1, i32::MAX]);
    match random.below(10) {
        0 => Modification::AddHeader(name, value),
        1 => Modification::InsHeader(index, name, value),
        2 => Modification::ChgHeader(name, index, value),
        3 => Modification::ChgFrom(address, arguments),
        4 => Modification::AddRcpt(address),
        5 => Modification::AddRcptPar(address, arguments),
        6 => Modification::DelRcpt(address),
        7 => Modification::Quarantine(value),
        _ => replaced_body(random),
    }
}

fn replaced_body(random: &mut Random) -> Modification {
    let size = random.weighted(&[(60, 4), (30, 0), (3, 65_535), (3, 65_536), (4, 70_000)]);
    match random.below(12) {
        0 => Modification::ReplaceBody(None, random.one_of(&[0, 1, -1])),
        1 => Modification::ReplaceBody(given(b"body"), random.one_of(&[-1, 0, 2])),
        _ => Modification::ReplaceBody(Some(vec![b'r'; size]), size as i32),
    }
}
