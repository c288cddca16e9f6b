//! What the filter says: letters, payloads, both directions of the codec.

use std::collections::TryReserveError;
use std::fmt;

use bytes::{Buf, BufMut};

use crate::command::find_nul;
use crate::flags::{Actions, Steps};
use crate::frame;
use crate::macros::Stage;
use crate::modification::{self, Modification};

/// Largest piece of a replacement body in one packet (`MILTER_CHUNK_SIZE`).
pub const BODY_CHUNK: usize = 65_535;

/// `SMFIR_CONTINUE`
pub const CONTINUE: u8 = b'c';
/// `SMFIR_ACCEPT`
pub const ACCEPT: u8 = b'a';
/// `SMFIR_REJECT`
pub const REJECT: u8 = b'r';
/// `SMFIR_TEMPFAIL`
pub const TEMPFAIL: u8 = b't';
/// `SMFIR_DISCARD`
pub const DISCARD: u8 = b'd';
/// `SMFIR_SKIP`
pub const SKIP: u8 = b's';
/// `SMFIR_PROGRESS`
pub const PROGRESS: u8 = b'p';
/// `SMFIR_REPLBODY`: the packet carries a piece of a replacement body.
pub const REPLACE_BODY: u8 = b'b';
const NEGOTIATED: u8 = b'O';
const REPLY_CODE: u8 = b'y';
const SHUTDOWN: u8 = b'4';
const CONNECTION_FAILED: u8 = b'f';

/// A reply with its payload. Strings are given without their NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The answer to the MTA's offer (`SMFIC_OPTNEG`).
    Negotiated {
        /// Protocol version of the session.
        version: u32,
        /// Actions the filter may use.
        actions: Actions,
        /// Steps left out, added or not answered.
        steps: Steps,
        /// Macros the filter wants, by stage.
        macros: Vec<(Stage, &'a [u8])>,
    },
    /// `SMFIR_CONTINUE`
    Continue,
    /// `SMFIR_ACCEPT`
    Accept,
    /// `SMFIR_REJECT`
    Reject,
    /// `SMFIR_TEMPFAIL`
    Tempfail,
    /// `SMFIR_DISCARD`
    Discard,
    /// `SMFIR_SKIP`
    Skip,
    /// Refuse with this SMTP reply (`SMFIR_REPLYCODE`).
    ReplyCode(&'a [u8]),
    /// Close the SMTP connection with 421 (`SMFIR_SHUTDOWN`; no library sends it).
    Shutdown,
    /// Pretend that the connection failed (`SMFIR_CONN_FAIL`; no library sends it).
    ConnectionFailed,
    /// Still working (`SMFIR_PROGRESS`).
    Progress,
    /// A piece of the replacement body.
    ReplaceBody(&'a [u8]),
    /// Any other change of the message.
    Modify(Modification<'a>),
}

/// Why a packet from a filter cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// A letter that is no reply.
    UnknownCode(u8),
    /// A payload that does not fit the letter.
    BadPayload(u8),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::UnknownCode(code) => write!(f, "unknown reply '{}'", code.escape_ascii()),
            ReplyError::BadPayload(code) => write!(f, "malformed payload of reply '{}'", code.escape_ascii()),
        }
    }
}

impl std::error::Error for ReplyError {}

const PLAIN: [(u8, Reply<'static>); 9] = [
    (CONTINUE, Reply::Continue),
    (ACCEPT, Reply::Accept),
    (REJECT, Reply::Reject),
    (TEMPFAIL, Reply::Tempfail),
    (DISCARD, Reply::Discard),
    (SKIP, Reply::Skip),
    (SHUTDOWN, Reply::Shutdown),
    (CONNECTION_FAILED, Reply::ConnectionFailed),
    (PROGRESS, Reply::Progress),
];

impl<'a> Reply<'a> {
    /// Appends the reply as one frame.
    ///
    /// # Panics
    ///
    /// For modifications beyond [`frame::DEFAULT_LIMIT`]; use [`Modification::encode`] for those.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Modify(modification) => {
                modification.encode(out, frame::DEFAULT_LIMIT).expect("the modification fits into a packet");
            }
            reply => reply.try_encode(out).expect("there is memory for a packet"),
        }
    }

    /// Appends a reply that is no modification as one frame. Fails, and appends nothing, when there is no memory.
    ///
    /// # Panics
    ///
    /// For modifications; they have [`Modification::encode`].
    pub(crate) fn try_encode(&self, out: &mut Vec<u8>) -> Result<(), TryReserveError> {
        match self {
            Reply::Negotiated { version, actions, steps, macros } => {
                let fixed = [version.to_be_bytes(), actions.bits().to_be_bytes(), steps.bits().to_be_bytes()];
                let lists = macros.iter().map(|(_, names)| size_of::<u32>() + names.len() + 1).sum::<usize>();
                out.try_reserve(frame::HEADER_LEN + fixed.as_flattened().len() + lists)?;
                frame::put_header(out, NEGOTIATED, fixed.as_flattened().len() + lists);
                out.put_slice(fixed.as_flattened());
                for (stage, names) in macros {
                    out.put_u32(stage.index());
                    out.put_slice(names);
                    out.put_u8(0);
                }
                Ok(())
            }
            Reply::ReplyCode(text) => frame::try_put(out, REPLY_CODE, &[text, b"\0"]),
            Reply::ReplaceBody(bytes) => frame::try_put(out, REPLACE_BODY, &[bytes]),
            plain => {
                let (code, _) = PLAIN.iter().find(|(_, reply)| reply == plain).expect("replies without payload");
                frame::try_put(out, *code, &[])
            }
        }
    }

    /// Whether this is the letter of a reply.
    pub fn has_letter(code: u8) -> bool {
        !matches!(Reply::decode(code, &[]), Err(ReplyError::UnknownCode(_)))
    }

    /// Reads a reply back, as strictly as MTAs do.
    pub fn decode(code: u8, payload: &'a [u8]) -> Result<Self, ReplyError> {
        if let Some((_, reply)) = PLAIN.iter().find(|(known, _)| *known == code) {
            return if payload.is_empty() { Ok(reply.clone()) } else { Err(ReplyError::BadPayload(code)) };
        }
        match code {
            NEGOTIATED => negotiated(payload),
            REPLY_CODE => match payload.strip_suffix(b"\0") {
                Some(text) if !text.contains(&0) => Some(Reply::ReplyCode(text)),
                _ => None,
            },
            REPLACE_BODY => Some(Reply::ReplaceBody(payload)),
            modification if modification::LETTERS.contains(&modification) => {
                Modification::decode(code, payload).map(Reply::Modify)
            }
            _ => return Err(ReplyError::UnknownCode(code)),
        }
        .ok_or(ReplyError::BadPayload(code))
    }

    /// Whether this reply ends the MTA's waiting; modifications and progress do not.
    pub fn is_final(&self) -> bool {
        !matches!(self, Reply::Progress | Reply::ReplaceBody(_) | Reply::Modify(_))
    }
}

fn negotiated(mut payload: &[u8]) -> Option<Reply<'_>> {
    let version = payload.try_get_u32().ok()?;
    let actions = Actions::from_bits_retain(payload.try_get_u32().ok()?);
    let steps = Steps::from_bits_retain(payload.try_get_u32().ok()?);
    let mut macros = Vec::new();
    while !payload.is_empty() {
        let stage = i32::try_from(payload.try_get_u32().ok()?).ok().and_then(Stage::from_index)?;
        let end = find_nul(payload)?;
        macros.push((stage, &payload[..end]));
        payload = &payload[end + 1..];
    }
    Some(Reply::Negotiated { version, actions, steps, macros })
}

/// The pieces in which a replacement body is sent; an empty body is one empty piece.
pub fn body_chunks(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = body.is_empty().then_some(body);
    empty.into_iter().chain(body.chunks(BODY_CHUNK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_survives_the_wire() {
        let replies = [
            Reply::Negotiated {
                version: 6,
                actions: Actions::VERSION_6,
                steps: Steps::SKIP,
                macros: vec![(Stage::Connect, b"j {if_name}"), (Stage::Eom, b"")],
            },
            Reply::ReplyCode(b"550 5.7.1 no"),
            Reply::ReplaceBody(b""),
            Reply::Modify(Modification::Quarantine { reason: b"why" }),
        ];
        for reply in replies.into_iter().chain(PLAIN.into_iter().map(|(_, reply)| reply)) {
            let mut wire = Vec::new();
            reply.encode(&mut wire);
            assert_eq!(Reply::decode(wire[4], &wire[frame::HEADER_LEN..]), Ok(reply));
        }
    }

    #[test]
    fn progress_and_changes_leave_the_mta_waiting() {
        let reason = Modification::Quarantine { reason: b"why" };
        for waits in [Reply::Progress, Reply::ReplaceBody(b""), Reply::Modify(reason)] {
            assert!(!waits.is_final(), "{waits:?}");
        }
        for ends in [Reply::Continue, Reply::Skip, Reply::Discard, Reply::ReplyCode(b"550 no"), Reply::Shutdown] {
            assert!(ends.is_final(), "{ends:?}");
        }
    }

    #[test]
    fn malformed_replies_are_refused() {
        for (code, payload) in [(b'c', &b"x"[..]), (b'y', b"550 no"), (b'y', b"5\0\0"), (b'h', b"a\0"), (b'O', b"123")]
        {
            assert_eq!(Reply::decode(code, payload), Err(ReplyError::BadPayload(code)));
        }
        assert_eq!(Reply::decode(b'z', b""), Err(ReplyError::UnknownCode(b'z')));
    }

    #[test]
    fn bodies_are_cut_at_the_chunk_size() {
        let lengths = |len: usize| body_chunks(&vec![0; len]).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(0), [0]);
        assert_eq!(lengths(BODY_CHUNK), [BODY_CHUNK]);
        assert_eq!(lengths(BODY_CHUNK + 1), [BODY_CHUNK, 1]);
        assert_eq!(lengths(2 * BODY_CHUNK), [BODY_CHUNK, BODY_CHUNK]);
    }
}
