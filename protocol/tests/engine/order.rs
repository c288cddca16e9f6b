//! Whatever an MTA says and a filter answers: what a session owes to both of them.

use std::mem;

use milter_protocol::{Actions, Callbacks, CommandCode, Engine, Failure, Steps};
use proptest::prelude::*;
use proptest::sample::select;

use crate::conversation::Conversation;

/// What the MTA offers: all but the replies to three stages that a filter can leave out.
const OFFERED: Steps =
    Steps::VERSION_6.difference(Steps::NR_HELO).difference(Steps::NR_RCPT).difference(Steps::NR_BODY);

/// What a filter that negotiates wants: to reply to no stage but two.
const WANTED: Steps = Steps::NO_REPLY.difference(Steps::NR_MAIL).difference(Steps::NR_EOH);

/// The packet of a command; small letters stand for unusual payloads.
fn packet(letter: u8) -> (u8, Vec<u8>) {
    let payload: &[u8] = match letter {
        b'O' => &[6, Actions::VERSION_6.bits(), OFFERED.bits()].map(u32::to_be_bytes).concat(),
        b'C' => b"h\0U",
        b'D' => b"Ci\0x\0",
        b'H' | b'U' | b'M' | b'R' => b"h\0",
        b'L' => b"S\0v\0",
        b'B' | b'e' => b"x",
        b'l' | b'm' => b"no end",
        _ => b"",
    };
    (letter.to_ascii_uppercase(), payload.to_vec())
}

/// What an MTA says in a session that is in order, or nearly so, one letter for each packet.
fn sessions() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => select(&["O", "OC", "CH", "H", "C", "DA"][..]),
        6 => select(&["MRTLLNBBE", "MRRTLNe", "MRTLNBe", "MRBE", "MRe", "E", "e", "MRLB", "LNBe"][..]),
        3 => select(&["MA", "MRA", "MRTLA", "A", "MK", "K", "KC", "KO", "Q", "KQ", "KK", "KA", "KDK"][..]),
        2 => Just("U"),
        1 => select(&["M", "R", "T", "L", "N", "B", "m", "r", "l", "b", "z"][..]),
    ];
    // Most sessions begin with an offer, and in some parts a command is missing.
    let parts = proptest::collection::vec((part, 0..20_usize), 1..12);
    (0..8_u8, parts).prop_map(|(early, parts)| {
        let offer = (early != 0).then_some('O');
        let rest = parts.iter().flat_map(|(part, missing)| {
            part.chars().enumerate().filter(move |(place, _)| place != missing).map(|(_, letter)| letter)
        });
        offer.into_iter().chain(rest).collect()
    })
}

fn verdicts() -> impl Strategy<Value = Vec<i32>> {
    proptest::collection::vec(
        prop_oneof![24 => Just(0), 4 => Just(7), 8 => select(&[1, 2, 3, 4, 8][..]), 1 => 5..100],
        1..40,
    )
}

/// A session followed from outside.
struct Oracle {
    callbacks: Callbacks,
    /// For these steps the filter has promised not to reply.
    quiet: Steps,
    /// A message has begun for the filter, and nothing has ended it.
    open: bool,
    /// The filter has a client that it was not told to close.
    active: bool,
}

impl Oracle {
    /// Checks what was done about one packet, or with the letter 0 about the end of the connection.
    fn follow(&mut self, letter: u8, calls: &[(&str, Option<i32>)], replies: &str, engine: &Engine) {
        let command = CommandCode::from_letter(letter);
        let failure = engine.failure();
        let of_message = command.is_some_and(CommandCode::is_of_message);
        let mut reports = calls.iter().filter(|(name, _)| !matches!(*name, "abort" | "close")).count();

        if self.open && matches!(letter, b'H' | b'M' | b'Q' | b'K' | b'A') {
            assert_eq!(calls.first().map(|(name, _)| *name), Some("abort"), "a message that is given up is aborted");
        }
        let (mut closes, mut decided) = (0, false);
        for (name, value) in calls {
            match *name {
                "abort" => {
                    // The filter has not seen the one command of this message, for it was malformed.
                    let unseen = of_message && matches!(failure, Some(Failure::Payload(..)));
                    assert!(mem::take(&mut self.open) || unseen, "an abort is for a message");
                    assert!(letter != b'U' || failure.is_some(), "an unknown command is no reason for it");
                }
                "close" => closes += 1,
                "eom" => {
                    assert!(!decided, "a message ends once");
                    self.open = false;
                }
                "unknown" if *value == Some(3) && !self.is_quiet(CommandCode::Unknown) => self.open = false,
                _ if of_message => {
                    decided = value.is_some_and(|value| self.decides(command, value));
                    self.open = !decided;
                }
                _ => {}
            }
        }
        let taken = failure.is_none() && !matches!(letter, 0 | b'D' | b'A' | b'Q' | b'K');
        if taken && of_message {
            self.open = letter != b'E' && !decided;
        }
        let begun = matches!(failure, Some(Failure::Payload(..) | Failure::Negotiation(_)));
        self.active |= reports > 0 || taken || begun;

        if taken && let Some(command) = command {
            if letter == b'E' {
                reports -= calls.iter().filter(|(name, _)| *name == "body").count();
                assert!(!decided || reports == 0, "a decided message is not asked about");
            }
            let due = self.callbacks.contains(command.callback()) && !(letter == b'E' && decided);
            assert_eq!(reports, usize::from(due), "a filter is told what it wants to know, once");
        }
        if engine.is_finished() || letter == b'K' {
            assert!(!self.open, "a message ends with eom, abort or a verdict");
            assert_eq!(closes, usize::from(mem::take(&mut self.active)), "a client is closed once");
        } else {
            assert_eq!(closes, 0, "a client is closed at its end");
        }
        match command.filter(|command| taken && command.expects_reply()) {
            None => assert_eq!(replies, ""),
            Some(command) if !self.is_quiet(command) => assert_eq!(replies.len(), 1, "{replies}"),
            Some(command) if OFFERED.intersects(command.no_reply_step()) => assert_eq!(replies, ""),
            Some(_) => assert_eq!(replies, "c"),
        }
        if taken && letter == b'O' && self.callbacks.contains(Callbacks::NEGOTIATE) {
            self.quiet = WANTED;
        }
    }

    fn is_quiet(&self, command: CommandCode) -> bool {
        self.quiet.intersects(command.no_reply_step())
    }

    /// Whether what a callback of this command returned ends the message.
    fn decides(&self, command: Option<CommandCode>, value: i32) -> bool {
        let one_recipient = command == Some(CommandCode::Rcpt);
        let heard = command.is_some_and(|command| !self.is_quiet(command));
        heard && (value == 3 || matches!(value, 1 | 2 | 4) && !one_recipient)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every message ends once, every client is closed once, and whoever waits for a reply gets one.
    #[test]
    fn sessions_stay_in_order(
        unregistered in any::<u16>(),
        everything in any::<bool>(),
        verdicts in verdicts(),
        lost_in in proptest::option::weighted(0.2, 0..20_usize),
        said in sessions(),
    ) {
        let needed = Callbacks::ABORT | Callbacks::CLOSE;
        let callbacks = if everything { Callbacks::all() } else { !Callbacks::from_bits_truncate(unregistered) | needed };
        let mut session = Conversation::new(callbacks, &[]);
        session.wanted = Some(WANTED);
        session.in_turn = verdicts.into_iter().cycle();
        session.lost_in = lost_in;
        let mut oracle = Oracle { callbacks, quiet: Steps::empty(), open: false, active: true };
        for said in said.bytes() {
            let (letter, mut payload) = packet(said);
            session.take(letter, &mut payload);
            oracle.follow(letter, &session.take_calls(), &mem::take(&mut session.replies), &session.engine);
            if session.engine.is_finished() {
                return Ok(());
            }
        }
        session.lose();
        oracle.follow(0, &session.take_calls(), &session.replies, &session.engine);
    }

    /// Nor do octets without any sense get more than one reply each, or a session without an end.
    #[test]
    fn no_packet_is_too_strange(
        callbacks in any::<u16>(),
        wanted in any::<u32>(),
        packets in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..40),
        known in proptest::collection::vec(select(&b"ODCHMRTLNBEAQKU"[..]), 40),
    ) {
        let mut session = Conversation::new(Callbacks::from_bits_truncate(callbacks) | Callbacks::CLOSE, &[]);
        session.wanted = Some(Steps::from_bits_retain(wanted));
        for ((odd, mut payload), known) in packets.into_iter().zip(known) {
            let replies = session.replies.len();
            session.take(if odd < 16 { odd } else { known }, &mut payload);
            prop_assert!(session.replies.len() <= replies + 1);
        }
        if !session.engine.is_finished() {
            session.lose();
        }
        prop_assert!(session.called.ends_with(&["close"]));
    }
}
