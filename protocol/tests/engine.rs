//! The engine as a filter and an MTA see it: commands in, callbacks and replies out.

use milter_protocol::{
    Actions, Callback, Callbacks, Command, CommandCode, Engine, Failure, Modification, Notice, Profile, SmtpReply,
    State, Steps, frame,
};
use proptest::prelude::*;

/// A session whose callbacks return what a table says, and CONTINUE where it says nothing.
struct Conversation {
    engine: Engine,
    returns: Vec<(&'static str, i32)>,
    /// Steps to write into the negotiation's result.
    wanted: Option<Steps>,
    called: Vec<&'static str>,
    notices: Vec<Notice>,
    replies: String,
}

fn profile(callbacks: Callbacks) -> Profile {
    Profile { version: 0x0100_0001, actions: Actions::VERSION_6, callbacks }
}

impl Conversation {
    fn new(callbacks: Callbacks, returns: &[(&'static str, i32)]) -> Self {
        Conversation {
            engine: Engine::new(profile(callbacks), frame::DEFAULT_LIMIT),
            returns: returns.to_vec(),
            wanted: None,
            called: Vec::new(),
            notices: Vec::new(),
            replies: String::new(),
        }
    }

    fn negotiated(callbacks: Callbacks, returns: &[(&'static str, i32)]) -> Self {
        let mut conversation = Self::new(callbacks, returns);
        conversation.negotiate(6, Steps::VERSION_6);
        conversation
    }

    fn quiet(offered: Steps, returns: &[(&'static str, i32)]) -> Self {
        let mut conversation = Self::new(Callbacks::all(), returns);
        conversation.wanted = Some(Steps::NO_REPLY);
        conversation.negotiate(6, offered);
        conversation
    }

    fn negotiate(&mut self, version: u32, steps: Steps) {
        self.say(&[Command::Negotiate { version, actions: Actions::VERSION_6, steps }]);
        self.called.clear();
        self.replies.clear();
        self.notices.clear();
    }

    fn say(&mut self, commands: &[Command<'_>]) -> &mut Self {
        for command in commands {
            let mut wire = Vec::new();
            command.encode(&mut wire);
            let (start, payload) = wire.split_at_mut(frame::HEADER_LEN);
            self.take(start[4], payload);
        }
        self
    }

    fn take(&mut self, letter: u8, payload: &mut [u8]) {
        if self.engine.is_finished() {
            return;
        }
        self.engine.handle_command(letter, payload);
        self.run(payload);
    }

    fn lose(&mut self) -> &mut Self {
        self.engine.handle_disconnect();
        self.run(&mut []);
        self
    }

    fn run(&mut self, payload: &mut [u8]) {
        loop {
            let callback = self.engine.poll_callback(payload);
            self.notices.extend(self.engine.poll_notice());
            let Some(callback) = callback else { break };
            let name = name(&callback);
            self.called.push(name);
            let value = self.returns.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value);
            match callback {
                Callback::Negotiate(mut offer) => {
                    offer.wanted_steps = self.wanted.map_or(offer.wanted_steps, |steps| steps.bits());
                    self.engine.answer_negotiation(value, &offer);
                }
                _ => self.engine.answer(value),
            }
        }
        let output = std::mem::take(self.engine.output());
        let mut rest = &output[..];
        while let Some(header) = frame::parse(rest, usize::MAX - 8).unwrap() {
            self.replies.push(header.code.into());
            rest = &rest[header.frame_len()..];
        }
        assert!(rest.is_empty(), "only whole frames are sent");
    }
}

fn name(callback: &Callback<'_>) -> &'static str {
    match callback {
        Callback::Negotiate(_) => "negotiate",
        Callback::Connect { .. } => "connect",
        Callback::Helo(_) => "helo",
        Callback::EnvFrom(_) => "envfrom",
        Callback::EnvRcpt(_) => "envrcpt",
        Callback::Data => "data",
        Callback::Unknown(_) => "unknown",
        Callback::Header { .. } => "header",
        Callback::Eoh => "eoh",
        Callback::Body(_) => "body",
        Callback::Eom => "eom",
        Callback::Abort => "abort",
        Callback::Close => "close",
    }
}

const HELO: Command<'static> = Command::Helo(b"h");
const CONNECT: Command<'static> = Command::Connect { host: b"h", address: None };
const HEADER: Command<'static> = Command::Header { name: b"S", value: b"v" };
const END: Command<'static> = Command::EndOfBody(b"");

fn mail() -> Command<'static> {
    Command::Mail(vec![b"<a>"])
}

fn rcpt() -> Command<'static> {
    Command::Rcpt(vec![b"<b>"])
}

fn all() -> Callbacks {
    Callbacks::all() - Callbacks::NEGOTIATE
}

#[test]
fn a_whole_session() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[CONNECT, HELO, mail(), rcpt(), Command::Data, HEADER, Command::EndOfHeaders]);
    session.say(&[Command::Body(b"x"), END, Command::Quit]);
    assert_eq!(session.replies, "ccccccccc");
    let called = ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "close"];
    assert_eq!(session.called, called);
    assert!(session.engine.is_finished());
    assert_eq!(session.engine.failure(), None);
}

#[test]
fn defect_1_what_one_session_leaves_out_is_its_own() {
    let first = Conversation::negotiated(Callbacks::EOM | Callbacks::CLOSE, &[]);
    assert_eq!(first.engine.state(), State::Negotiated);
    let mut second = Conversation::negotiated(all(), &[]);
    second.say(&[END]);
    assert!(matches!(second.engine.failure(), Some(Failure::OutOfOrder { command: CommandCode::EndOfBody, .. })));
}

#[test]
fn defect_5_an_unknown_command_leaves_the_session_where_it_is() {
    let mut session = Conversation::negotiated(all(), &[("unknown", 1)]);
    session.say(&[Command::Unknown(b"FOO"), CONNECT, HELO, mail(), Command::Unknown(b"FOO")]);
    assert_eq!(session.engine.state(), State::Mail);
    assert_eq!(session.replies, "rcccr");
    session.lose();
    assert_eq!(session.called[4..], ["unknown", "abort", "close"]);
}

#[test]
fn defect_6_stray_commands_do_not_spoil_what_comes_before_helo() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[Command::Abort, Command::Unknown(b"FOO"), Command::Abort, CONNECT]);
    assert_eq!(session.called, ["unknown", "connect"]);
}

#[test]
fn defect_7_a_command_out_of_order_ends_the_session() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[CONNECT, HELO, rcpt()]);
    assert_eq!(session.called, ["connect", "helo", "close"]);
    let failure = Failure::OutOfOrder { command: CommandCode::Rcpt, state: State::Helo };
    assert_eq!(session.engine.failure(), Some(failure));
}

#[test]
fn defect_8_abort_needs_a_message() {
    let mut session = Conversation::negotiated(Callbacks::EOM | Callbacks::ABORT | Callbacks::CLOSE, &[]);
    session.say(&[END, Command::Abort, Command::Abort, END, Command::Abort]);
    assert_eq!(session.called, ["eom", "eom"]);
}

#[test]
fn defect_9_one_abort_for_one_message() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[mail()]);
    session.take(b'M', &mut []);
    assert_eq!(session.called, ["envfrom", "abort", "close"]);
}

#[test]
fn defect_10_a_final_chunk_gets_one_reply() {
    for (body, replies, called) in [
        (0, "c", &["body", "eom"][..]),
        (8, "c", &["body", "eom"]),
        (7, "c", &["body", "eom"]),
        (1, "r", &["body"]),
        (2, "d", &["body"]),
        (3, "a", &["body"]),
    ] {
        let mut session = Conversation::negotiated(all(), &[("body", body)]);
        session.say(&[mail(), rcpt()]);
        session.called.clear();
        session.replies.clear();
        session.say(&[Command::EndOfBody(b"last")]);
        assert_eq!((&session.replies[..], &session.called[..]), (replies, called), "{body}");
    }
}

#[test]
fn defect_11_quit_with_a_new_connection_is_honoured_everywhere() {
    let mut session = Conversation::negotiated(all(), &[("helo", 1)]);
    session.say(&[CONNECT, Command::QuitNewConnection, CONNECT, mail(), Command::QuitNewConnection]);
    assert_eq!(session.called, ["connect", "close", "connect", "envfrom", "abort", "close"]);
    session.lose();
    assert_eq!(session.called.len(), 6, "nothing has happened since it was closed");
}

#[test]
fn defect_11_a_stored_reply_ends_with_its_connection() {
    let mut session = Conversation::negotiated(all(), &[("helo", 1)]);
    session.engine.store_reply(SmtpReply::single(b"550", None, None).unwrap());
    session.say(&[CONNECT, Command::QuitNewConnection, CONNECT, HELO]);
    assert_eq!(session.replies, "ccr");
}

#[test]
fn defect_15_an_undefined_verdict_ends_the_session() {
    for value in [-1, 5, 6, 9, 10, 20, 21, 22, 99, i32::MAX] {
        let mut session = Conversation::negotiated(all(), &[("envfrom", value)]);
        session.say(&[mail(), rcpt()]);
        assert_eq!(session.replies, "");
        assert_eq!(session.called, ["envfrom", "abort", "close"]);
        let failure = Failure::UndefinedVerdict { command: CommandCode::Mail, value };
        assert_eq!(session.engine.failure(), Some(failure));
    }
}

#[test]
fn defect_16_a_broken_promise_changes_nothing() {
    for (offered, replies) in [(Steps::VERSION_6, ""), (Steps::from_bits_retain(0x37f), "ccc")] {
        let mut session = Conversation::quiet(offered, &[("envfrom", 1), ("envrcpt", 7), ("data", 0)]);
        session.say(&[mail(), rcpt(), Command::Data]);
        assert_eq!(session.replies, replies);
        assert_eq!(session.called, ["envfrom", "envrcpt", "data"]);
        let told = [(State::Mail, 1), (State::Data, 0)];
        assert_eq!(session.notices, told.map(|(state, value)| Notice::BrokenPromise { state, value }));
    }
}

#[test]
fn defect_17_no_callback_keeps_the_promise() {
    let mut session = Conversation::new(Callbacks::NEGOTIATE | Callbacks::EOM, &[]);
    session.wanted = Some(Steps::NR_HEADER);
    session.negotiate(6, Steps::VERSION_6);
    session.say(&[mail(), rcpt(), HEADER, HEADER, END]);
    assert_eq!(session.replies, "ccc");
    assert_eq!(session.notices, []);
}

#[test]
fn a_verdict_for_the_whole_message_goes_out_even_where_no_reply_is_due() {
    let mut session = Conversation::quiet(Steps::VERSION_6, &[("header", 3), ("eom", 0)]);
    session.say(&[mail(), rcpt(), Command::Data, HEADER]);
    assert_eq!(session.replies, "a");
    session.say(&[HEADER, Command::EndOfHeaders, END, Command::Abort, mail()]);
    assert_eq!(session.called, ["envfrom", "envrcpt", "data", "header", "envfrom"]);
    assert!(!session.engine.is_finished(), "what the MTA had sent ahead is no error");
}

#[test]
fn a_missing_reply_is_given_and_told() {
    let mut session = Conversation::negotiated(all(), &[("envfrom", 7)]);
    session.say(&[mail()]);
    assert_eq!(session.replies, "c");
    assert_eq!(session.notices, [Notice::ReplyDue(CommandCode::Mail)]);
}

#[test]
fn modifications_belong_to_the_end_of_a_message() {
    let change = Modification::AddHeader { name: b"X", value: b"y" };
    let mut session = Conversation::negotiated(all(), &[]);
    assert!(!session.engine.modify(&change));
    session.say(&[mail(), rcpt()]);
    session.engine.handle_command(b'E', b"");
    assert!(matches!(session.engine.poll_callback(&mut []), Some(Callback::Eom)));
    assert!(session.engine.modify(&change));
    let too_large = vec![b'x'; frame::DEFAULT_LIMIT];
    assert!(!session.engine.modify(&Modification::Quarantine { reason: &too_large }));
    session.engine.answer(0);
    session.run(&mut []);
    assert!(!session.engine.modify(&change));
    assert_eq!(session.replies, "cchc");
}

#[test]
fn stored_replies_wait_for_a_verdict_of_their_class() {
    let mut session = Conversation::negotiated(all(), &[("helo", 1), ("envfrom", 4)]);
    session.engine.store_reply(SmtpReply::single(b"451", None, Some(b"later")).unwrap());
    session.say(&[HELO, mail(), mail()]);
    assert_eq!(session.replies, "ryt");
}

fn any_command() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let payload = prop_oneof![
        Just(Vec::new()),
        Just(b"h\0U".to_vec()),
        Just(b"<a>\0".to_vec()),
        Just(b"S\0v\0".to_vec()),
        Just(b"Mi\0x\0".to_vec()),
        Just([0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xff, 0xff].to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    (prop_oneof![9 => proptest::sample::select(&b"ODCHMRTLNBEAQKU"[..]), 1 => any::<u8>()], payload)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an MTA says and a filter answers: messages end once, the session is closed once, and every reply is a
    /// reply to something.
    #[test]
    fn sessions_stay_in_order(
        callbacks in any::<u16>(),
        wanted in proptest::option::of(any::<u32>()),
        verdict in -2..24_i32,
        odd_one in 0..12_usize,
        commands in proptest::collection::vec(any_command(), 0..40),
    ) {
        let callbacks = Callbacks::from_bits_truncate(callbacks) | Callbacks::ABORT | Callbacks::CLOSE;
        let names = ["connect", "helo", "envfrom", "envrcpt", "data", "unknown", "header", "eoh", "body", "eom", "negotiate", ""];
        let mut session = Conversation::new(callbacks, &[(names[odd_one], verdict)]);
        session.wanted = wanted.map(Steps::from_bits_retain);
        for (letter, mut payload) in commands {
            let (called, replies) = (session.called.len(), session.replies.len());
            session.take(letter, &mut payload);
            let replies = session.replies.len() - replies;
            prop_assert!(replies <= usize::from(CommandCode::from_letter(letter).is_some_and(CommandCode::expects_reply)));
            let called = &session.called[called..];
            let count = |name| called.iter().filter(|called| **called == name).count();
            prop_assert!(count("abort") <= 2 && count("close") <= 1);
            // Silence is only for those who asked for it.
            let expected = CommandCode::from_letter(letter).is_some_and(CommandCode::expects_reply);
            let silent = expected && replies == 0 && !session.engine.is_finished() && session.wanted.is_none();
            prop_assert!(!silent);
        }
        if !session.engine.is_finished() {
            session.lose();
        }
        prop_assert!(session.called.ends_with(&["close"]) );
    }
}
