//! A session that checks after each command what the engine owes to MTA and filter.
//!
//! The tests with random sessions and the fuzz targets in `fuzz/` use it.

use std::cell::Cell;
use std::mem;

use milter_protocol::frame::{self, FrameError};
use milter_protocol::negotiation::{ALL_OPTIONS, NegotiationError};
use milter_protocol::state::StateSet;
use milter_protocol::{
    Actions, Callback, Callbacks, CommandCode, Engine, Failure, Modification, ModificationError, Notice, Profile,
    Reply, SmtpReply, Stage, State, Steps, Verdict,
};

/// The filter's side of a session.
pub(crate) trait Filter {
    /// Returns what the callback returns; `None` if the connection is lost while it runs.
    fn answer(&mut self, callback: &mut Callback<'_>, calls: &mut Calls<'_>) -> Option<i32>;
}

/// What a filter may ask for in a callback.
pub(crate) struct Calls<'a> {
    engine: &'a mut Engine,
    /// Whether this is a callback for the end of a message.
    end_of_message: bool,
    actions: Actions,
    /// Letters of the packets that have to be sent.
    sent: &'a mut Vec<u8>,
    reply: &'a mut Option<SmtpReply>,
}

impl Calls<'_> {
    pub(crate) fn modify(&mut self, modification: &Modification<'_>) {
        let before = self.engine.output().len();
        let done = self.engine.modify(modification);
        self.check(modification.required_action(), done);
        let frame = &self.engine.output()[before..];
        assert_eq!(frame.is_empty(), done.is_err(), "what fails sends nothing");
        self.sent.extend(frame.get(4));
    }

    pub(crate) fn replace_body(&mut self, piece: &[u8]) {
        let head = self.engine.body_packet(piece.len());
        self.check(Actions::CHANGE_BODY, head.map(drop));
        if let Ok(head) = head {
            self.engine.output().extend_from_slice(&head);
            self.engine.output().extend_from_slice(piece);
            self.sent.push(b'b');
        }
    }

    fn check(&self, action: Actions, done: Result<(), ModificationError>) {
        let may = self.end_of_message && self.actions.contains(action);
        assert_eq!(matches!(done, Err(ModificationError::Obstacle(_))), !may, "{action:?}: {done:?}");
        assert_ne!(done, Err(ModificationError::NoMemory));
    }

    pub(crate) fn progress(&mut self) {
        self.engine.progress();
        self.sent.push(b'p');
    }

    pub(crate) fn store_reply(&mut self, reply: SmtpReply) {
        *self.reply = Some(reply.clone());
        self.engine.store_reply(reply);
    }

    pub(crate) fn request_macros(&mut self, stage: Stage, names: &[u8]) {
        let _ = self.engine.request_macros(stage, names);
    }

    /// Looks a macro up, and writes over it as filters may.
    pub(crate) fn overwrite_macro(&mut self, name: &[u8]) {
        if let Some((end, value)) = self.engine.macro_value(name).and_then(<[Cell<u8>]>::split_last) {
            assert_eq!(end.get(), 0, "the value of a macro ends with its NUL");
            value.iter().for_each(|octet| octet.set(b'x'));
        }
    }
}

/// One callback as it ran.
#[derive(Clone, Copy, Debug)]
struct Call {
    callback: Callbacks,
    /// What it returned; `None` if the connection was lost in it.
    value: Option<i32>,
}

/// A session between an MTA and a filter, and what is known about it from outside.
pub(crate) struct Session<F> {
    engine: Engine,
    filter: F,
    profile: Profile,
    actions: Actions,
    /// For these steps the filter does not reply.
    quiet: Steps,
    /// For these steps the MTA expects no reply.
    wire: Steps,
    left_out: StateSet,
    /// A message has begun, and nothing has ended it.
    open: bool,
    /// A client has begun that was not closed.
    active: bool,
    /// The stored reply.
    reply: Option<SmtpReply>,
    /// The callbacks of the last command.
    calls: Vec<Call>,
    notices: Vec<Notice>,
    /// Letters of the packets that have to come before the reply.
    sent: Vec<u8>,
    /// What was sent for the last command.
    output: Vec<u8>,
}

/// What the MTA said and where the session stood.
struct Turn<'a> {
    /// `None` for the end of the connection and for letters without a meaning.
    command: Option<CommandCode>,
    payload: &'a [u8],
    before: State,
}

impl<F: Filter> Session<F> {
    /// The profile has to have the callbacks for the end of messages and clients: they show what the engine believes.
    pub(crate) fn new(profile: Profile, limit: usize, filter: F) -> Self {
        assert!(profile.callbacks.contains(Callbacks::ABORT | Callbacks::CLOSE));
        Session {
            engine: Engine::new(profile, limit),
            filter,
            profile,
            actions: Actions::empty(),
            quiet: Steps::empty(),
            wire: Steps::empty(),
            left_out: State::left_out(profile.callbacks.unneeded_steps()),
            open: false,
            active: true,
            reply: None,
            calls: Vec::new(),
            notices: Vec::new(),
            sent: Vec::new(),
            output: Vec::new(),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes a command; none may come after the end of the session.
    pub(crate) fn take(&mut self, letter: u8, payload: &mut [u8]) {
        assert!(!self.engine.is_finished());
        let said = payload.to_vec();
        let turn = Turn { command: CommandCode::from_letter(letter), payload: &said, before: self.engine.state() };
        self.engine.handle_command(letter, payload);
        self.run(payload);
        self.check(&turn);
    }

    /// Takes a frame that cannot be accepted.
    pub(crate) fn refuse(&mut self, error: FrameError) {
        let turn = Turn { command: None, payload: &[], before: self.engine.state() };
        self.engine.handle_frame_error(error);
        self.run(&mut []);
        self.check(&turn);
    }

    /// Takes the end of the connection, which means nothing any more once the session is over.
    pub(crate) fn lose(&mut self) {
        let turn = Turn { command: None, payload: &[], before: self.engine.state() };
        let was_finished = self.engine.is_finished();
        self.engine.handle_disconnect();
        self.run(&mut []);
        if was_finished {
            assert!(self.calls.is_empty() && self.output.is_empty(), "nothing happens after the end");
        } else {
            self.check(&turn);
        }
    }

    fn run(&mut self, payload: &mut [u8]) {
        self.calls.clear();
        self.notices.clear();
        self.sent.clear();
        loop {
            let callback = self.engine.poll_callback(payload);
            self.notices.extend(self.engine.poll_notice());
            let Some(mut callback) = callback else { break };
            let kind = callback.kind();
            assert!(self.profile.callbacks.contains(kind), "{} is not registered", kind.c_name());
            let last_piece = kind == Callbacks::BODY && self.engine.state() == State::Eom;
            let mut calls = Calls {
                engine: &mut self.engine,
                end_of_message: kind == Callbacks::EOM || last_piece,
                actions: self.actions,
                sent: &mut self.sent,
                reply: &mut self.reply,
            };
            let value = self.filter.answer(&mut callback, &mut calls);
            self.calls.push(Call { callback: kind, value });
            match (callback, value) {
                (_, None) => self.engine.handle_disconnect(),
                (Callback::Negotiate(offer), Some(value)) => {
                    self.quiet = Steps::from_bits_retain(if value == ALL_OPTIONS { 0 } else { offer.wanted_steps });
                    self.engine.answer_negotiation(value, &offer);
                }
                (_, Some(value)) => self.engine.answer(value),
            }
        }
        self.output.clear();
        self.output.append(self.engine.output());
    }

    /// Checks what was done about a command or the end of the connection.
    fn check(&mut self, turn: &Turn<'_>) {
        let calls = mem::take(&mut self.calls);
        let taken = self.engine.failure().is_none()
            && turn.command.is_some_and(|command| command == CommandCode::Negotiate || command.expects_reply());
        let decided = self.check_calls(turn, taken, &calls);
        self.check_notices(turn, taken, &calls);
        self.check_output(turn, taken, decided);
        if self.engine.is_finished() || turn.command == Some(CommandCode::QuitNewConnection) {
            self.reply = None;
        }
        assert_eq!(self.engine.in_message(), self.open);
        self.calls = calls;
    }

    /// Checks that the filter was told what it wants to know, and returns the verdict on the command.
    fn check_calls(&mut self, turn: &Turn<'_>, taken: bool, calls: &[Call]) -> i32 {
        let failure = self.engine.failure();
        let gives_up = match turn.command {
            Some(CommandCode::Abort | CommandCode::Quit | CommandCode::QuitNewConnection) => true,
            Some(CommandCode::Macro | CommandCode::Unknown) | None => false,
            Some(command) => !State::after(command).is_some_and(|after| turn.before.reaches(after, self.left_out)),
        };
        if self.open && gives_up {
            let first = calls.first().map(|call| call.callback);
            assert_eq!(first, Some(Callbacks::ABORT), "a message that is given up is aborted");
        }
        let of_message = turn.command.is_some_and(CommandCode::is_of_message);
        // One that was well-formed but could not be agreed on, perhaps without asking the filter.
        let refused = matches!(failure, Some(Failure::Negotiation(error)) if !matches!(
            error,
            NegotiationError::Short(_) | NegotiationError::OldVersion(_)
        ));
        let mut reports = Vec::new();
        let (mut verdict, mut closes) = (0, 0);
        for &Call { callback, value } in calls {
            assert_eq!(closes, 0, "xxfi_close is the last callback");
            match callback {
                Callbacks::ABORT => {
                    assert!(mem::take(&mut self.open), "an abort is for a message");
                    assert!(gives_up || failure.is_some(), "there is a reason for an abort");
                    continue;
                }
                Callbacks::CLOSE => {
                    closes += 1;
                    continue;
                }
                Callbacks::EOM => self.open = false,
                _ if of_message => self.open = !value.is_some_and(|value| self.decides(turn, value)),
                Callbacks::UNKNOWN if value == Some(3) && !self.is_quiet(CommandCode::Unknown) => self.open = false,
                _ => {}
            }
            assert!(!self.decides(turn, verdict), "a decided message is not asked about");
            reports.push(callback);
            verdict = value.unwrap_or(0);
        }
        let mut due = Vec::new();
        match turn.command {
            Some(CommandCode::EndOfBody) => {
                due.extend((!turn.payload.is_empty()).then_some(Callbacks::BODY));
                due.extend((reports != [Callbacks::BODY] || !self.decides(turn, verdict)).then_some(Callbacks::EOM));
            }
            Some(command) if command.expects_reply() => due.push(command.callback()),
            _ => {}
        }
        due.retain(|callback| self.profile.callbacks.contains(*callback));
        assert!(if taken { reports == due } else { due.starts_with(&reports) }, "{reports:?} of {due:?} were called");

        if taken && of_message {
            self.open = turn.command != Some(CommandCode::EndOfBody) && !self.decides(turn, verdict);
        }
        self.active |= taken || refused || !reports.is_empty();
        if self.engine.is_finished() || turn.command == Some(CommandCode::QuitNewConnection) {
            assert!(!self.open, "a message ends with xxfi_eom, xxfi_abort or a verdict");
            assert_eq!(closes, usize::from(mem::take(&mut self.active)), "a client is closed once");
        } else {
            assert_eq!(closes, 0, "a client is closed at its end");
        }
        // With the last piece of a body nothing is decided unless it is refused or accepted.
        let undecided = turn.command == Some(CommandCode::EndOfBody)
            && reports.last() == Some(&Callbacks::BODY)
            && !self.decides(turn, verdict);
        if undecided { 0 } else { verdict }
    }

    /// Checks that the operator is told what the filter does wrong.
    fn check_notices(&self, turn: &Turn<'_>, taken: bool, calls: &[Call]) {
        let mut due = Vec::new();
        for &Call { callback, value } in calls {
            let Some((verdict, value)) = value.and_then(|value| Some((Verdict::from_c(value)?, value))) else {
                continue;
            };
            let last_piece = callback == Callbacks::BODY && turn.command == Some(CommandCode::EndOfBody);
            let command = match turn.command {
                _ if matches!(callback, Callbacks::NEGOTIATE | Callbacks::ABORT | Callbacks::CLOSE) => continue,
                _ if last_piece => CommandCode::Body,
                Some(command) => command,
                None => continue,
            };
            let tacit = verdict == Verdict::Continue && self.profile.promised.intersects(command.no_reply_step());
            if !self.is_quiet(command) {
                due.extend((verdict == Verdict::NoReply).then_some(Notice::ReplyDue(command)));
            } else if verdict != Verdict::NoReply && !tacit && !last_piece {
                due.push(Notice::BrokenPromise { command, value });
            }
        }
        let told =
            self.notices.iter().filter(|notice| !matches!(notice, Notice::Ignored { .. } | Notice::Negotiated { .. }));
        assert!(told.eq(&due), "{:?} instead of {due:?}", self.notices);
        let negotiated = self.notices.iter().any(|notice| matches!(notice, Notice::Negotiated { .. }));
        assert_eq!(negotiated, taken && turn.command == Some(CommandCode::Negotiate));
    }

    /// Checks that the MTA gets what was asked for in callbacks, and then the one reply that it waits for.
    fn check_output(&mut self, turn: &Turn<'_>, taken: bool, verdict: i32) {
        let output = mem::take(&mut self.output);
        let mut letters = Vec::new();
        let mut last = None;
        let mut rest = &output[..];
        while let Some(header) = frame::parse(rest, frame::LARGEST_LIMIT).expect("a frame") {
            let (whole, next) = rest.split_at(header.frame_len());
            letters.push(header.code);
            last = Some(Reply::decode(header.code, &whole[frame::HEADER_LEN..]).expect("a reply as MTAs read it"));
            rest = next;
        }
        assert!(rest.is_empty(), "only whole frames are sent");

        let mut due = mem::take(&mut self.sent);
        match turn.command.filter(|_| taken) {
            None => {}
            Some(CommandCode::Negotiate) => {
                due.push(b'O');
                self.agree(turn.payload, last.as_ref());
            }
            Some(command) if self.is_quiet(command) => {
                due.extend((!self.wire.intersects(command.no_reply_step())).then_some(b'c'));
            }
            Some(_) => due.push(self.letter(verdict, last.as_ref())),
        }
        assert_eq!(letters, due, "packets sent and packets due");
        self.output = output;
    }

    /// The letter of the reply for a verdict.
    fn letter(&mut self, verdict: i32, last: Option<&Reply<'_>>) -> u8 {
        let (permanent, general) = match Verdict::from_c(verdict).expect("others end the session") {
            Verdict::Continue | Verdict::NoReply => return b'c',
            Verdict::Skip => return b's',
            Verdict::Accept => return b'a',
            Verdict::Discard => return b'd',
            Verdict::Reject => (true, b'r'),
            Verdict::Tempfail => (false, b't'),
        };
        match self.reply.take_if(|reply| reply.is_permanent() == permanent) {
            Some(reply) if reply.text().len() < self.engine.limit() => {
                assert_eq!(last, Some(&Reply::ReplyCode(reply.text())));
                b'y'
            }
            _ => general,
        }
    }

    /// Notes what filter and MTA have agreed on.
    fn agree(&mut self, offer: &[u8], answer: Option<&Reply<'_>>) {
        let Some(Reply::Negotiated { version, actions, steps, .. }) = answer else { panic!("{answer:?}") };
        let word = |at: usize| u32::from_be_bytes(offer[at..at + 4].try_into().expect("four octets"));
        assert!((2..=word(0).min(6)).contains(version));
        let offered = Actions::from_bits_retain(word(4));
        let offered = if offered.is_empty() { Actions::VERSION_1 } else { offered };
        assert!(offered.contains(*actions), "{actions:?} of {offered:?}");
        let offered = Steps::from_bits_retain(word(8));
        let offered = if offered.is_empty() { Steps::VERSION_1 } else { offered };
        assert!(offered.contains(*steps), "{steps:?} of {offered:?}");
        self.actions = *actions;
        self.wire = *steps;
        self.quiet |= self.profile.promised;
        assert_eq!(*steps & Steps::NO_REPLY, self.quiet & offered & Steps::NO_REPLY);
        self.left_out |= State::left_out(self.quiet);
    }

    fn is_quiet(&self, command: CommandCode) -> bool {
        self.quiet.intersects(command.no_reply_step())
    }

    /// Whether what a callback for this command returned ends the message.
    fn decides(&self, turn: &Turn<'_>, value: i32) -> bool {
        let Some(command) = turn.command.filter(|command| command.is_of_message()) else { return false };
        !self.is_quiet(command) && (value == 3 || matches!(value, 1 | 2 | 4) && command != CommandCode::Rcpt)
    }
}
