//! A small model of the library, written from its documentation and not from its code.
//!
//! It has one of two natures: that of the reference with all its known defects, or that of the documentation. Wherever
//! the two part, the difference is named; a difference of two predictions without a name is a mistake in here.

use std::collections::BTreeSet;

use super::{
    callee::Callee,
    defect::Defect,
    negotiation::{self, Agreement},
    payload,
    plan::{ACCEPT, CONTINUE, Callback, DISCARD, NOREPLY, Plan, REJECT, SKIP, TEMPFAIL},
    state::{State, reaches, skipped},
};
use crate::words::quote;

/// What is modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    Reference,
    Documented,
}

/// Largest payload.
pub(super) const LIMIT: usize = 65_535;

/// A process that follows a plan, and its session in progress.
pub(super) struct Model<'a> {
    nature: Nature,
    plan: &'a Plan,
    callee: Callee<'a>,
    /// In the reference one set for all sessions.
    process_skipped: u16,
    session: Session,
    differences: BTreeSet<Defect>,
    undefined: bool,
}

#[derive(Default)]
struct Session {
    input: Vec<u8>,
    over: bool,
    state: State,
    skipped: u16,
    steps: u32,
    emulated: u32,
    /// Version, actions and steps.
    agreed: [u32; 3],
    /// Where the reference was when UNKNOWN came (defect 5).
    before_unknown: Option<State>,
    /// A part of a message has begun, and no end of it has come.
    open: bool,
    /// xxfi_close has run and nothing was taken since.
    closed: bool,
}

impl<'a> Model<'a> {
    pub(super) fn new(nature: Nature, plan: &'a Plan) -> Model<'a> {
        Model {
            nature,
            plan,
            callee: Callee::new(plan, nature),
            process_skipped: 0,
            session: Session { over: true, ..Session::default() },
            differences: BTreeSet::new(),
            undefined: false,
        }
    }

    /// What made a difference so far.
    pub(super) fn differences(&self) -> BTreeSet<Defect> {
        self.differences.union(&self.callee.differences).copied().collect()
    }

    /// Whether the reference has read what it must not: from here on nobody knows what it does (defect 14).
    pub(super) fn is_undefined(&self) -> bool {
        self.undefined || self.callee.undefined
    }

    /// What the filter has recorded.
    pub(super) fn events(&self) -> &[String] {
        &self.callee.events
    }

    /// What the session has sent so far.
    pub(super) fn output(&self) -> &[u8] {
        &self.callee.output
    }

    pub(super) fn is_over(&self) -> bool {
        self.session.over
    }

    /// Names a difference; true if the reference is modelled.
    fn parts(&mut self, difference: Defect) -> bool {
        self.differences.insert(difference);
        self.nature == Nature::Reference
    }

    fn go(&mut self, state: State) {
        self.session.state = state;
    }

    pub(super) fn connect(&mut self) {
        self.callee.begin_session();
        let skipped = skipped(negotiation::own_steps(self.plan));
        self.process_skipped |= skipped;
        self.session = Session { skipped, ..Session::default() };
    }

    /// Takes octets from the MTA.
    pub(super) fn feed(&mut self, octets: &[u8]) {
        self.session.input.extend_from_slice(octets);
        while let (false, Some(&[a, b, c, d, letter])) = (self.session.over, self.session.input.first_chunk()) {
            let length = u32::from_be_bytes([a, b, c, d]);
            let size = if length == 0 || length > 0x8000_0000 {
                if !self.parts(Defect(3)) {
                    return self.fail();
                }
                0
            } else {
                length as usize - 1
            };
            if size > LIMIT {
                return self.fail();
            }
            if self.session.input.len() < 5 + size {
                return;
            }
            let payload: Vec<u8> = self.session.input.drain(..5 + size).skip(5).collect();
            self.command(letter, &payload);
        }
    }

    /// Takes the end of the connection; `deaf` if the MTA does not read any more either.
    pub(super) fn end(&mut self, deaf: bool) {
        self.callee.deaf = deaf;
        if !self.session.over {
            self.fail();
        }
    }

    fn fail(&mut self) {
        self.note_unknown(None);
        let in_message = match self.nature {
            Nature::Reference => self.session.state.in_mail(),
            Nature::Documented => self.session.open,
        };
        if in_message {
            self.abort();
        }
        self.finish();
    }

    /// The last call of a session, unless xxfi_close has run for QUIT_NC.
    fn finish(&mut self) {
        if !self.session.closed || self.parts(Defect(11)) {
            let modifiable = self.session.state == State::Eom && self.parts(Defect(52));
            if self.plan.calls(Callback::Close) {
                self.callee.call(Callback::Close, "close", None, modifiable);
            }
        }
        self.session.over = true;
    }

    /// xxfi_close for QUIT_NC.
    fn close(&mut self) {
        if !self.session.closed || self.parts(Defect(11)) {
            self.run(Callback::Close, "close");
        }
        self.session.closed = true;
        self.callee.macros.clear_from(0);
    }

    fn abort(&mut self) {
        self.session.open = false;
        self.run(Callback::Abort, "abort");
    }

    fn run(&mut self, callback: Callback, record: &str) -> Option<i32> {
        self.plan.calls(callback).then(|| self.callee.call(callback, record, None, false))
    }

    fn command(&mut self, letter: u8, payload: &[u8]) {
        let target = State::of(letter);
        if target.is_none() && letter != b'D' {
            return self.fail();
        }
        match self.nature {
            Nature::Reference => self.follow_reference(letter, target, payload),
            Nature::Documented => self.follow_documentation(letter, target, payload),
        }
    }

    fn follow_documentation(&mut self, letter: u8, target: Option<State>, payload: &[u8]) {
        if payload::is_needed(letter) && payload.is_empty() {
            return self.fail();
        }
        let open = self.session.open;
        match (letter, target) {
            (b'A', _) if open => {
                self.abort();
                self.go(State::Helo);
            }
            // Nothing to abort.
            (b'A', _) => {}
            (b'Q' | b'K', _) => {
                if open {
                    self.abort();
                }
                if letter == b'Q' {
                    return self.finish();
                }
                self.close();
                self.callee.forget_reply();
                // Who comes next has no offer yet either.
                if self.session.state != State::Init {
                    self.go(State::QuitNc);
                }
            }
            (b'D', _) => self.callee.macros.store(payload),
            (b'U', _) => self.handle(letter, payload),
            (_, Some(target)) => {
                let skipped = self.session.skipped;
                if !reaches(self.session.state, target, skipped, true) {
                    if !reaches(State::Helo, target, skipped, true) {
                        self.differences.insert(Defect(7));
                        return self.fail();
                    }
                    if open {
                        self.abort();
                    }
                }
                self.go(target);
                self.handle(letter, payload);
            }
            (_, None) => unreachable!("commands but MACRO lead to a state"),
        }
    }

    fn follow_reference(&mut self, letter: u8, target: Option<State>, payload: &[u8]) {
        let before = self.session.state;
        let was_in_mail = before.in_mail();
        let mut aborted = false;
        if let Some(target) = target
            && !self.reached(target)
        {
            if was_in_mail {
                self.abort();
                aborted = true;
            }
            self.go(State::Helo);
            if self.reached(target) {
                if matches!(letter, b'A' | b'U') {
                    self.differences.insert(Defect(if letter == b'A' { 8 } else { 5 }));
                }
            } else if letter == b'A' {
                if before < State::Helo {
                    self.differences.insert(Defect(6));
                }
                return;
            } else if letter != b'Q' {
                self.differences.insert(Defect(if letter == b'K' { 11 } else { 7 }));
                return;
            }
        }
        if payload::is_needed(letter) && payload.is_empty() {
            self.note_unknown(None);
            if was_in_mail {
                if aborted {
                    self.differences.insert(Defect(9));
                }
                self.abort();
            }
            return self.finish();
        }
        if letter == b'U' && before != State::Unknown {
            // ABORT has led back to where messages start.
            self.session.before_unknown = Some(if before == State::Abort { State::Helo } else { before });
        }
        if let Some(target) = target {
            self.go(target);
        }
        match letter {
            b'A' => {
                if !was_in_mail {
                    self.differences.insert(Defect(if before == State::Unknown { 5 } else { 8 }));
                }
                self.abort();
            }
            b'Q' => self.finish(),
            b'K' => {
                self.close();
                if self.callee.has_stored_reply() {
                    self.differences.insert(Defect(11));
                }
            }
            b'D' => self.callee.macros.store(payload),
            _ => self.handle(letter, payload),
        }
    }

    /// Whether the reference gets from here to `next`; names why, if it should not, or should.
    fn reached(&mut self, next: State) -> bool {
        self.note_unknown(Some(next));
        let state = self.session.state;
        let reached = reaches(state, next, self.process_skipped, false);
        let own = self.session.skipped;
        let part = matches!(next, State::Rcpt | State::Data | State::Body);
        let difference = if state == State::Abort && part && reached && !reaches(State::Helo, next, own, false) {
            Defect(53)
        } else if reaches(state, next, own, false) != reached {
            Defect(1)
        } else if reaches(state, next, own, true) != reached {
            Defect(4)
        } else {
            return reached;
        };
        self.differences.insert(difference);
        reached
    }

    /// The reference goes on from UNKNOWN and not from where it was before; names that where it makes a difference.
    fn note_unknown(&mut self, next: Option<State>) {
        let Some(before) = self.session.before_unknown.filter(|_| self.session.state == State::Unknown) else { return };
        let differs = |next| {
            let from = |state| reaches(state, next, self.session.skipped, true);
            from(before) != from(State::Unknown)
        };
        if before.in_mail() || next.is_some_and(differs) {
            self.differences.insert(Defect(5));
        }
    }

    /// Notes that a command begins what it is part of: a message, a client.
    fn begin(&mut self, letter: u8) {
        self.session.closed = false;
        self.session.open |= b"MRTLNBE".contains(&letter);
    }

    /// A command that cannot be understood. It begins nothing here.
    fn misunderstand(&mut self, letter: u8) {
        if !self.session.open && b"MRTLNBE".contains(&letter) {
            self.differences.insert(Defect(9));
        }
        if self.session.closed {
            self.differences.insert(Defect(11));
        }
        self.fail();
    }

    /// A command that was taken, and to which the filter may reply.
    fn handle(&mut self, letter: u8, payload: &[u8]) {
        if matches!(letter, b'E' | b'U') {
            self.begin(letter);
        }
        match letter {
            b'O' => self.negotiate(payload),
            b'E' => self.end_of_message(payload),
            b'U' => {
                if self.plan.calls(Callback::Unknown) && !payload.contains(&0) && self.parts(Defect(14)) {
                    self.undefined = true;
                }
                let record = format!("unknown {}", quote(payload::string(payload)));
                let value = self.run(Callback::Unknown, &record);
                self.settle(letter, value);
            }
            _ => self.ask(letter, payload),
        }
    }

    /// Commands whose callback is given the payload and answers.
    fn ask(&mut self, letter: u8, payload: &[u8]) {
        let (callback, slot) = match letter {
            b'C' => (Callback::Connect, Some(1)),
            b'H' => (Callback::Helo, Some(2)),
            b'M' => (Callback::EnvFrom, Some(3)),
            b'R' => (Callback::EnvRcpt, Some(4)),
            b'T' => (Callback::Data, None),
            b'L' => (Callback::Header, None),
            b'N' => (Callback::Eoh, None),
            _ => (Callback::Body, None),
        };
        if let Some(slot) = slot {
            self.callee.macros.clear_from(slot);
        }
        if !self.plan.calls(callback) {
            self.begin(letter);
            return self.settle(letter, None);
        }
        let shown = match letter {
            b'C' => payload::client(payload),
            b'H' if payload.last() != Some(&0) => {
                // Nothing at all there; a packet like any other that is not understood here.
                if self.parts(Defect(12)) {
                    return;
                }
                None
            }
            b'H' => Some(format!(" {}", quote(payload::string(payload)))),
            b'M' | b'R' => payload::strings(payload),
            b'L' => match payload::header(payload) {
                Some((name, value)) if !name.is_empty() || self.parts(Defect(13)) => {
                    Some(format!(" {} {}", quote(name), quote(value)))
                }
                _ => None,
            },
            b'B' => Some(format!(" {}", quote(payload))),
            _ => Some(String::new()),
        };
        match shown {
            Some(shown) => {
                self.begin(letter);
                let value = self.run(callback, &format!("{}{shown}", callback.name()));
                self.settle(letter, value);
            }
            None => self.misunderstand(letter),
        }
    }

    fn end_of_message(&mut self, payload: &[u8]) {
        if !payload.is_empty() && self.plan.calls(Callback::Body) {
            let record = format!("body {}", quote(payload));
            let value = self.callee.call(Callback::Body, &record, None, true);
            if value != CONTINUE {
                if self.parts(Defect(10)) {
                    self.settle(b'E', Some(value));
                    if !self.session.over {
                        self.settle(b'E', Some(value));
                    }
                    return;
                }
                if value != SKIP && value != NOREPLY {
                    return self.settle(b'E', Some(value));
                }
            }
        }
        self.session.open = false;
        let value = self.plan.calls(Callback::Eom).then(|| self.callee.call(Callback::Eom, "eom", None, true));
        self.settle(b'E', value);
    }

    fn negotiate(&mut self, payload: &[u8]) {
        self.callee.macros.clear_from(0);
        let Some(offer) = negotiation::Offer::read(payload) else { return self.misunderstand(b'O') };
        self.begin(b'O');
        let choice = if self.plan.calls(Callback::Negotiate) {
            let wide = offer.is_wide() && self.parts(Defect(18));
            let mut outputs = offer.outputs(self.plan, wide);
            let record = offer.record(&outputs, wide);
            let value = self.callee.call(Callback::Negotiate, &record, Some(&mut outputs), false);
            Some((value, outputs))
        } else {
            None
        };
        let Some(agreement) = offer.settle(self.plan, choice) else { return self.fail() };
        let Agreement { actions, steps, emulated, .. } = agreement;
        self.callee.actions = actions;
        self.session.steps = steps;
        self.session.emulated = emulated;
        self.session.skipped |= skipped(steps);
        self.process_skipped |= skipped(steps);
        self.session.agreed = agreement.numbers();
        self.answer_offer();
    }

    fn answer_offer(&mut self) {
        let reply = negotiation::reply(self.session.agreed, &self.callee.symbol_lists);
        self.callee.send(b'O', &reply);
    }

    /// Replies to what a callback returned, and goes where that leads. Without callback the library has no objection.
    fn settle(&mut self, letter: u8, value: Option<i32>) {
        let quiet = self.session.steps & negotiation::no_reply_step(letter) != 0;
        let emulated = self.session.emulated & negotiation::no_reply_step(letter) != 0;
        let value = value.unwrap_or(CONTINUE);
        let defined = [CONTINUE, REJECT, DISCARD, ACCEPT, TEMPFAIL, NOREPLY, SKIP].contains(&value);
        if !defined && !self.parts(Defect(15)) {
            return self.fail();
        }
        // Also what would repeat the negotiation.
        if quiet && (defined || value == 22) {
            if emulated {
                self.callee.send(b'c', b"");
            }
            if Self::leaves(letter, value) && self.parts(Defect(16)) {
                self.go(State::Helo);
            }
            return;
        }
        match value {
            CONTINUE => self.callee.send(b'c', b""),
            REJECT => self.callee.refuse(b'5', b'r'),
            TEMPFAIL => self.callee.refuse(b'4', b't'),
            DISCARD => self.callee.send(b'd', b""),
            ACCEPT => self.callee.send(b'a', b""),
            SKIP => self.callee.send(b's', b""),
            NOREPLY if self.parts(Defect(51)) => {}
            NOREPLY => self.callee.send(b'c', b""),
            21 => return self.fail(),
            22 => self.answer_offer(),
            _ => {}
        }
        // Outside of a message there is nothing that an unknown command could end.
        if Self::leaves(letter, value) && (letter != b'U' || self.session.open || self.parts(Defect(5))) {
            self.session.open = false;
            self.go(State::Helo);
        }
    }

    /// Whether a verdict ends the message, or keeps it from beginning.
    fn leaves(letter: u8, value: i32) -> bool {
        let one_of_many = matches!(letter, b'R' | b'U');
        value == ACCEPT || (matches!(value, REJECT | DISCARD | TEMPFAIL) && !one_of_many)
    }
}
