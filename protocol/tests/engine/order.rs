//! Whatever an MTA says and a filter answers: what a session owes to both of them.

use std::iter::Cycle;
use std::{fs, mem, vec};

use milter_protocol::{Actions, Callback, Callbacks, Steps, frame};
use proptest::prelude::*;
use proptest::sample::select;

use crate::conversation::profile;
use crate::oracle::{Calls, Filter, Session};
use crate::script;

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

/// A filter that returns what it is told in turn.
struct InTurn {
    verdicts: Cycle<vec::IntoIter<i32>>,
    /// Steps to write into the negotiation's result.
    wanted: Steps,
    /// How many callbacks go well before the connection is lost in one.
    lost_in: Option<usize>,
}

impl Filter for InTurn {
    fn answer(&mut self, callback: &mut Callback<'_>, _: &mut Calls<'_>) -> Option<i32> {
        let value = match callback {
            Callback::Negotiate(offer) => {
                offer.wanted_steps = self.wanted.bits();
                0
            }
            _ => self.verdicts.next().unwrap_or(0),
        };
        let lost = self.lost_in.as_mut().is_some_and(|left| mem::replace(left, left.wrapping_sub(1)) == 0);
        (!lost).then_some(value)
    }
}

/// Those that a session cannot be checked without.
const NEEDED: Callbacks = Callbacks::ABORT.union(Callbacks::CLOSE);

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
        let callbacks = if everything { Callbacks::all() } else { !Callbacks::from_bits_truncate(unregistered) | NEEDED };
        let filter = InTurn { verdicts: verdicts.into_iter().cycle(), wanted: WANTED, lost_in };
        let mut session = Session::new(profile(callbacks), frame::DEFAULT_LIMIT, filter);
        for said in said.bytes() {
            let (letter, mut payload) = packet(said);
            session.take(letter, &mut payload);
            if session.engine().is_finished() {
                break;
            }
        }
        session.lose();
    }

    /// The same with packets that no MTA sends, and with filters that make calls.
    #[test]
    fn no_session_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        script::play(&bytes);
    }
}

/// What fuzzing has found worth keeping.
#[test]
fn the_corpus_stays_in_order() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/engine");
    let sessions: Vec<_> = fs::read_dir(corpus).expect("the corpus").collect();
    assert!(sessions.len() > 20, "{}", sessions.len());
    for session in sessions {
        script::play(&fs::read(session.expect("a file").path()).expect("a readable file"));
    }
}
