//! The engine as a filter and an MTA see it: commands in, callbacks and replies out.

mod conversation;
mod oracle;
mod order;
mod script;
mod told;

use milter_protocol::frame::FrameError;
use milter_protocol::modification::Obstacle;
use milter_protocol::negotiation::NegotiationError;
use milter_protocol::{
    Actions, Callback, Callbacks, Command, CommandCode, Engine, Failure, Modification, ModificationError, Notice,
    Profile, Stage, State, Steps, frame,
};

use conversation::{Conversation, profile};

const OFFER: Command<'static> = Command::Negotiate { version: 6, actions: Actions::VERSION_6, steps: Steps::VERSION_6 };
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
fn a_message_lasts_from_its_first_command_to_its_end() {
    for end in [END, Command::Abort, HELO] {
        let mut session = Conversation::negotiated(all(), &[]);
        session.say(&[CONNECT, HELO]);
        assert!(!session.engine.in_message());
        for command in [mail(), rcpt(), HEADER] {
            session.say(&[command]);
            assert!(session.engine.in_message());
        }
        session.say(&[end]);
        assert!(!session.engine.in_message());
    }
    let mut session = Conversation::negotiated(all(), &[("envfrom", 1)]);
    session.say(&[mail()]);
    assert!(!session.engine.in_message());
}

#[test]
fn a_frame_that_cannot_be_accepted_ends_the_session() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[mail()]);
    session.engine.handle_frame_error(FrameError::Empty);
    session.run(&mut []);
    assert_eq!(session.called, ["envfrom", "abort", "close"]);
    assert!(session.engine.is_finished());
    assert_eq!(session.engine.failure(), Some(Failure::Frame(FrameError::Empty)));
}

#[test]
fn the_limit_is_the_owners_or_what_is_negotiated() {
    for (steps, limit) in [(Steps::empty(), 1000), (Steps::SIZE_256K, 262_143), (Steps::SIZE_1M, 1_048_575)] {
        let mut session = Conversation::new(all(), &[]);
        session.engine = Engine::new(Profile { version: 0x0100_0002, ..profile(all()) }, 1000);
        assert_eq!(session.engine.limit(), 1000);
        session.negotiate(6, Steps::VERSION_6 | steps);
        assert_eq!(session.engine.limit(), limit);
    }
    assert_eq!(Engine::new(profile(all()), usize::MAX).limit(), frame::LARGEST_LIMIT);
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
fn the_outcome_of_a_negotiation_is_told() {
    let mut session = Conversation::new(all() - Callbacks::HELO, &[]);
    session.say(&[OFFER]);
    let (actions, offered_steps) = (Actions::VERSION_6.bits(), Steps::VERSION_6.bits());
    let steps = Steps::NO_HELO.bits();
    let told = Notice::Negotiated { offered_actions: actions, offered_steps, actions, steps };
    assert_eq!(session.notices, [told]);
}

#[test]
fn what_was_negotiated_away_is_not_missed() {
    let mut session = Conversation::new(Callbacks::all(), &[]);
    session.wanted = Some(Steps::NO_HELO | Steps::NO_MAIL | Steps::NO_RCPT);
    session.negotiate(6, Steps::VERSION_6);
    session.say(&[CONNECT, HEADER, END]);
    assert_eq!(session.called, ["connect", "header", "eom"]);
    assert_eq!(session.engine.failure(), None);
}

#[test]
fn macros_last_until_the_session_comes_to_an_earlier_stage() {
    let mut session = Conversation::negotiated(all(), &[]);
    // Each has a name that is its own letter.
    let macros = |letter: &'static [u8; 1]| Command::Macro { letter: letter[0], pairs: vec![(letter, b"v")] };
    for (commands, known) in [
        (&[macros(b"C"), macros(b"H"), CONNECT][..], "C"),
        (&[macros(b"H"), macros(b"M"), HELO], "CH"),
        (&[macros(b"M"), macros(b"R"), mail()], "CHM"),
        (&[macros(b"R"), macros(b"T"), rcpt()], "CHMR"),
        (&[macros(b"T"), Command::Data], "CHMRT"),
        (&[HEADER, Command::EndOfHeaders, END], "CHMRT"),
        (&[mail()], "CHM"),
        (&[HELO], "CH"),
        (&[Command::QuitNewConnection], ""),
    ] {
        session.say(commands);
        let found = b"CHMRT".iter().filter(|letter| session.engine.macro_value(&[**letter]).is_some());
        assert_eq!(found.map(|letter| char::from(*letter)).collect::<String>(), known, "{commands:?}");
    }
}

#[test]
fn defect_5_an_unknown_command_leaves_the_session_where_it_is() {
    let unknown = || Command::Unknown(b"FOO");
    let mut session = Conversation::new(all(), &[("unknown", 1)]);
    session.say(&[unknown(), OFFER, unknown(), CONNECT, unknown(), HELO, unknown(), mail(), unknown(), rcpt()]);
    session.say(&[unknown(), Command::Data, unknown(), HEADER, unknown(), Command::EndOfHeaders, unknown()]);
    assert_eq!(session.engine.state(), State::Eoh);
    session.say(&[Command::Body(b"x"), unknown(), END, unknown(), Command::Abort, mail(), unknown()]);
    assert_eq!(session.replies, "rOrcrcrcrcrcrcrcrcrcrcr");
    session.lose();
    session.called.retain(|name| *name != "unknown");
    let called = ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "envfrom"];
    assert_eq!(session.called, [&called[..], &["abort", "close"]].concat());
}

#[test]
fn an_unknown_command_can_end_a_message_but_nothing_else() {
    let mut session = Conversation::negotiated(all(), &[("unknown", 3)]);
    session.say(&[Command::Unknown(b"FOO"), CONNECT, HELO, mail(), Command::Unknown(b"FOO"), mail()]);
    assert_eq!(session.called, ["unknown", "connect", "helo", "envfrom", "unknown", "envfrom"]);
    assert_eq!(session.replies, "acccac");
}

#[test]
fn after_an_abort_a_message_starts_anew() {
    let mut session = Conversation::negotiated(all() - Callbacks::UNKNOWN, &[]);
    session.say(&[CONNECT, HELO, mail(), Command::Abort]);
    assert_eq!(session.engine.state(), State::Helo);
    session.say(&[rcpt()]);
    assert_eq!(session.called, ["connect", "helo", "envfrom", "abort", "close"]);
    let failure = Failure::OutOfOrder { command: CommandCode::Rcpt, state: State::Helo };
    assert_eq!(session.engine.failure(), Some(failure));
}

#[test]
fn defect_6_stray_commands_do_not_spoil_what_comes_before_helo() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[Command::Abort, Command::Unknown(b"FOO"), Command::Abort, CONNECT]);
    assert_eq!(session.called, ["unknown", "connect"]);
    let mut session = Conversation::new(all(), &[]);
    session.say(&[Command::Abort, Command::QuitNewConnection, OFFER, CONNECT]);
    assert_eq!(session.called, ["close", "connect"]);
    assert_eq!(session.replies, "Oc");
}

#[test]
fn a_session_may_start_without_an_offer() {
    for first in [HELO, mail()] {
        let mut session = Conversation::new(all(), &[]);
        session.say(&[first, mail(), rcpt()]);
        assert_eq!(session.replies, "ccc");
    }
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

/// Neither a message nor a client begins with a command that the filter is not told of.
#[test]
fn defect_9_what_is_not_understood_begins_nothing() {
    for malformed in [b'M', b'R', b'L'] {
        let mut session = Conversation::new(Callbacks::all(), &[]);
        session.wanted = Some(match malformed {
            b'M' => Steps::empty(),
            _ => Steps::NO_MAIL | Steps::NO_RCPT,
        });
        session.negotiate(6, Steps::VERSION_6);
        session.take(malformed, &mut b"no end".to_vec());
        assert_eq!(session.called, ["close"], "{}", malformed.escape_ascii());
    }
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[mail()]);
    session.take(b'M', &mut b"no end".to_vec());
    assert_eq!(session.called, ["envfrom", "abort", "close"]);
    // In a message that has begun, they are a reason to give it up.
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[mail()]);
    session.take(b'R', &mut b"no end".to_vec());
    assert_eq!(session.called, ["envfrom", "abort", "close"]);
    for malformed in [b'C', b'H', b'M', b'O'] {
        let mut session = Conversation::new(all(), &[]);
        session.say(&[Command::QuitNewConnection]);
        session.take(malformed, &mut b"no end".to_vec());
        assert_eq!(session.called, ["close"], "{}", malformed.escape_ascii());
    }
}

#[test]
fn an_abort_that_fails_is_not_repeated() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.lost_in = Some(1);
    session.say(&[mail(), mail()]);
    assert_eq!(session.called, ["envfrom", "abort", "close"]);
}

#[test]
fn a_final_chunk_that_fails_leaves_the_message_to_abort() {
    let mut session = Conversation::negotiated(all(), &[("body", 99)]);
    session.say(&[mail(), rcpt(), Command::EndOfBody(b"last")]);
    assert_eq!(session.called, ["envfrom", "envrcpt", "body", "abort", "close"]);
    let mut session = Conversation::negotiated(all(), &[("eom", 99)]);
    session.say(&[mail(), rcpt(), END]);
    assert_eq!(session.called, ["envfrom", "envrcpt", "eom", "close"]);
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
fn defect_11_a_client_is_closed_once() {
    let macros = || Command::Macro { letter: b'C', pairs: vec![(b"j", b"mx")] };
    for last in [Command::Quit, Command::QuitNewConnection, Command::Abort] {
        let mut session = Conversation::negotiated(all(), &[]);
        session.say(&[CONNECT, Command::QuitNewConnection, Command::Abort, macros(), last]).lose();
        assert_eq!(session.called, ["connect", "close"]);
    }
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[CONNECT, macros(), Command::QuitNewConnection, macros(), Command::QuitNewConnection, CONNECT]);
    assert!(session.engine.macro_value(b"j").is_none());
    session.lose();
    assert_eq!(session.called, ["connect", "close", "connect", "close"]);
}

#[test]
fn defect_11_a_stored_reply_ends_with_its_connection() {
    let mut session = Conversation::negotiated(all(), &[("helo", 1)]);
    session.store_reply(b"550");
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
    let stages = [
        ("connect", CommandCode::Connect),
        ("helo", CommandCode::Helo),
        ("unknown", CommandCode::Unknown),
        ("envfrom", CommandCode::Mail),
        ("envrcpt", CommandCode::Rcpt),
        ("data", CommandCode::Data),
        ("header", CommandCode::Header),
        ("eoh", CommandCode::EndOfHeaders),
        ("body", CommandCode::Body),
    ];
    let rest = stages.map(|(callback, _)| (callback, 7));
    for (offered, replies) in [(Steps::VERSION_6, "c"), (Steps::from_bits_retain(0x37f), "cccccccccc")] {
        for (callback, command) in stages {
            for value in [0, 1, 2, 3, 4, 7, 8] {
                let mut session = Conversation::quiet(offered, &[&[(callback, value)], &rest[..]].concat());
                session.store_reply(b"550");
                session.say(&[CONNECT, HELO, Command::Unknown(b"FOO"), mail(), rcpt(), Command::Data, HEADER]);
                session.say(&[Command::EndOfHeaders, Command::Body(b"x"), END]);
                assert_eq!(session.replies, replies, "{callback} {value}");
                let mut called = stages.map(|(callback, _)| callback).to_vec();
                called.push("eom");
                assert_eq!(session.called, called, "{callback} {value}");
                let told = (value != 7).then_some(Notice::BrokenPromise { command, value });
                assert_eq!(session.notices, Vec::from_iter(told), "{callback} {value}");
            }
        }
    }
}

#[test]
fn what_the_author_promises_is_kept_by_continue_too() {
    for (value, told) in [(0, false), (7, false), (1, true), (8, true)] {
        let mut session = Conversation::new(all(), &[("envfrom", value)]);
        let promised = Steps::NR_MAIL;
        session.engine = Engine::new(Profile { promised, ..profile(all()) }, frame::DEFAULT_LIMIT);
        session.negotiate(6, Steps::VERSION_6);
        session.say(&[mail(), rcpt()]);
        assert_eq!(session.replies, "c");
        let notice = Notice::BrokenPromise { command: CommandCode::Mail, value };
        assert_eq!(session.notices, Vec::from_iter(told.then_some(notice)));
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
fn a_missing_reply_is_given_and_told() {
    let whole = [
        (CONNECT, "connect"),
        (HELO, "helo"),
        (Command::Unknown(b"FOO"), "unknown"),
        (mail(), "envfrom"),
        (rcpt(), "envrcpt"),
        (Command::Data, "data"),
        (HEADER, "header"),
        (Command::EndOfHeaders, "eoh"),
        (Command::Body(b"x"), "body"),
        (END, "eom"),
    ];
    for (command, callback) in &whole {
        let mut session = Conversation::negotiated(all(), &[(callback, 7)]);
        for (command, _) in &whole {
            session.say(std::slice::from_ref(command));
        }
        assert_eq!(session.replies, "cccccccccc");
        assert_eq!(session.notices, [Notice::ReplyDue(command.code())]);
    }
    // Nobody waits for a reply to these.
    let mut session = Conversation::negotiated(all(), &[("abort", 7), ("close", 7)]);
    session.say(&[mail(), Command::Abort, Command::Quit]);
    assert_eq!((&session.replies[..], &session.notices[..]), ("c", &[][..]));
}

#[test]
fn a_missing_reply_to_the_last_piece_of_a_body_is_told() {
    for (steps, told) in [(Steps::empty(), true), (Steps::NR_BODY, false)] {
        for offered in [Steps::VERSION_6, Steps::from_bits_retain(0x37f)] {
            let mut session = Conversation::new(Callbacks::all(), &[("body", 7)]);
            session.wanted = Some(steps);
            session.negotiate(6, offered);
            session.say(&[mail(), rcpt(), Command::EndOfBody(b"last")]);
            assert_eq!(session.replies, "ccc");
            assert_eq!(session.notices, Vec::from_iter(told.then_some(Notice::ReplyDue(CommandCode::Body))));
        }
    }
}

#[test]
fn modifications_belong_to_the_end_of_a_message() {
    let change = Modification::AddHeader { name: b"X", value: b"y" };
    let too_early = Err(ModificationError::Obstacle(Obstacle::NotEndOfMessage));
    let mut session = Conversation::negotiated(all(), &[]);
    assert_eq!(session.engine.modify(&change), too_early);
    session.say(&[mail(), rcpt()]);
    session.engine.handle_command(b'T', b"");
    assert!(matches!(session.engine.poll_callback(&mut []), Some(Callback::Data)));
    assert_eq!(session.engine.modify(&change), too_early);
    session.engine.answer(0);
    session.run(&mut []);
    session.engine.handle_command(b'E', b"");
    assert!(matches!(session.engine.poll_callback(&mut []), Some(Callback::Eom)));
    assert_eq!(session.engine.modify(&change), Ok(()));
    let too_large = Modification::Quarantine { reason: &vec![b'x'; frame::DEFAULT_LIMIT] };
    assert_eq!(session.engine.modify(&too_large), Err(ModificationError::TooLarge));
    session.engine.answer(0);
    session.run(&mut []);
    assert_eq!(session.engine.modify(&change), too_early);
    assert_eq!(session.replies, "ccchc");
}

#[test]
fn stored_replies_wait_for_a_verdict_of_their_class() {
    let mut session = Conversation::negotiated(all(), &[("helo", 1), ("envfrom", 4)]);
    session.store_reply(b"451");
    session.say(&[HELO, mail(), mail()]);
    assert_eq!(session.replies, "ryt");
}

#[test]
fn a_stored_reply_beyond_the_limit_is_dropped() {
    for (limit, replies) in [(9, "yr"), (8, "rr")] {
        let mut session = Conversation::new(all(), &[("helo", 1)]);
        session.engine = Engine::new(profile(all()), limit);
        session.store_reply(b"550");
        session.say(&[HELO, HELO]);
        assert_eq!(session.replies, replies);
    }
}

#[test]
fn an_answer_to_the_offer_beyond_the_limit_fails_the_session() {
    for (spare, replies) in [(0, "pO"), (1, "p")] {
        let mut session = Conversation::new(all(), &[]);
        let list = vec![b'x'; frame::DEFAULT_LIMIT - 12 - 2 * 5 - 1 + spare];
        assert_eq!(session.engine.request_macros(Stage::Rcpt, &list), Ok(()));
        assert_eq!(session.engine.request_macros(Stage::Connect, b"j"), Ok(()));
        // What else is still to be sent does not count.
        session.engine.progress();
        session.say(&[OFFER]);
        assert_eq!(session.replies, replies);
        let error = NegotiationError::LongAnswer { len: frame::DEFAULT_LIMIT + 1, limit: frame::DEFAULT_LIMIT };
        assert_eq!(session.engine.failure(), (spare > 0).then_some(Failure::Negotiation(error)));
    }
}

#[test]
fn a_negotiation_without_a_choice_is_refused() {
    let mut session = Conversation::new(Callbacks::all(), &[]);
    let mut wire = Vec::new();
    OFFER.encode(&mut wire);
    let payload = &mut wire[frame::HEADER_LEN..];
    session.engine.handle_command(b'O', payload);
    assert!(matches!(session.engine.poll_callback(payload), Some(Callback::Negotiate(_))));
    session.engine.answer(0);
    session.run(&mut []);
    assert_eq!((&session.replies[..], &session.called[..]), ("", &["close"][..]));
    assert!(matches!(session.engine.failure(), Some(Failure::Negotiation(NegotiationError::Refused { .. }))));
}

#[test]
fn body_packets_belong_to_the_end_of_a_message() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[mail(), rcpt()]);
    assert_eq!(session.engine.body_packet(1), Err(ModificationError::Obstacle(Obstacle::NotEndOfMessage)));
    session.engine.handle_command(b'E', b"");
    assert!(matches!(session.engine.poll_callback(&mut []), Some(Callback::Eom)));
    assert_eq!(session.engine.body_packet(frame::DEFAULT_LIMIT + 1), Err(ModificationError::TooLarge));
    assert_eq!(session.engine.body_packet(2), Ok(*b"\0\0\0\x03b"));
}

#[test]
fn a_lack_of_memory_ends_the_session_and_its_message() {
    let mut session = Conversation::negotiated(all(), &[]);
    session.say(&[mail()]);
    session.engine.handle_lack_of_memory();
    session.run(&mut []);
    assert_eq!(session.called, ["envfrom", "abort", "close"]);
    assert_eq!(session.engine.failure(), Some(Failure::NoMemory));
    assert!(session.engine.is_finished());
}

#[test]
fn idle_sessions_are_small() {
    assert!(size_of::<Engine>() <= 168, "{}", size_of::<Engine>());
}
