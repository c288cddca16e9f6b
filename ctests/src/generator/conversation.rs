//! What MTAs say.

use super::{
    model::{Model, Nature},
    plan::Plan,
    random::Random,
};
use crate::wire::Frame;

/// How the octets of a connection are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// A command, then what it is answered with, and so on.
    InStep,
    /// Everything at once.
    Whole,
    /// Cut at these places, without waiting for answers.
    Pieces(Vec<usize>),
}

/// One connection of an MTA.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// Packets, or what mutation has made of them.
    pub(super) commands: Vec<Vec<u8>>,
    pub(super) delivery: Delivery,
    /// Closed in both directions at the end, if nothing is under way then; otherwise shut down.
    pub(super) close: bool,
}

/// Connections one after another.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) connections: Vec<Connection>,
}

impl Connection {
    /// The places up to which the octets are written at once; after each the answers are awaited if `InStep`.
    pub(super) fn cuts(&self) -> Vec<usize> {
        let ends = self.commands.iter().scan(0, |at, command| {
            *at += command.len();
            Some(*at)
        });
        let total = self.commands.iter().map(Vec::len).sum();
        match &self.delivery {
            Delivery::InStep => ends.collect(),
            Delivery::Whole => vec![total],
            Delivery::Pieces(places) => {
                let mut cuts: Vec<usize> = places.iter().map(|place| place % (total + 1)).chain([total]).collect();
                cuts.sort_unstable();
                cuts.dedup();
                cuts
            }
        }
    }
}

impl Conversation {
    /// A conversation of well-behaved MTAs with a filter that follows `plan`.
    pub(super) fn random(random: &mut Random, plan: &Plan) -> Conversation {
        let mut model = Model::new(Nature::Documented, plan);
        let count = random.weighted(&[(50, 1), (20, 2), (15, 4), (15, 8)]);
        let connections = (0..count).map(|_| Mta::new(random, &mut model).connection()).collect();
        Conversation { connections }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Brand {
    Sendmail,
    Postfix,
}

/// What a filter has answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Go on: continue, or nothing because nothing was due.
    GoOn,
    Skip,
    Refused,
    /// Accepted or discarded for good.
    Settled,
}

struct Mta<'r, 'm, 'p> {
    random: &'r mut Random,
    model: &'m mut Model<'p>,
    brand: Brand,
    /// What the filter does not want to be sent.
    declined: u32,
    commands: Vec<Vec<u8>>,
}

/// Steps that leave a command out, by the command.
fn step(letter: u8) -> u32 {
    match letter {
        b'C' => 0x1,
        b'H' => 0x2,
        b'M' => 0x4,
        b'R' => 0x8,
        b'T' => 0x200,
        b'L' => 0x20,
        b'N' => 0x40,
        b'B' => 0x10,
        b'U' => 0x100,
        _ => 0,
    }
}

pub(super) fn packet(letter: u8, payload: &[u8]) -> Vec<u8> {
    Frame { letter, payload: payload.to_vec() }.octets()
}

pub(super) fn offer(version: u32, actions: u32, steps: u32) -> Vec<u8> {
    packet(b'O', &[version, actions, steps].map(u32::to_be_bytes).concat())
}

const ADDRESSES: [&[u8]; 4] =
    [b"<a@example.org>\0", b"<b@example.net>\0SIZE=100\0BODY=8BITMIME\0", b"<>\0", b"<c>\0NOTIFY=NEVER\0"];
const CLIENTS: [&[u8]; 6] = [
    b"host.example\x004\x04\xd2192.0.2.1\0",
    b"[192.0.2.7]\x004\0\x19192.0.2.7\0",
    b"six.example\x006\x01\x02IPv6:2001:db8::1\0",
    b"six.example\x006\x01\x022001:db8::2\0",
    b"localhost\0U",
    b"localhost\0L\0\0/run/client\0",
];
const HEADERS: [&[u8]; 5] =
    [b"Subject\0hello\0", b"From\0 a@example.org\0", b"X-Empty\0\0", b"Received\0by x\n\tfor y\0", b"X\0\xe4\xff\0"];

impl<'r, 'm, 'p> Mta<'r, 'm, 'p> {
    fn new(random: &'r mut Random, model: &'m mut Model<'p>) -> Mta<'r, 'm, 'p> {
        let brand = random.one_of(&[Brand::Sendmail, Brand::Postfix]);
        model.connect();
        Mta { random, model, brand, declined: 0, commands: Vec::new() }
    }

    fn connection(mut self) -> Connection {
        self.session();
        let random = self.random;
        let delivery = match random.below(100) {
            0..=49 => Delivery::InStep,
            50..=74 => Delivery::Whole,
            75..=94 => Delivery::Pieces((0..random.between(1, 12)).map(|_| random.below(100_000)).collect()),
            _ => Delivery::Pieces((0..self.commands.iter().map(Vec::len).sum::<usize>().min(300)).collect()),
        };
        let close = random.percent(15);
        Connection { commands: self.commands, delivery, close }
    }

    /// Says something; what was said and is no longer heard by anybody is kept too.
    fn say(&mut self, letter: u8, payload: &[u8]) -> Answer {
        let octets = packet(letter, payload);
        let before = self.model.output().len();
        self.model.feed(&octets);
        self.commands.push(octets);
        let mut answer = Answer::GoOn;
        let mut rest = &self.model.output()[before..];
        while let Some((&[a, b, c, d, letter], _)) = rest.split_first_chunk() {
            answer = match letter {
                b'r' | b't' | b'y' => Answer::Refused,
                b'a' | b'd' => Answer::Settled,
                b's' => Answer::Skip,
                _ => Answer::GoOn,
            };
            if let (b'O', Some(steps)) = (letter, rest.get(13..).and_then(<[u8]>::first_chunk)) {
                self.declined = u32::from_be_bytes(*steps);
            }
            rest = &rest[4 + u32::from_be_bytes([a, b, c, d]) as usize..];
        }
        answer
    }

    fn macros(&mut self, letter: u8) {
        const LISTS: [(u8, &[u8]); 7] = [
            (b'C', b"j\0mx\0_\0host\0{daemon_name}\0d\0"),
            (b'H', b"{tls_version}\0TLSv1.3\0x\0y\0"),
            (b'M', b"i\0Q1\0{mail_addr}\0a\0"),
            (b'R', b"{rcpt_addr}\0b\0{m}\0\0"),
            (b'T', b"i\0Q2\0"),
            (b'N', b"i\0Q3\0m\0eoh\0"),
            (b'E', b"{msg_id}\0<1>\0{m}\0eom\0"),
        ];
        let list = LISTS.iter().find(|(known, _)| *known == letter).map_or(&b""[..], |(_, list)| list);
        let said = match self.brand {
            Brand::Sendmail => !list.is_empty() && self.random.percent(70),
            Brand::Postfix => true,
        };
        if said {
            let list = if self.random.percent(10) { b"" } else { list };
            self.say(b'D', &[&[letter], list].concat());
        }
    }

    /// A command with its macros, unless the filter does not want it.
    fn tell(&mut self, letter: u8, payload: &[u8]) -> Answer {
        let wanted = self.declined & step(letter) == 0;
        if wanted || self.random.percent(20) {
            self.macros(letter);
        }
        if wanted { self.say(letter, payload) } else { Answer::GoOn }
    }

    fn offer(&mut self) -> Vec<u8> {
        let postfix = self.brand == Brand::Postfix;
        match self.random.below(20) {
            0..=1 if postfix => offer(2, 0x1ff, 0x7f),
            2 if postfix => offer(3, 0x1ff, 0x17f),
            3 if postfix => offer(4, 0x1ff, 0x37f),
            4 => offer(6, 0x1ff, 0x1f_ffff & !self.random.bits(0x1f_f000)),
            5 => offer(self.random.between(1, 9) as u32, self.random.bits(0x1ff), self.random.bits(0x1f_ffff)),
            6 => offer(6, self.random.bits(u32::MAX), self.random.bits(u32::MAX)),
            _ => offer(6, 0x1ff, 0x1f_ffff),
        }
    }

    fn session(&mut self) {
        let offer = self.offer();
        self.say(b'O', &offer[5..]);
        let client = self.random.one_of(&CLIENTS);
        let mut answer = self.tell(b'C', client);
        if answer == Answer::GoOn {
            answer = self.tell(b'H', b"mx.example\0");
        }
        if answer == Answer::GoOn {
            for _ in 0..self.random.weighted(&[(10, 0), (55, 1), (25, 2), (10, 4)]) {
                if self.random.percent(8) {
                    self.tell(b'U', b"FOO bar\0");
                }
                if self.random.percent(8) {
                    self.tell(b'H', b"again\0");
                }
                self.message();
                if self.model.is_over() {
                    break;
                }
            }
        }
        match self.random.below(20) {
            0 => {
                self.say(b'K', b"");
                let client = self.random.one_of(&CLIENTS);
                self.tell(b'C', client);
                self.tell(b'H', b"next\0");
                self.message();
                self.say(b'Q', b"");
            }
            1..=5 => {}
            _ => {
                self.say(b'Q', b"");
            }
        }
    }

    /// RSET, as far as the filter hears of it.
    fn reset(&mut self, by: Answer) {
        if self.brand == Brand::Postfix || by == Answer::GoOn {
            self.say(b'A', b"");
        }
    }

    fn message(&mut self) {
        let sender = self.random.one_of(&ADDRESSES);
        let answer = self.tell(b'M', sender);
        if answer != Answer::GoOn {
            return self.reset(answer);
        }
        let mut accepted = 0;
        for _ in 0..self.random.between(1, 3) {
            let recipient = self.random.one_of(&ADDRESSES);
            match self.tell(b'R', recipient) {
                Answer::GoOn | Answer::Skip => accepted += 1,
                Answer::Refused => {}
                Answer::Settled => return self.reset(Answer::Settled),
            }
            if self.random.percent(5) && self.tell(b'U', b"VRFY x\0") == Answer::Settled {
                return self.reset(Answer::Settled);
            }
        }
        if accepted == 0 || self.random.percent(10) {
            return self.reset(Answer::GoOn);
        }
        let answer = self.tell(b'T', b"");
        if !matches!(answer, Answer::GoOn | Answer::Skip) || self.random.percent(3) {
            return self.reset(answer);
        }
        if self.content().is_break() {
            return self.reset(Answer::Settled);
        }
        let last: &[u8] = if self.random.percent(8) { b"last" } else { b"" };
        self.tell(b'E', last);
        if self.brand == Brand::Postfix {
            self.reset(Answer::Settled);
        }
    }

    /// Headers and body, up to a verdict.
    fn content(&mut self) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        let pieces: [(u8, usize); 3] =
            [(b'L', self.random.between(0, 4)), (b'N', 1), (b'B', self.random.weighted(&[(15, 0), (60, 1), (25, 3)]))];
        for (letter, count) in pieces {
            for _ in 0..count {
                let payload = match letter {
                    b'L' => self.random.one_of(&HEADERS),
                    b'B' => self.random.one_of(&[&b"line\r\n"[..], b"\0\xff\r\n.\r\n"]),
                    _ => b"",
                };
                match self.tell(letter, payload) {
                    Answer::GoOn => {}
                    Answer::Skip => break,
                    Answer::Refused | Answer::Settled => return Break(()),
                }
            }
        }
        Continue(())
    }
}
