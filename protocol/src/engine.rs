//! One session: commands in, callbacks and reply bytes out.

use std::fmt;

use crate::callback::{Arguments, Callback, Offer};
use crate::command::{self, CommandCode, PayloadError};
use crate::flags::{Actions, Callbacks, Steps};
use crate::frame::{self, FrameError};
use crate::macros::{MacroTable, Stage};
use crate::modification::Modification;
use crate::negotiation::{Agreement, MtaOffer, NegotiationError};
use crate::reply;
use crate::smtp_reply::SmtpReply;
use crate::state::{State, StateSet};
use crate::verdict::Verdict;

/// What the engine has to know of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// API version the filter was compiled for (`xxfi_version`).
    pub version: i32,
    /// Actions it wants (`xxfi_flags`).
    pub actions: Actions,
    /// Callbacks it has registered and its API version knows.
    pub callbacks: Callbacks,
}

/// Why a session is over before the MTA said QUIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended, timed out or failed; whoever does the I/O knows which.
    Connection,
    /// A frame that cannot be accepted.
    Frame(FrameError),
    /// A letter that is no command.
    UnknownCommand(u8),
    /// A command that cannot be taken here and to which the MTA expects a reply.
    OutOfOrder {
        /// The command.
        command: CommandCode,
        /// Where the session stood.
        state: State,
    },
    /// A command without the payload it needs.
    MissingPayload(CommandCode),
    /// A payload that cannot be understood.
    Payload(CommandCode, PayloadError),
    /// MTA and filter cannot agree.
    Negotiation(NegotiationError),
    /// A callback returned a value without a meaning.
    UndefinedVerdict {
        /// The command it was called for.
        command: CommandCode,
        /// What it returned.
        value: i32,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connection => f.write_str("connection lost"),
            Failure::Frame(error) => error.fmt(f),
            Failure::UnknownCommand(code) => write!(f, "unknown command '{}'", code.escape_ascii()),
            Failure::OutOfOrder { command, state } => {
                write!(f, "command {command} is not possible in state {}", *state as u8)
            }
            Failure::MissingPayload(command) => write!(f, "command {command} came without data"),
            Failure::Payload(command, error) => write!(f, "command {command}: {error}"),
            Failure::Negotiation(error) => error.fmt(f),
            Failure::UndefinedVerdict { command, value } => {
                write!(f, "the callback for {command} returned {value}, which has no meaning")
            }
        }
    }
}

/// Something the operator should know although the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The filter negotiated not to reply here but returned another value; nothing was sent.
    BrokenPromise {
        /// Where the session stands.
        state: State,
        /// What the callback returned.
        value: i32,
    },
    /// The filter returned `SMFIS_NOREPLY` where the MTA waits for a reply; CONTINUE was sent.
    ReplyDue(CommandCode),
    /// Negotiation has ended well.
    Negotiated {
        /// Actions the MTA offered.
        offered_actions: u32,
        /// Steps the MTA offered.
        offered_steps: u32,
        /// Actions agreed on.
        actions: u32,
        /// Steps agreed on.
        steps: u32,
    },
    /// A command that needs no reply came where it means nothing, and was ignored.
    Ignored {
        /// The command.
        command: CommandCode,
        /// Where the session stands.
        state: State,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::BrokenPromise { state, value } => {
                write!(f, "claimed not to reply in state {} but did anyway (value {value})", *state as u8)
            }
            Notice::ReplyDue(command) => {
                write!(f, "SMFIS_NOREPLY for {command} was not negotiated, the MTA waits for a reply: sent CONTINUE")
            }
            Notice::Negotiated { offered_actions, offered_steps, actions, steps } => write!(
                f,
                "milter_negotiate: mta_actions=0x{offered_actions:x}, mta_flags=0x{offered_steps:x}, \
                 actions=0x{actions:x}, flags=0x{steps:x}"
            ),
            Notice::Ignored { command, state } => write!(f, "ignored {command} in state {}", *state as u8),
        }
    }
}

/// What the callback that is running was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Negotiate(MtaOffer),
    /// The last piece of a body, sent together with the end of the message.
    FinalChunk,
    Command(CommandCode),
    Abort,
    Close,
}

/// What is still to be done for the command in hand, in this order.
#[derive(Clone, Copy, Debug, Default)]
struct Agenda {
    abort: bool,
    command: Option<CommandCode>,
    end_of_message: bool,
    close: bool,
}

/// One session between an MTA and the filter.
///
/// Methods come in four families:
///
/// * `handle_*` take input: a command, the loss of the connection. They change the state and decide which callbacks
///   are due, nothing more.
/// * `poll_*` give output: the next callback to run, the notice to log. Poll for callbacks after every `handle_*`
///   until there is none; give each return value back through `answer` before polling on.
/// * `answer` and `answer_negotiation` take what a callback returned and append the reply to the output.
/// * Everything else is what a filter asks for while one of its callbacks runs: macros, stored replies, modifications.
///
/// Reply bytes gather in [`Engine::output`]; the owner takes them whenever it wants to write.
#[derive(Debug)]
pub struct Engine {
    profile: Profile,
    limit: usize,
    state: State,
    left_out: StateSet,
    actions: Actions,
    steps: Steps,
    emulated: Steps,
    macros: MacroTable,
    macro_requests: Option<Box<MacroRequests>>,
    reply: Option<SmtpReply>,
    agenda: Agenda,
    asked: Option<Asked>,
    output: Vec<u8>,
    notice: Option<Notice>,
    failure: Option<Failure>,
    /// The close callback has run and nothing happened since.
    closed: bool,
    finished: bool,
    /// A verdict for the whole message was sent for a step the MTA does not wait for. What it had already sent of this
    /// message is not an error.
    verdict_ahead: bool,
}

#[derive(Debug, Default)]
struct MacroRequests {
    by_stage: [Option<Vec<u8>>; Stage::ALL.len()],
}

impl Engine {
    /// A session with nothing said yet. `limit` is the largest payload in octets, in both directions.
    pub fn new(profile: Profile, limit: usize) -> Self {
        Engine {
            profile,
            limit,
            state: State::Init,
            left_out: State::left_out(profile.callbacks.unneeded_steps()),
            actions: Actions::empty(),
            steps: Steps::empty(),
            emulated: Steps::empty(),
            macros: MacroTable::default(),
            macro_requests: None,
            reply: None,
            agenda: Agenda::default(),
            asked: None,
            output: Vec::new(),
            notice: None,
            failure: None,
            closed: false,
            finished: false,
            verdict_ahead: false,
        }
    }

    /// Where the session stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Largest payload of this session, in octets.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a message is in progress.
    pub fn in_message(&self) -> bool {
        self.state.in_message() || self.asked.is_some_and(|asked| asked.may_modify())
    }

    /// Whether the session is over and its connection to be closed, once no callback is due.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Why the session is over, unless the MTA said QUIT.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// The reply bytes gathered so far.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    // ---- handle: input

    /// Takes a command. The payload must stay the same until no callback is due.
    pub fn handle_command(&mut self, letter: u8, payload: &[u8]) {
        let Some(command) = CommandCode::from_letter(letter) else {
            return self.fail(Failure::UnknownCommand(letter));
        };
        let was_in_message = self.state.in_message();
        if let Some(wanted) = State::after(command) {
            if !self.enter(command, wanted) {
                return;
            }
            self.closed = false;
            self.verdict_ahead = false;
        }
        if command.needs_payload() && payload.is_empty() {
            return self.fail(Failure::MissingPayload(command));
        }
        match (command, State::after(command)) {
            // An unknown SMTP command leaves the session where it was.
            (CommandCode::Unknown, _) | (_, None) => {}
            (_, Some(state)) => self.state = state,
        }
        match command {
            CommandCode::Abort => self.agenda.abort = was_in_message,
            CommandCode::Quit | CommandCode::QuitNewConnection => self.agenda.close = true,
            _ => self.agenda.command = Some(command),
        }
        self.finished |= command == CommandCode::Quit;
    }

    /// Takes a frame that cannot be accepted.
    pub fn handle_frame_error(&mut self, error: FrameError) {
        self.fail(Failure::Frame(error));
    }

    /// Takes the end of the connection, however it came.
    pub fn handle_disconnect(&mut self) {
        self.fail(Failure::Connection);
    }

    /// Whether `command` can be taken; if not, what happens instead is arranged.
    fn enter(&mut self, command: CommandCode, wanted: State) -> bool {
        if self.state.reaches(wanted, self.left_out) {
            return true;
        }
        let in_message = self.state.in_message();
        if State::Helo.reaches(wanted, self.left_out) && command != CommandCode::Abort {
            self.agenda.abort = in_message;
            self.state = State::Helo;
            return true;
        }
        match command {
            CommandCode::Quit | CommandCode::QuitNewConnection => {
                self.agenda.abort = in_message;
                true
            }
            _ if command.expects_reply() && !self.verdict_ahead => {
                self.fail(Failure::OutOfOrder { command, state: self.state });
                false
            }
            _ => {
                self.notice = Some(Notice::Ignored { command, state: self.state });
                false
            }
        }
    }

    fn fail(&mut self, failure: Failure) {
        if self.finished {
            return;
        }
        self.agenda =
            Agenda { abort: self.agenda.abort || self.state.in_message(), close: !self.closed, ..Agenda::default() };
        self.asked = None;
        self.state = State::Helo;
        self.failure = Some(failure);
        self.finished = true;
    }

    // ---- poll: output

    /// The next callback to run for the command in hand; `payload` is the one given to
    /// [`handle_command`](Self::handle_command).
    pub fn poll_callback<'a>(&mut self, payload: &'a mut [u8]) -> Option<Callback<'a>> {
        if std::mem::take(&mut self.agenda.abort) && self.ask(Callbacks::ABORT, Asked::Abort) {
            return Some(Callback::Abort);
        }
        if let Some(command) = self.agenda.command.take() {
            match self.begin(command, payload) {
                Ok(Some(callback)) => return Some(callback),
                Ok(None) => {}
                Err(failure) => {
                    self.fail(failure);
                    return self.poll_callback(&mut []);
                }
            }
        }
        if std::mem::take(&mut self.agenda.end_of_message) {
            if self.ask(Callbacks::EOM, Asked::Command(CommandCode::EndOfBody)) {
                return Some(Callback::Eom);
            }
            self.settle(CommandCode::EndOfBody, Verdict::Continue);
        }
        if std::mem::take(&mut self.agenda.close) {
            if self.ask(Callbacks::CLOSE, Asked::Close) {
                return Some(Callback::Close);
            }
            self.close();
        }
        None
    }

    /// What to tell the operator; at most one thing after each [`poll_callback`](Self::poll_callback).
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    fn ask(&mut self, callback: Callbacks, asked: Asked) -> bool {
        let registered = self.profile.callbacks.contains(callback);
        if registered {
            self.asked = Some(asked);
        }
        registered
    }

    /// Starts on a command: what it clears, and the callback it is for. Without a callback the answer is given here.
    fn begin<'a>(&mut self, command: CommandCode, payload: &'a mut [u8]) -> Result<Option<Callback<'a>>, Failure> {
        let bad = |error| Failure::Payload(command, error);
        let asked = Asked::Command(command);
        match command {
            CommandCode::Negotiate => return self.begin_negotiation(payload),
            CommandCode::Macro => {
                self.macros.store(payload);
                return Ok(None);
            }
            CommandCode::Connect => {
                self.macros.clear_from(Stage::Helo);
                if self.ask(Callbacks::CONNECT, asked) {
                    let (host, address) = command::connect(payload).map_err(bad)?;
                    return Ok(Some(Callback::Connect { host, address }));
                }
            }
            CommandCode::Helo => {
                self.macros.clear_from(Stage::Mail);
                if self.ask(Callbacks::HELO, asked) {
                    return Ok(Some(Callback::Helo(command::string(payload).map_err(bad)?)));
                }
            }
            CommandCode::Mail => {
                self.macros.clear_from(Stage::Rcpt);
                if self.ask(Callbacks::ENVFROM, asked) {
                    let arguments = Arguments::parse(payload).ok_or(bad(PayloadError::Unterminated))?;
                    return Ok(Some(Callback::EnvFrom(arguments)));
                }
            }
            CommandCode::Rcpt => {
                self.macros.clear_from(Stage::Data);
                if self.ask(Callbacks::ENVRCPT, asked) {
                    let arguments = Arguments::parse(payload).ok_or(bad(PayloadError::Unterminated))?;
                    return Ok(Some(Callback::EnvRcpt(arguments)));
                }
            }
            CommandCode::Data if self.ask(Callbacks::DATA, asked) => return Ok(Some(Callback::Data)),
            CommandCode::Header if self.ask(Callbacks::HEADER, asked) => {
                let (name, value) = command::header(payload).map_err(bad)?;
                return Ok(Some(Callback::Header { name, value }));
            }
            CommandCode::EndOfHeaders if self.ask(Callbacks::EOH, asked) => return Ok(Some(Callback::Eoh)),
            CommandCode::Body if self.ask(Callbacks::BODY, asked) => return Ok(Some(Callback::Body(payload))),
            CommandCode::EndOfBody => {
                self.agenda.end_of_message = true;
                if !payload.is_empty() && self.ask(Callbacks::BODY, Asked::FinalChunk) {
                    return Ok(Some(Callback::Body(payload)));
                }
                return Ok(None);
            }
            CommandCode::Unknown if self.ask(Callbacks::UNKNOWN, asked) => {
                return Ok(Some(Callback::Unknown(payload)));
            }
            _ => {}
        }
        if self.steps.intersects(command.no_reply_step()) {
            self.keep_quiet(command);
        } else {
            self.settle(command, Verdict::Continue);
        }
        Ok(None)
    }

    fn begin_negotiation<'a>(&mut self, payload: &[u8]) -> Result<Option<Callback<'a>>, Failure> {
        self.macros.clear_from(Stage::Connect);
        let offer = MtaOffer::parse(payload, &self.profile).map_err(Failure::Negotiation)?;
        if self.profile.negotiates() {
            self.asked = Some(Asked::Negotiate(offer));
            return Ok(Some(Callback::Negotiate(offer.for_filter(&self.profile))));
        }
        self.agree(&offer, offer.settle(&self.profile).map_err(Failure::Negotiation)?);
        Ok(None)
    }

    // ---- answer: what a callback returned

    /// Takes the return value of the callback that [`poll_callback`](Self::poll_callback) gave last.
    pub fn answer(&mut self, value: i32) {
        let Some(asked) = self.asked.take() else { return };
        let command = match asked {
            Asked::Abort | Asked::Negotiate(_) => return,
            Asked::Close => return self.close(),
            Asked::FinalChunk => CommandCode::Body,
            Asked::Command(command) => command,
        };
        match (Verdict::from_c(value), asked) {
            (None, _) => {
                self.agenda.end_of_message = false;
                self.fail(Failure::UndefinedVerdict { command, value });
            }
            (Some(Verdict::Continue | Verdict::Skip | Verdict::NoReply), Asked::FinalChunk) => {}
            (Some(verdict), Asked::FinalChunk) => {
                self.agenda.end_of_message = false;
                self.settle(CommandCode::EndOfBody, verdict);
            }
            (Some(verdict), _) if self.steps.intersects(command.no_reply_step()) => {
                self.settle_quietly(command, verdict)
            }
            (Some(verdict), _) => self.settle(command, verdict),
        }
    }

    /// Takes the return value of the negotiation callback and the offer as it left it.
    pub fn answer_negotiation(&mut self, value: i32, wanted: &Offer) {
        let Some(Asked::Negotiate(offer)) = self.asked.take() else { return };
        match offer.settle_with(&self.profile, value, wanted) {
            Ok(agreement) => self.agree(&offer, agreement),
            Err(error) => self.fail(Failure::Negotiation(error)),
        }
    }

    fn agree(&mut self, offer: &MtaOffer, agreement: Agreement) {
        self.actions = agreement.actions;
        self.steps = agreement.steps;
        self.emulated = agreement.emulated;
        self.limit = agreement.limit.unwrap_or(self.limit);
        self.left_out |= State::left_out(agreement.steps);
        let mut macros = Vec::new();
        for stage in Stage::ALL {
            let requests = self.macro_requests.as_deref_mut();
            if let Some(names) = requests.and_then(|requests| requests.by_stage[stage as usize].as_mut()) {
                // A second request for a stage stays an error, its text is not needed again.
                macros.push((stage, std::mem::take(names)));
            }
        }
        reply::Reply::Negotiated {
            version: agreement.version,
            actions: agreement.actions,
            steps: agreement.wire_steps,
            macros: macros.iter().map(|(stage, names)| (*stage, &names[..])).collect(),
        }
        .encode(&mut self.output);
        let shown = offer.for_filter(&self.profile);
        self.notice = Some(Notice::Negotiated {
            offered_actions: shown.actions,
            offered_steps: offer.steps().bits(),
            actions: agreement.actions.bits(),
            steps: agreement.wire_steps.bits(),
        });
    }

    /// A verdict for a step the filter promised not to answer. Only the end of the whole message gets through.
    fn settle_quietly(&mut self, command: CommandCode, verdict: Verdict) {
        match verdict {
            Verdict::NoReply => self.keep_quiet(command),
            Verdict::Continue | Verdict::Reject | Verdict::Tempfail => {
                self.notice = Some(Notice::BrokenPromise { state: self.state, value: verdict.to_c() });
                self.keep_quiet(command);
            }
            Verdict::Accept | Verdict::Discard | Verdict::Skip => {
                self.settle(command, verdict);
                self.verdict_ahead = !self.state.in_message() && !self.emulated.intersects(command.no_reply_step());
            }
        }
    }

    fn keep_quiet(&mut self, command: CommandCode) {
        if self.emulated.intersects(command.no_reply_step()) {
            self.send(b'c');
        }
    }

    /// Replies, and moves to where the verdict leads.
    fn settle(&mut self, command: CommandCode, verdict: Verdict) {
        match verdict {
            Verdict::Continue => self.send(b'c'),
            Verdict::NoReply => {
                self.notice = Some(Notice::ReplyDue(command));
                self.send(b'c');
            }
            Verdict::Skip => self.send(b's'),
            Verdict::Accept => self.send(b'a'),
            Verdict::Discard => self.send(b'd'),
            Verdict::Reject => self.refuse(true, b'r'),
            Verdict::Tempfail => self.refuse(false, b't'),
        }
        let one_of_many = matches!(command, CommandCode::Rcpt | CommandCode::Unknown);
        match verdict {
            Verdict::Accept => self.state = State::Helo,
            Verdict::Reject | Verdict::Discard | Verdict::Tempfail if !one_of_many => self.state = State::Helo,
            _ => {}
        }
    }

    /// Sends the stored reply if it is of the verdict's class, and forgets it then; otherwise the general one.
    fn refuse(&mut self, permanent: bool, general: u8) {
        match self.reply.take_if(|reply| reply.is_permanent() == permanent) {
            Some(reply) => reply::Reply::ReplyCode(reply.text()).encode(&mut self.output),
            None => self.send(general),
        }
    }

    fn send(&mut self, code: u8) {
        frame::put_header(&mut self.output, code, 0);
    }

    fn close(&mut self) {
        self.closed = true;
        self.macros.clear_from(Stage::Connect);
        self.reply = None;
    }

    // ---- what a filter asks for while one of its callbacks runs

    /// The value of a macro with its NUL. It stays in place until its set is replaced or cleared.
    pub fn macro_value(&mut self, name: &[u8]) -> Option<&mut [u8]> {
        self.macros.value(name)
    }

    /// Asks the MTA for these macros at a stage; has an effect during negotiation only. Fails when a request for the
    /// stage was made before.
    pub fn request_macros(&mut self, stage: Stage, names: &[u8]) -> bool {
        let request = &mut self.macro_requests.get_or_insert_default().by_stage[stage as usize];
        let first = request.is_none();
        if first {
            *request = Some(names.to_vec());
        }
        first
    }

    /// Stores the reply for a later refusal; it replaces an older one.
    pub fn store_reply(&mut self, reply: SmtpReply) {
        self.reply = Some(reply);
    }

    /// Whether the filter may make a change that needs `action` now: at the end of a message, if negotiated.
    pub fn may_modify(&self, action: Actions) -> bool {
        self.asked.is_some_and(|asked| asked.may_modify()) && self.actions.contains(action)
    }

    /// Appends a modification. Fails, and appends nothing, when it is not allowed now or too large.
    #[must_use]
    pub fn modify(&mut self, modification: &Modification<'_>) -> bool {
        self.may_modify(modification.required_action()) && modification.encode(&mut self.output, self.limit)
    }

    /// Appends a "still working".
    pub fn progress(&mut self) {
        self.send(b'p');
    }
}

impl Asked {
    /// Modifications belong to the end of a message.
    fn may_modify(self) -> bool {
        matches!(self, Asked::FinalChunk | Asked::Command(CommandCode::EndOfBody))
    }
}
