//! Conversations with scripted filters: what either MTA says, and what it makes of the answers.

mod fake;

use std::time::Duration;

use fake::{Fake, Move, add_header, negotiated, replies, reply};
use milter_probe::failure::Failure;
use milter_probe::mta::Patience;
use milter_probe::session::Progress;
use milter_probe::{Client, Envelope, Fate, Mail, Mailbox, Mta, Outcome, Session, Target};
use milter_protocol::modification::Modification;
use milter_protocol::reply::ReplyError;
use milter_protocol::{Actions, CommandCode, Reply, Stage, Steps};

const MAIL: &[u8] = b"From: a@x\nSubject:  two blanks\n\tfold\nX:tight\nMessage-ID: <1@x>\n\nhello\n";
const BOTH: [Mta; 2] = [Mta::Postfix, Mta::Sendmail];

fn envelope() -> Envelope {
    Envelope {
        sender: Mailbox::parse(b"a@x SIZE=5"),
        recipients: vec![Mailbox::parse(b"b@y"), Mailbox::parse(b"c@z NOTIFY=NEVER")],
    }
}

fn open(fake: &Fake, mta: Mta, patience: Patience) -> Result<Session, Failure> {
    let stream = Target::Unix(fake.path()).connect(patience.connect)?;
    Session::negotiate(stream, mta, patience)
}

/// One message from the negotiation to the end of the session.
fn play(fake: &Fake, mta: Mta, mail: &[u8]) -> Result<Outcome, Failure> {
    play_to(fake, mta, mail, Patience::uniform(Duration::from_secs(20)))
}

fn play_to(fake: &Fake, mta: Mta, mail: &[u8], patience: Patience) -> Result<Outcome, Failure> {
    let mut session = open(fake, mta, patience)?;
    session.greet(&"mx.y[2001:db8::1]:25".parse().unwrap(), "helo.y", &[])?;
    let outcome = session.deliver(&Mail::parse(mail), &envelope(), &mut |_| {})?;
    session.quit()?;
    Ok(outcome)
}

/// The letters of the commands, macros as `d`.
fn letters(heard: &[String]) -> String {
    heard.iter().map(|line| if line.starts_with('D') { 'd' } else { line.chars().next().unwrap() }).collect()
}

#[test]
fn postfix_announces_every_command_and_aborts_after_the_message() {
    let fake = Fake::continuing(0, 0, |_, _| None);
    let outcome = play(&fake, Mta::Postfix, MAIL).unwrap();
    assert_eq!((outcome.fate, outcome.stage), (Fate::Accepted, CommandCode::EndOfBody));
    assert_eq!(outcome.reply.lines, ["250 2.0.0 Ok: queued as 4PROBE0001"]);
    assert_eq!(outcome.delivery.mail().render(), MAIL);
    let expected = [
        "O |||\\x06||\\x01\\xff|\\x1f\\xff\\xff",
        "D Cj|mta.example.org|{daemon_name}|mta.example.org|{daemon_addr}|127.0.0.1|v|Postfix 3.9.1|_|mx.y [2001:db8::1]|",
        "C mx.y|6|\\x192001:db8::1|",
        "D H",
        "H helo.y|",
        "D M{mail_addr}|a@x|{mail_host}|x|{mail_mailer}|smtp|",
        "M <a@x>|SIZE=5|",
        "D R{rcpt_addr}|b@y|{rcpt_host}|y|{rcpt_mailer}|smtp|",
        "R <b@y>|",
        "D Ri|4PROBE0001|{rcpt_addr}|c@z|{rcpt_host}|z|{rcpt_mailer}|smtp|",
        "R <c@z>|NOTIFY=NEVER|",
        "D Ti|4PROBE0001|",
        "T",
        "D Li|4PROBE0001|",
        "L From|a@x|",
        "D Li|4PROBE0001|",
        "L Subject| two blanks\\n\\tfold|",
        "D Li|4PROBE0001|",
        "L X|tight|",
        "D Li|4PROBE0001|",
        "L Message-ID|<1@x>|",
        "D Ni|4PROBE0001|",
        "N",
        "D Bi|4PROBE0001|",
        "B 7 octets",
        "D Ei|4PROBE0001|",
        "E",
        "A",
        "A",
        "Q",
    ];
    assert_eq!(fake.heard(), expected);
}

#[test]
fn sendmail_announces_stages_and_quits_without_abort() {
    let fake = Fake::continuing(0, 0, |_, _| None);
    let outcome = play(&fake, Mta::Sendmail, MAIL).unwrap();
    assert_eq!(outcome.reply.lines, ["250 2.0.0 4PROBE0001 Message accepted for delivery"]);
    let expected = [
        "O |||\\x06||\\x01\\xff|\\x1f\\xff\\xff",
        "D Cj|mta.example.org|_|mx.y [2001:db8::1]|{daemon_name}|MTA|{if_name}|mta.example.org|{if_addr}|127.0.0.1|",
        "C mx.y|6|\\x19IPv6:2001:db8::1|",
        "D H",
        "H helo.y|",
        "D Mi|4PROBE0001|{mail_mailer}|smtp|{mail_host}|x|{mail_addr}|a@x|",
        "M <a@x>|SIZE=5|",
        "D R{rcpt_mailer}|smtp|{rcpt_host}|y|{rcpt_addr}|b@y|",
        "R <b@y>|",
        "D R{rcpt_mailer}|smtp|{rcpt_host}|z|{rcpt_addr}|c@z|",
        "R <c@z>|NOTIFY=NEVER|",
        "T",
        "L From|a@x|",
        "L Subject| two blanks\\n\\tfold|",
        "L X|tight|",
        "L Message-ID|<1@x>|",
        "N",
        "B 7 octets",
        "D E{msg_id}|<1@x>|",
        "E",
        "Q",
    ];
    assert_eq!(fake.heard(), expected);
}

#[test]
fn unwanted_commands_are_not_sent_but_some_are_announced() {
    let fake = Fake::continuing(0, 0x37f, |_, _| None);
    play(&fake, Mta::Postfix, MAIL).unwrap();
    assert_eq!(letters(&fake.heard()), "OdddddddEAAQ");
    let fake = Fake::continuing(0, 0x37f, |_, _| None);
    play(&fake, Mta::Sendmail, MAIL).unwrap();
    assert_eq!(letters(&fake.heard()), "OddddddEQ");
}

#[test]
fn unanswered_commands_are_not_waited_for() {
    for mta in BOTH {
        let fake = Fake::start(|letter, _| match letter {
            'O' => Move::Say(negotiated(0, Steps::NO_REPLY.bits())),
            'E' => Move::Say(reply(&Reply::Accept)),
            _ => Move::Sulk,
        });
        assert_eq!(play(&fake, mta, MAIL).unwrap().fate, Fate::Accepted, "{mta:?}");
        assert!(letters(&fake.heard()).replace('d', "").starts_with("OCHMRRTLLLLNBE"));
    }
}

#[test]
fn bodies_go_in_chunks_until_the_filter_skips_the_rest() {
    let body = [b"X: y\n\n", &b"0123456789abcde\n".repeat(10_000)[..]].concat();
    for mta in BOTH {
        let fake = Fake::continuing(0, 0, |_, _| None);
        let mut session = open(&fake, mta, mta.patience()).unwrap();
        session.greet(&Client::default(), "h", &[]).unwrap();
        let mut seen = Vec::new();
        let mut watch = |progress| seen.push(progress);
        session.deliver(&Mail::parse(&body), &envelope(), &mut watch).unwrap();
        session.quit().unwrap();
        let chunks: Vec<_> = fake.heard().into_iter().filter(|line| line.starts_with('B')).collect();
        assert_eq!(chunks, ["B 65535 octets", "B 65535 octets", "B 38930 octets"]);
        let sent = [65_535, 131_070, 170_000].map(Progress::Sent);
        assert_eq!(seen, [sent[0], sent[1], sent[2], Progress::Waiting]);

        let skipping = |letter, _: &[u8]| (letter == 'B').then(|| reply(&Reply::Skip));
        let fake = Fake::continuing(0, Steps::SKIP.bits(), skipping);
        assert_eq!(play(&fake, mta, &body).unwrap().fate, Fate::Accepted);
        assert_eq!(letters(&fake.heard()).matches('B').count(), 1, "{mta:?}");
    }
}

#[test]
fn filters_choose_their_macros() {
    let choose = |letter, _: &[u8]| {
        let macros = vec![(Stage::Helo, &b"{client_addr} v"[..]), (Stage::Connect, b"")];
        let (actions, steps) = (Actions::REQUEST_MACROS, Steps::empty());
        (letter == 'O').then(|| reply(&Reply::Negotiated { version: 6, actions, steps, macros }))
    };
    let fake = Fake::continuing(0, 0, choose);
    play(&fake, Mta::Postfix, MAIL).unwrap();
    let heard = fake.heard();
    assert_eq!(heard[1], "D C");
    assert_eq!(heard[3], "D H{client_addr}|2001:db8::1|v|Postfix 3.9.1|");
}

#[test]
fn leading_blanks_travel_when_the_filter_wants_them() {
    for mta in BOTH {
        let fake = Fake::continuing(0x11, Steps::LEADING_SPACE.bits(), |letter, _| {
            let change = Modification::ChangeHeader { index: 1, name: b"Subject", value: b"  three" };
            (letter == 'E').then(|| replies(&[Reply::Modify(change), add_header("N", "none"), Reply::Continue]))
        });
        let mail = play(&fake, mta, MAIL).unwrap().delivery.mail();
        assert_eq!(mail.header(b"Subject").unwrap().value, b"  three");
        assert_eq!(mail.header(b"N").unwrap().value, b"none");
        let heard = fake.heard();
        assert!(heard.contains(&"L Subject|  two blanks\\n\\tfold|".to_owned()), "{heard:?}");
        assert!(heard.contains(&"L X|tight|".to_owned()));
    }
}

#[test]
fn recipients_are_refused_one_by_one() {
    let refuse = |only: &'static [u8]| {
        move |letter: char, payload: &[u8]| {
            (letter == 'R' && payload.starts_with(only))
                .then(|| reply(&Reply::ReplyCode(b"550-5.1.1 a\r\n550 5.1.1 b")))
        }
    };
    for mta in BOTH {
        let fake = Fake::continuing(0, 0, refuse(b"<b@y>"));
        let outcome = play(&fake, mta, MAIL).unwrap();
        assert_eq!(outcome.fate, Fate::Accepted);
        assert_eq!(outcome.refused[0].0, Mailbox::parse(b"b@y"));
        assert_eq!(outcome.refused[0].1.lines, ["550-5.1.1 a", "550 5.1.1 b"]);
        assert_eq!(outcome.delivery.envelope.recipients, [Mailbox::parse(b"c@z NOTIFY=NEVER")]);

        let fake = Fake::continuing(0, 0, refuse(b"<"));
        let outcome = play(&fake, mta, MAIL).unwrap();
        assert_eq!((outcome.fate, outcome.stage), (Fate::Rejected, CommandCode::Rcpt));
        assert!(letters(&fake.heard()).ends_with(if mta == Mta::Postfix { "dRdRAAQ" } else { "dRdRAQ" }), "{mta:?}");
    }
}

#[test]
fn verdicts_end_a_message_at_any_stage() {
    let fates = [
        (Reply::Reject, Fate::Rejected),
        (Reply::Tempfail, Fate::Deferred),
        (Reply::Discard, Fate::Discarded),
        (Reply::Accept, Fate::Accepted),
        (Reply::ReplyCode(b"450 4.7.1 later"), Fate::Deferred),
    ];
    for mta in BOTH {
        for stage in ['M', 'T', 'L', 'N', 'B', 'E'] {
            for (verdict, fate) in &fates {
                let octets = reply(verdict);
                let fake = Fake::continuing(0, 0, move |letter, _| (letter == stage).then(|| octets.clone()));
                let outcome = play(&fake, mta, MAIL).unwrap();
                assert_eq!(outcome.fate, *fate, "{mta:?} {stage} {verdict:?}");
                assert_eq!(outcome.stage.letter(), stage as u8);
                let ending = if mta == Mta::Postfix { format!("{stage}AAQ") } else { format!("{stage}Q") };
                assert!(letters(&fake.heard()).ends_with(&ending), "{mta:?} {stage} {verdict:?}");
            }
        }
    }
}

#[test]
fn a_verdict_on_the_client_covers_every_message() {
    for (mta, stage, ending) in
        [(Mta::Postfix, 'C', "OdC"), (Mta::Postfix, 'H', "OdCdH"), (Mta::Sendmail, 'H', "OdCdHQ")]
    {
        let fake = Fake::continuing(0, 0, move |letter, _| (letter == stage).then(|| reply(&Reply::Reject)));
        let outcome = play(&fake, mta, MAIL).unwrap();
        assert_eq!((outcome.fate, outcome.stage.letter()), (Fate::Rejected, stage as u8));
        assert_eq!(letters(&fake.heard()), ending);
    }
}

#[test]
fn several_messages_share_a_session() {
    let fake = Fake::continuing(0, 0x3ff & !Steps::NO_MAIL.bits(), |letter, payload| {
        (letter == 'M' && payload.starts_with(b"<bad")).then(|| reply(&Reply::Reject))
    });
    let mut session = open(&fake, Mta::Postfix, Mta::Postfix.patience()).unwrap();
    session.greet(&Client::default(), "h", &[]).unwrap();
    let fates = ["good@x", "bad@x", "good@x"].map(|sender| {
        let envelope = Envelope { sender: Mailbox::parse(sender.as_bytes()), ..envelope() };
        session.deliver(&Mail::parse(MAIL), &envelope, &mut |_| {}).unwrap().fate
    });
    session.quit().unwrap();
    assert_eq!(fates, [Fate::Accepted, Fate::Rejected, Fate::Accepted]);
    assert_eq!(letters(&fake.heard()).replace('d', ""), "OMEAMAMEAAQ");
}

#[test]
fn modifications_are_taken_in_order_around_progress() {
    let answer = |letter, _: &[u8]| {
        (letter == 'E').then(|| {
            replies(&[
                add_header("X-New", "1"),
                Reply::Progress,
                Reply::ReplaceBody(b"new "),
                Reply::ReplaceBody(b"body"),
                Reply::Modify(Modification::DeleteRecipient { address: b"<b@y>" }),
                Reply::Modify(Modification::Quarantine { reason: b"odd" }),
                Reply::Continue,
            ])
        })
    };
    for mta in BOTH {
        let fake = Fake::continuing(0x1ff, 0, answer);
        let outcome = play(&fake, mta, MAIL).unwrap();
        assert_eq!(outcome.fate, Fate::Quarantined);
        assert_eq!(outcome.delivery.quarantine.as_deref(), Some(&b"odd"[..]));
        assert_eq!(outcome.delivery.changes.len(), 4);
        assert_eq!(outcome.remarks, [""; 0]);
        let text = String::from_utf8(outcome.delivery.mail().render()).unwrap();
        assert!(text.ends_with("Message-ID: <1@x>\nX-New: 1\n\nnew body\n"), "{text}");
    }
}

#[test]
fn a_new_body_in_two_places_is_for_sendmail_only() {
    let answer = |letter, _: &[u8]| {
        let pieces = [Reply::ReplaceBody(b"a"), Reply::Progress, Reply::ReplaceBody(b"b"), Reply::Continue];
        (letter == 'E').then(|| replies(&pieces))
    };
    let outcome = play(&Fake::continuing(0x1ff, 0, answer), Mta::Sendmail, MAIL).unwrap();
    assert_eq!(outcome.delivery.mail().body, b"ab\r\n");
    let failure = play(&Fake::continuing(0x1ff, 0, answer), Mta::Postfix, MAIL).unwrap_err();
    assert!(matches!(failure, Failure::Breach { stage: CommandCode::EndOfBody, .. }), "{failure}");
}

#[test]
fn actions_that_were_not_negotiated_are_remarked() {
    let answer = |letter, _: &[u8]| {
        (letter == 'E').then(|| replies(&[add_header("X", "1"), Reply::ReplaceBody(b"new"), Reply::Accept]))
    };
    let outcome = play(&Fake::continuing(0, 0, answer), Mta::Postfix, MAIL).unwrap();
    assert_eq!((outcome.fate, outcome.remarks.len()), (Fate::Accepted, 2));
    let outcome = play(&Fake::continuing(0, 0, answer), Mta::Sendmail, MAIL).unwrap();
    assert_eq!((outcome.fate, outcome.remarks.len()), (Fate::Deferred, 2));
}

#[test]
fn progress_keeps_postfix_waiting_and_upsets_sendmail() {
    let answer = |letter, _: &[u8]| (letter == 'M').then(|| replies(&[Reply::Progress, Reply::Continue]));
    assert_eq!(play(&Fake::continuing(0, 0, answer), Mta::Postfix, MAIL).unwrap().fate, Fate::Accepted);
    let failure = play(&Fake::continuing(0, 0, answer), Mta::Sendmail, MAIL).unwrap_err();
    assert!(matches!(failure, Failure::Breach { stage: CommandCode::Mail, .. }), "{failure}");
}

#[test]
fn failures_name_the_stage() {
    for mta in BOTH {
        for (letter, stage) in [('O', CommandCode::Negotiate), ('R', CommandCode::Rcpt), ('E', CommandCode::EndOfBody)]
        {
            let quiet = move |at: char, _: &[u8], silent: Move| match at {
                _ if at == letter => silent,
                'O' => Move::Say(negotiated(0, 0)),
                'D' | 'A' | 'Q' => Move::Sulk,
                _ => Move::Say(reply(&Reply::Continue)),
            };
            let fake = Fake::start(move |at, payload| quiet(at, payload, Move::HangUp));
            assert_eq!(play(&fake, mta, MAIL).unwrap_err(), Failure::Closed { stage });

            let fake = Fake::start(move |at, payload| quiet(at, payload, Move::Sulk));
            let after = Duration::from_millis(50);
            let failure = play_to(&fake, mta, MAIL, Patience::uniform(after)).unwrap_err();
            assert_eq!(failure, Failure::Timeout { stage, after });

            let fake = Fake::start(move |at, payload| quiet(at, payload, Move::Say(b"\0\0\0\x01z".to_vec())));
            let failure = play(&fake, mta, MAIL).unwrap_err();
            assert_eq!(failure, Failure::Malformed { stage, reason: ReplyError::UnknownCode(b'z') });
        }
    }
}

#[test]
fn changes_before_the_end_are_a_breach() {
    let answer = |letter, _: &[u8]| (letter == 'M').then(|| replies(&[add_header("X", "1"), Reply::Continue]));
    for mta in BOTH {
        let failure = play(&Fake::continuing(1, 0, answer), mta, MAIL).unwrap_err();
        assert!(matches!(failure, Failure::Breach { stage: CommandCode::Mail, .. }), "{failure}");
    }
}

#[test]
fn other_servers_are_recognised() {
    for (said, kind) in [
        (&b"220 mail.example ESMTP\r\n"[..], Some("an SMTP or FTP server")),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Some("an HTTP server")),
        (b"hello, who is there?", None),
    ] {
        let fake = Fake::start(move |_, _| Move::Say(said.to_vec()));
        match play(&fake, Mta::Postfix, MAIL).unwrap_err() {
            Failure::Stranger { kind: found, .. } => assert_eq!(found, kind),
            failure => panic!("{failure}"),
        }
    }
}
