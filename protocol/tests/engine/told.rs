//! What the operator is told, word by word: some of it is what people search their logs for.

use milter_protocol::command::PayloadError;
use milter_protocol::frame::FrameError;
use milter_protocol::negotiation::NegotiationError;
use milter_protocol::reply::ReplyError;
use milter_protocol::{CommandCode, Failure, Notice, SmtpReplyError, State};

#[test]
fn every_failure_says_what_is_wrong() {
    let connect = |error| Failure::Payload(CommandCode::Connect, error);
    for (failure, text) in [
        (Failure::Connection, "connection lost"),
        (Failure::Frame(FrameError::Empty), "packet of length zero"),
        (
            Failure::Frame(FrameError::TooLong { length: 0x4548_4c4f, limit: 65_535, start: *b"EHLO " }),
            "packet length 1162366031 is beyond the limit of 65535: \
             the peer started with \"EHLO\" like an SMTP client, not like an MTA",
        ),
        (
            Failure::Frame(FrameError::TooLong { length: 0x0001_0001, limit: 65_535, start: *b"\x00\x01\x00\x01B" }),
            "packet length 65537 is beyond the limit of 65535",
        ),
        (Failure::UnknownCommand(b'\n'), "unknown command '\\n'"),
        (Failure::UnknownCommand(b'h'), "'h' is a reply: the peer is another filter, not an MTA"),
        (
            Failure::OutOfOrder { command: CommandCode::Rcpt, state: State::Helo },
            "command RCPT is not possible in state 3",
        ),
        (Failure::MissingPayload(CommandCode::Body), "command BODY came without data"),
        (Failure::Payload(CommandCode::Helo, PayloadError::Unterminated), "command HELO: a string without its NUL"),
        (
            Failure::Payload(CommandCode::Header, PayloadError::EmptyHeaderName),
            "command HEADER: a header without a name",
        ),
        (connect(PayloadError::ShortAddress(2)), "command CONNECT: wrong length 2 of the address"),
        (connect(PayloadError::BadInet), "command CONNECT: not an IPv4 address"),
        (connect(PayloadError::BadInet6), "command CONNECT: not an IPv6 address"),
        (connect(PayloadError::LongPath(108)), "command CONNECT: path of 108 octets is too long"),
        (connect(PayloadError::UnknownFamily(7)), "command CONNECT: unknown family 7"),
        (Failure::Negotiation(NegotiationError::Short(11)), "len too short 11 < 12"),
        (Failure::Negotiation(NegotiationError::OldVersion(1)), "protocol version too old 1 < 2"),
        (
            Failure::Negotiation(NegotiationError::Refused { value: 1, steps: 0x3f, actions: 0x1ff }),
            "xxfi_negotiate returned 1 (protocol options=0x3f, actions=0x1ff)",
        ),
        (
            Failure::Negotiation(NegotiationError::Actions { offered: 0xf, required: 0x1f }),
            "0xf does not fulfill action requirements 0x1f",
        ),
        (
            Failure::Negotiation(NegotiationError::Steps { offered: 0x3f, required: 0x400 }),
            "0x3f does not fulfill protocol requirements 0x400",
        ),
        (
            Failure::Negotiation(NegotiationError::LongAnswer { len: 65_536, limit: 65_535 }),
            "answer of 65536 octets is beyond the limit of 65535, request fewer macros",
        ),
        (
            Failure::UndefinedVerdict { command: CommandCode::EndOfHeaders, value: 99 },
            "the callback for EOH returned 99, which has no meaning",
        ),
    ] {
        assert_eq!(failure.to_string(), text);
    }
}

#[test]
fn every_notice_says_what_has_happened() {
    for (notice, text) in [
        (
            Notice::BrokenPromise { command: CommandCode::Unknown, value: 1 },
            "claimed not to reply in state 13 but did anyway (value 1), which is not sent; return SMFIS_NOREPLY, or leave \
             this stage out of the SMFIP_NR_ flags and of the option noreply",
        ),
        (
            Notice::ReplyDue(CommandCode::Mail),
            "SMFIS_NOREPLY for MAIL was not negotiated, the MTA waits for a reply: taken as SMFIS_CONTINUE",
        ),
        (
            Notice::Negotiated { offered_actions: 0x1ff, offered_steps: 0x1f_ffff, actions: 1, steps: 0x7f },
            "milter_negotiate: mta_actions=0x1ff, mta_flags=0x1fffff, actions=0x1, flags=0x7f",
        ),
        (Notice::Ignored { command: CommandCode::Abort, state: State::Negotiated }, "ignored ABORT in state 1"),
    ] {
        assert_eq!(notice.to_string(), text);
    }
}

#[test]
fn whoever_writes_a_filter_or_an_mta_is_told_what_does_not_fit() {
    for (error, text) in [
        (ReplyError::UnknownCode(b'z'), "unknown reply 'z'"),
        (ReplyError::BadPayload(b'y'), "malformed payload of reply 'y'"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    for (error, text) in [
        (SmtpReplyError::BadCode, "the reply code is not 4xx or 5xx"),
        (SmtpReplyError::BadStatus, "the enhanced status code is malformed"),
        (SmtpReplyError::LineBreak, "a line holds a line break"),
        (SmtpReplyError::LongLine, "a line is too long"),
        (SmtpReplyError::TooManyLines, "there are too many lines"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
