//! One session: commands in, callbacks and reply bytes out.

use std::cell::Cell;
use std::mem;

use crate::callback::{Callback, Offer};
use crate::command::CommandCode;
use crate::failure::Failure;
use crate::flags::{Actions, Callbacks, Steps};
use crate::frame::{self, FrameError};
use crate::macros::{MacroRequests, MacroTable, RequestError, Stage};
use crate::modification::{Modification, ModificationError, Obstacle};
use crate::negotiation::{Agreement, MtaOffer, NegotiationError};
use crate::notice::Notice;
use crate::reply::{self, Reply};
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
    /// No-reply steps (`SMFIP_NR_*`) that its author promises, whatever it negotiates itself: its callbacks there return
    /// CONTINUE or NOREPLY only.
    pub promised: Steps,
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
    /// In a box because most filters make none; so is what follows with one.
    macro_requests: Option<Box<MacroRequests>>,
    reply: Option<SmtpReply>,
    agenda: Agenda,
    asked: Option<Asked>,
    output: Vec<u8>,
    notice: Option<Box<Notice>>,
    failure: Option<Box<Failure>>,
    /// A command of a message has begun, and neither its end, an abort nor a final verdict has come since.
    message_open: bool,
    /// The close callback has been called and no command has begun since.
    closed: bool,
    finished: bool,
}

impl Engine {
    /// A session with nothing said yet. `limit` is the largest payload in octets, in both directions; it is
    /// [`frame::LARGEST_LIMIT`] at most.
    pub fn new(profile: Profile, limit: usize) -> Self {
        Engine {
            profile,
            limit: limit.min(frame::LARGEST_LIMIT),
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
            message_open: false,
            closed: false,
            finished: false,
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
        self.message_open
    }

    /// Whether the session is over and its connection to be closed, once no callback is due.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Why the session is over, unless the MTA said QUIT.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.as_deref().copied()
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
        if command.needs_payload() && payload.is_empty() {
            return self.fail(Failure::MissingPayload(command));
        }
        match (command, State::after(command)) {
            (CommandCode::Abort, _) if self.message_open => {
                self.agenda.abort = true;
                self.state = State::Helo;
            }
            (CommandCode::Abort, _) => self.notify(Notice::Ignored { command, state: self.state }),
            (CommandCode::Quit | CommandCode::QuitNewConnection, _) => self.quit(command),
            // An unknown SMTP command leaves the session where it was.
            (CommandCode::Unknown, _) | (_, None) => self.agenda.command = Some(command),
            (_, Some(state)) => self.enter(command, state),
        }
    }

    /// Takes a frame that cannot be accepted.
    pub fn handle_frame_error(&mut self, error: FrameError) {
        self.fail(Failure::Frame(error));
    }

    /// Takes the end of the connection, however it came.
    pub fn handle_disconnect(&mut self) {
        self.fail(Failure::Connection);
    }

    /// Ends the session because there is no memory for its next command.
    pub fn handle_lack_of_memory(&mut self) {
        self.fail(Failure::NoMemory);
    }

    /// Takes a command that has its place in a session, if necessary as the start of a new message.
    fn enter(&mut self, command: CommandCode, state: State) {
        if !self.state.reaches(state, self.left_out) {
            if !State::Helo.reaches(state, self.left_out) {
                return self.fail(Failure::OutOfOrder { command, state: self.state });
            }
            self.agenda.abort = self.message_open;
        }
        self.state = state;
        self.agenda.command = Some(command);
    }

    fn quit(&mut self, command: CommandCode) {
        self.agenda.abort = self.message_open;
        self.agenda.close = true;
        self.finished |= command == CommandCode::Quit;
        // Where nothing has been said, the offer is still to come.
        if command == CommandCode::QuitNewConnection && self.state != State::Init {
            self.state = State::QuitNewConnection;
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.asked = None;
        if self.finished {
            return;
        }
        self.agenda = Agenda { abort: self.message_open, close: true, ..Agenda::default() };
        self.failure = Some(Box::new(failure));
        self.finished = true;
    }

    // ---- poll: output

    /// The next callback to run for the command in hand; `payload` is the one given to
    /// [`handle_command`](Self::handle_command).
    pub fn poll_callback<'a>(&mut self, payload: &'a mut [u8]) -> Option<Callback<'a>> {
        if mem::take(&mut self.agenda.abort) {
            self.message_open = false;
            if self.ask(Callbacks::ABORT, Asked::Abort) {
                return Some(Callback::Abort);
            }
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
        if mem::take(&mut self.agenda.end_of_message) {
            self.message_open = false;
            if self.ask(Callbacks::EOM, Asked::Command(CommandCode::EndOfBody)) {
                return Some(Callback::Eom);
            }
            self.settle(CommandCode::EndOfBody, Verdict::Continue);
        }
        if mem::take(&mut self.agenda.close) {
            if !mem::replace(&mut self.closed, true) && self.ask(Callbacks::CLOSE, Asked::Close) {
                return Some(Callback::Close);
            }
            self.forget_client();
        }
        None
    }

    /// What to tell the operator; at most one thing after each [`poll_callback`](Self::poll_callback).
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notice.take().map(|notice| *notice)
    }

    fn ask(&mut self, callback: Callbacks, asked: Asked) -> bool {
        let registered = self.profile.callbacks.contains(callback);
        if registered {
            self.asked = Some(asked);
        }
        registered
    }

    /// Starts on a command: what it clears, and the callback it is for. Without a callback the answer is given here.
    ///
    /// A command whose payload cannot be decoded begins neither a message nor a client: the filter is not told of it, so it
    /// is not told either that they end.
    fn begin<'a>(&mut self, command: CommandCode, payload: &'a mut [u8]) -> Result<Option<Callback<'a>>, Failure> {
        match command {
            CommandCode::Negotiate => return self.begin_negotiation(payload),
            CommandCode::Macro => {
                return self.macros.store(payload).map(|()| None).map_err(|_| Failure::NoMemory);
            }
            CommandCode::EndOfBody => {
                self.mark_begun(command);
                self.agenda.end_of_message = true;
                let last_chunk = !payload.is_empty() && self.ask(Callbacks::BODY, Asked::FinalChunk);
                return Ok(last_chunk.then_some(Callback::Body(payload)));
            }
            CommandCode::Connect => self.macros.clear_from(Stage::Helo),
            CommandCode::Helo => self.macros.clear_from(Stage::Mail),
            CommandCode::Mail => self.macros.clear_from(Stage::Rcpt),
            CommandCode::Rcpt => self.macros.clear_from(Stage::Data),
            _ => {}
        }
        if self.ask(command.callback(), Asked::Command(command)) {
            let callback = Callback::decode(command, payload).map_err(|error| Failure::Payload(command, error))?;
            self.mark_begun(command);
            return Ok(callback);
        }
        self.mark_begun(command);
        if self.steps.intersects(command.no_reply_step()) {
            self.keep_quiet(command);
        } else {
            self.settle(command, Verdict::Continue);
        }
        Ok(None)
    }

    fn mark_begun(&mut self, command: CommandCode) {
        self.message_open |= command.is_of_message();
        self.closed = false;
    }

    fn begin_negotiation<'a>(&mut self, payload: &[u8]) -> Result<Option<Callback<'a>>, Failure> {
        self.macros.clear_from(Stage::Connect);
        let offer = MtaOffer::parse(payload, &self.profile).map_err(Failure::Negotiation)?;
        self.mark_begun(CommandCode::Negotiate);
        if self.profile.negotiates() {
            self.asked = Some(Asked::Negotiate(offer));
            return Ok(Some(Callback::Negotiate(offer.for_filter(&self.profile))));
        }
        self.agree(&offer, offer.settle(&self.profile).map_err(Failure::Negotiation)?);
        Ok(None)
    }

    // ---- answer: what a callback returned

    /// Takes the return value of the callback that [`poll_callback`](Self::poll_callback) gave last. For that of
    /// negotiation there is [`answer_negotiation`](Self::answer_negotiation); here it counts as refused.
    pub fn answer(&mut self, value: i32) {
        let Some(asked) = self.asked.take() else { return };
        let command = match asked {
            Asked::Negotiate(offer) => return self.fail(Failure::Negotiation(offer.refused(value))),
            Asked::Abort => return,
            Asked::Close => return self.forget_client(),
            Asked::FinalChunk => CommandCode::Body,
            Asked::Command(command) => command,
        };
        let Some(verdict) = Verdict::from_c(value) else {
            return self.fail(Failure::UndefinedVerdict { command, value });
        };
        match (asked, verdict) {
            // The reply to the command is that of the end of the message.
            (Asked::FinalChunk, Verdict::NoReply) if !self.steps.intersects(command.no_reply_step()) => {
                self.notify(Notice::ReplyDue(command));
            }
            (Asked::FinalChunk, Verdict::Continue | Verdict::Skip | Verdict::NoReply) => {}
            (Asked::FinalChunk, _) => {
                self.agenda.end_of_message = false;
                self.settle(CommandCode::EndOfBody, verdict);
            }
            _ if self.steps.intersects(command.no_reply_step()) => {
                let tacit = verdict == Verdict::Continue && self.profile.promised.intersects(command.no_reply_step());
                if verdict != Verdict::NoReply && !tacit {
                    self.notify(Notice::BrokenPromise { command, value });
                }
                self.keep_quiet(command);
            }
            _ => self.settle(command, verdict),
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
        let macros = self.macro_requests.as_mut().map(|requests| requests.take()).unwrap_or_default();
        let answer = Reply::Negotiated {
            version: agreement.version,
            actions: agreement.actions,
            steps: agreement.wire_steps,
            macros: macros.iter().map(|(stage, names)| (*stage, &names[..])).collect(),
        };
        let start = self.output.len();
        if answer.try_encode(&mut self.output).is_err() {
            return self.fail(Failure::NoMemory);
        }
        let len = self.output.len() - start - frame::HEADER_LEN;
        if len > self.limit {
            self.output.truncate(start);
            return self.fail(Failure::Negotiation(NegotiationError::LongAnswer { len, limit: self.limit }));
        }
        let shown = offer.for_filter(&self.profile);
        self.notify(Notice::Negotiated {
            offered_actions: shown.actions,
            offered_steps: offer.steps().bits(),
            actions: agreement.actions.bits(),
            steps: agreement.wire_steps.bits(),
        });
    }

    fn keep_quiet(&mut self, command: CommandCode) {
        if self.emulated.intersects(command.no_reply_step()) {
            self.send(reply::CONTINUE);
        }
    }

    /// Replies, and moves to where the verdict leads.
    fn settle(&mut self, command: CommandCode, verdict: Verdict) {
        match verdict {
            Verdict::Continue => self.send(reply::CONTINUE),
            Verdict::NoReply => {
                self.notify(Notice::ReplyDue(command));
                self.send(reply::CONTINUE);
            }
            Verdict::Skip => self.send(reply::SKIP),
            Verdict::Accept => self.send(reply::ACCEPT),
            Verdict::Discard => self.send(reply::DISCARD),
            Verdict::Reject => self.refuse(true, reply::REJECT),
            Verdict::Tempfail => self.refuse(false, reply::TEMPFAIL),
        }
        let is_final = match verdict {
            Verdict::Continue | Verdict::NoReply | Verdict::Skip => false,
            // Outside of a message there is nothing to which an unknown command could be the end.
            Verdict::Accept => command != CommandCode::Unknown || self.message_open,
            Verdict::Discard | Verdict::Reject | Verdict::Tempfail => {
                !matches!(command, CommandCode::Rcpt | CommandCode::Unknown)
            }
        };
        if is_final {
            self.message_open = false;
            self.state = State::Helo;
        }
    }

    /// Sends the stored reply if it is of the verdict's class, and forgets it then; otherwise, or if it is larger than
    /// a packet may be or there is no memory, the general one.
    fn refuse(&mut self, permanent: bool, general: u8) {
        let reply = self.reply.take_if(|reply| reply.is_permanent() == permanent);
        let sent = reply
            .filter(|reply| reply.text().len() < self.limit)
            .is_some_and(|reply| Reply::ReplyCode(reply.text()).try_encode(&mut self.output).is_ok());
        if !sent {
            self.send(general);
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.notice = Some(Box::new(notice));
    }

    fn send(&mut self, code: u8) {
        frame::put_header(&mut self.output, code, 0);
    }

    /// Drops what belongs to a client and not to the connection with the MTA.
    fn forget_client(&mut self) {
        self.macros.clear_from(Stage::Connect);
        self.reply = None;
    }

    // ---- what a filter asks for while one of its callbacks runs

    /// The value of a macro with its NUL. It stays in place until its set is replaced or cleared, and the filter may
    /// write into it.
    pub fn macro_value(&self, name: &[u8]) -> Option<&[Cell<u8>]> {
        self.macros.value(name)
    }

    /// Asks the MTA for these macros at a stage; has an effect during negotiation only. Fails when a request for the
    /// stage was made before, or there is no memory.
    pub fn request_macros(&mut self, stage: Stage, names: &[u8]) -> Result<(), RequestError> {
        self.macro_requests.get_or_insert_default().add(stage, names)
    }

    /// Stores the reply for a later refusal; it replaces an older one.
    pub fn store_reply(&mut self, reply: SmtpReply) {
        self.reply = Some(reply);
    }

    /// What keeps the filter from making a change that needs `action` now: it has to be the end of a message, and the
    /// action negotiated.
    fn obstacle(&self, action: Actions) -> Option<Obstacle> {
        if !self.asked.is_some_and(Asked::is_end_of_message) {
            Some(Obstacle::NotEndOfMessage)
        } else if !self.actions.contains(action) {
            Some(Obstacle::NotNegotiated(action))
        } else {
            None
        }
    }

    /// Appends a modification. Fails, and appends nothing, when it is not allowed now, too large, or there is no memory.
    pub fn modify(&mut self, modification: &Modification<'_>) -> Result<(), ModificationError> {
        self.check_obstacle(modification.required_action())?;
        modification.encode(&mut self.output, self.limit)
    }

    /// The head of a packet with a piece of the replacement body, of `len` bytes. The owner of the engine sends both: behind
    /// what is in [`output`](Self::output), or as a part of it. Fails when that is not allowed now or the piece too large.
    pub fn body_packet(&self, len: usize) -> Result<[u8; frame::HEADER_LEN], ModificationError> {
        self.check_obstacle(Actions::CHANGE_BODY)?;
        if len > self.limit { Err(ModificationError::TooLarge) } else { Ok(frame::header(reply::REPLACE_BODY, len)) }
    }

    fn check_obstacle(&self, action: Actions) -> Result<(), ModificationError> {
        self.obstacle(action).map_or(Ok(()), |obstacle| Err(ModificationError::Obstacle(obstacle)))
    }

    /// Appends a "still working".
    pub fn progress(&mut self) {
        self.send(reply::PROGRESS);
    }
}

impl Asked {
    fn is_end_of_message(self) -> bool {
        matches!(self, Asked::FinalChunk | Asked::Command(CommandCode::EndOfBody))
    }
}
