//! Sessions made of bytes, for random tests and fuzzing.
//!
//! What the MTA says is taken from the front of the bytes, what the filter does from their end; the session is over where
//! the two meet. So a byte more in one command does not change what the filter does.

use std::cell::RefCell;

use milter_protocol::frame::{self, FrameError};
use milter_protocol::{Actions, Callback, Callbacks, Modification, Profile, SmtpReply, Stage, Steps};

use crate::oracle::{Calls, Filter, Session};

/// Bytes that are still unused. Where there are none left, there are zeros.
struct Source<'a>(RefCell<&'a [u8]>);

impl<'a> Source<'a> {
    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    fn front(&self) -> u8 {
        let mut rest = self.0.borrow_mut();
        rest.split_off_first().copied().unwrap_or(0)
    }

    fn front_word(&self) -> u32 {
        u32::from_be_bytes([(); 4].map(|()| self.front()))
    }

    /// As many as there are, up to `count`.
    fn front_bytes(&self, count: usize) -> &'a [u8] {
        let mut rest = self.0.borrow_mut();
        let count = count.min(rest.len());
        rest.split_off(..count).unwrap_or_default()
    }

    fn back(&self) -> u8 {
        let mut rest = self.0.borrow_mut();
        rest.split_off_last().copied().unwrap_or(0)
    }

    fn back_word(&self) -> u32 {
        u32::from_be_bytes([(); 4].map(|()| self.back()))
    }

    /// A string of the filter's, which is C's: without NUL.
    fn back_string(&self) -> Vec<u8> {
        let length = self.back() % 8;
        (0..length).map(|_| self.back().max(1)).collect()
    }
}

/// Plays the session that these bytes make, and checks it.
pub(crate) fn play(bytes: &[u8]) {
    let source = Source(RefCell::new(bytes));
    let callbacks = match source.front() {
        0 => Callbacks::all(),
        1 => Callbacks::all() - Callbacks::NEGOTIATE,
        high => Callbacks::from_bits_truncate(u16::from_be_bytes([high, source.front()])),
    };
    let kind = source.front();
    let profile = Profile {
        version: if kind & 1 == 0 { 0x0100_0001 } else { 0x0100_0002 },
        actions: if kind & 2 == 0 { Actions::VERSION_6 } else { Actions::from_bits_retain(source.front_word()) },
        callbacks: callbacks | Callbacks::ABORT | Callbacks::CLOSE,
        promised: if kind & 4 == 0 {
            Steps::empty()
        } else {
            Steps::from_bits_retain(source.front_word()) & Steps::NO_REPLY
        },
    };
    let limit = if kind & 8 == 0 { frame::DEFAULT_LIMIT } else { source.front().into() };
    let mut session = Session::new(profile, limit, Script { source: &source });
    while !source.is_empty() && !session.engine().is_finished() {
        match source.front() {
            0xff => session.lose(),
            0xfe => session.refuse(FrameError::Empty),
            kind => {
                let (letter, mut payload) = command(kind, &source);
                session.take(letter, &mut payload);
            }
        }
    }
    session.lose();
}

/// A command that is well-formed more often than not.
fn command(kind: u8, source: &Source<'_>) -> (u8, Vec<u8>) {
    let letter = *b"OCHMRTLNBEAQKUD".get(usize::from(kind & 0x0f)).unwrap_or(&source.front());
    let payload = match kind >> 4 {
        0..=7 => match letter {
            b'O' => [6, Actions::VERSION_6.bits(), Steps::VERSION_6.bits()].map(u32::to_be_bytes).concat(),
            b'C' => b"h\0U".to_vec(),
            b'H' | b'M' | b'R' | b'U' => b"a\0".to_vec(),
            b'L' => b"N\0v\0".to_vec(),
            b'B' => b"body".to_vec(),
            b'D' => vec![*b"CHMRTNEL".get(usize::from(kind >> 4)).unwrap_or(&b'E'), b'i', 0, b'v', 0],
            b'E' if kind >> 4 > 3 => b"last".to_vec(),
            _ => Vec::new(),
        },
        8 => Vec::new(),
        9 => b"no end".to_vec(),
        // Arguments, or whatever their strings are here.
        10 => b"a\0b\0\0".to_vec(),
        // Everything that can be said in an offer; a word in other commands.
        11 => [source.front().into(), source.front_word(), source.front_word()].map(u32::to_be_bytes).concat(),
        12 => [6, Actions::VERSION_6.bits(), source.front_word()].map(u32::to_be_bytes).concat(),
        13 => vec![b'x'; usize::from(source.front()) * 16],
        14 => [source.front_bytes(source.front().into()), b"\0"].concat(),
        _ => source.front_bytes(source.front().into()).to_vec(),
    };
    (letter, payload)
}

/// A filter that does what bytes say.
struct Script<'a> {
    source: &'a Source<'a>,
}

impl Filter for Script<'_> {
    fn answer(&mut self, callback: &mut Callback<'_>, calls: &mut Calls<'_>) -> Option<i32> {
        let kind = self.source.back();
        for _ in 0..kind >> 6 {
            self.call(calls);
        }
        if let Callback::Negotiate(offer) = callback {
            match kind >> 4 & 3 {
                0 => {}
                1 => offer.wanted_steps |= Steps::NO_REPLY.bits(),
                2 => offer.wanted_steps = self.source.back_word(),
                _ => (offer.wanted_actions, offer.wanted_steps) = (self.source.back_word(), self.source.back_word()),
            }
        }
        match kind & 0x0f {
            value @ 1..=8 => Some(value.into()),
            9 => Some(self.source.back().into()),
            10 => Some(10),
            11 => None,
            _ => Some(0),
        }
    }
}

impl Script<'_> {
    fn call(&self, calls: &mut Calls<'_>) {
        let kind = self.source.back();
        let index = u32::from(kind >> 4);
        let first = self.source.back_string();
        // Many bytes are of one string, or there is no other one.
        let second =
            if kind & 0x80 == 0 { self.source.back_string() } else { vec![b'x'; usize::from(self.source.back()) * 8] };
        let (name, value) = (&first[..], &second[..]);
        let arguments = (kind & 0x40 == 0).then_some(value);
        match kind & 0x0f {
            0 => calls.progress(),
            1 => calls.modify(&Modification::AddHeader { name, value }),
            2 => calls.modify(&Modification::InsertHeader { index, name, value }),
            3 => calls.modify(&Modification::ChangeHeader { index, name, value }),
            4 => calls.modify(&Modification::ChangeSender { address: name, arguments }),
            5 => calls.modify(&Modification::AddRecipient { address: name }),
            6 => calls.modify(&Modification::AddRecipientWithArguments { address: name, arguments }),
            7 => calls.modify(&Modification::DeleteRecipient { address: name }),
            8 => calls.modify(&Modification::Quarantine { reason: value }),
            9 | 10 => calls.replace_body(value),
            11 => {
                let stage = Stage::ALL[usize::from(kind >> 4) % Stage::ALL.len()];
                calls.request_macros(stage, value);
            }
            12 => calls.overwrite_macro(b"i"),
            13 => {
                let code: &[u8] = if kind & 0x10 == 0 { b"451" } else { b"550" };
                let reply = SmtpReply::multiline(code, None, [name, value]);
                reply.into_iter().for_each(|reply| calls.store_reply(reply));
            }
            _ => {
                let code: &[u8] = if kind & 0x10 == 0 { b"421" } else { b"554" };
                let reply = SmtpReply::single(code, None, arguments);
                reply.into_iter().for_each(|reply| calls.store_reply(reply));
            }
        }
    }
}
