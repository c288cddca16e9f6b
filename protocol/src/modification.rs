//! Changes to a message that a filter asks for at its end.

use std::fmt;

use bytes::Buf;

use crate::flags::Actions;
use crate::frame;

const ADD_HEADER: u8 = b'h';
const INSERT_HEADER: u8 = b'i';
const CHANGE_HEADER: u8 = b'm';
const CHANGE_SENDER: u8 = b'e';
const ADD_RECIPIENT: u8 = b'+';
const ADD_RECIPIENT_WITH_ARGUMENTS: u8 = b'2';
const DELETE_RECIPIENT: u8 = b'-';
const QUARANTINE: u8 = b'q';

/// The letters that changes are sent under.
pub(crate) const LETTERS: [u8; 8] = [
    ADD_HEADER,
    INSERT_HEADER,
    CHANGE_HEADER,
    CHANGE_SENDER,
    ADD_RECIPIENT,
    ADD_RECIPIENT_WITH_ARGUMENTS,
    DELETE_RECIPIENT,
    QUARANTINE,
];

/// Why a change cannot be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The callback that is running is not one for the end of the message.
    NotEndOfMessage,
    /// This action was not negotiated: the filter did not ask for it, or the MTA does not offer it.
    NotNegotiated(Actions),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NotEndOfMessage => f.write_str("messages can be changed at their end only, in xxfi_eom"),
            Obstacle::NotNegotiated(action) => {
                let name = action.c_name().unwrap_or("its action");
                write!(f, "{name} was not negotiated: set it in xxfi_flags, if the MTA offers it")
            }
        }
    }
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModificationError {
    /// The filter may not make it now.
    Obstacle(Obstacle),
    /// It exceeds the largest payload of the session.
    TooLarge,
    /// There is no memory for it.
    NoMemory,
}

impl fmt::Display for ModificationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModificationError::Obstacle(obstacle) => obstacle.fmt(f),
            ModificationError::TooLarge => f.write_str("it does not fit into a packet"),
            ModificationError::NoMemory => f.write_str("there is no memory for it"),
        }
    }
}

impl std::error::Error for ModificationError {}

/// One change. Strings are given without their NUL.
///
/// Replacing the body is not among them: it is a sequence of packets, see [`crate::reply::body_chunks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modification<'a> {
    /// Append a header (`SMFIR_ADDHEADER`).
    AddHeader {
        /// Name without colon.
        name: &'a [u8],
        /// Value, lines joined by LF and a blank.
        value: &'a [u8],
    },
    /// Insert a header (`SMFIR_INSHEADER`).
    InsertHeader {
        /// Position, 0 for the very top.
        index: u32,
        /// Name without colon.
        name: &'a [u8],
        /// Value.
        value: &'a [u8],
    },
    /// Change or, with an empty value, delete a header (`SMFIR_CHGHEADER`).
    ChangeHeader {
        /// Which of the headers of this name, from 1.
        index: u32,
        /// Name without colon.
        name: &'a [u8],
        /// New value.
        value: &'a [u8],
    },
    /// Change the envelope sender (`SMFIR_CHGFROM`).
    ChangeSender {
        /// New address.
        address: &'a [u8],
        /// ESMTP arguments of MAIL.
        arguments: Option<&'a [u8]>,
    },
    /// Add a recipient (`SMFIR_ADDRCPT`).
    AddRecipient {
        /// Its address.
        address: &'a [u8],
    },
    /// Add a recipient with ESMTP arguments (`SMFIR_ADDRCPT_PAR`).
    AddRecipientWithArguments {
        /// Its address.
        address: &'a [u8],
        /// ESMTP arguments of RCPT.
        arguments: Option<&'a [u8]>,
    },
    /// Delete a recipient (`SMFIR_DELRCPT`).
    DeleteRecipient {
        /// Its address as the MTA gave it.
        address: &'a [u8],
    },
    /// Hold the message (`SMFIR_QUARANTINE`).
    Quarantine {
        /// Why, for the operator.
        reason: &'a [u8],
    },
}

impl<'a> Modification<'a> {
    /// The action that has to be negotiated for this change.
    pub fn required_action(&self) -> Actions {
        match self {
            Modification::AddHeader { .. } | Modification::InsertHeader { .. } => Actions::ADD_HEADERS,
            Modification::ChangeHeader { .. } => Actions::CHANGE_HEADERS,
            Modification::ChangeSender { .. } => Actions::CHANGE_SENDER,
            Modification::AddRecipient { .. } => Actions::ADD_RECIPIENTS,
            Modification::AddRecipientWithArguments { .. } => Actions::ADD_RECIPIENTS_WITH_ARGUMENTS,
            Modification::DeleteRecipient { .. } => Actions::DELETE_RECIPIENTS,
            Modification::Quarantine { .. } => Actions::QUARANTINE,
        }
    }

    /// Appends the change as one frame. Fails, and appends nothing, when it exceeds `limit` bytes of payload or there is no
    /// memory.
    pub fn encode(&self, out: &mut Vec<u8>, limit: usize) -> Result<(), ModificationError> {
        match *self {
            Modification::AddHeader { name, value } => put(out, limit, ADD_HEADER, &[name, b"\0", value, b"\0"]),
            Modification::InsertHeader { index, name, value } => {
                put(out, limit, INSERT_HEADER, &[&index.to_be_bytes(), name, b"\0", value, b"\0"])
            }
            Modification::ChangeHeader { index, name, value } => {
                put(out, limit, CHANGE_HEADER, &[&index.to_be_bytes(), name, b"\0", value, b"\0"])
            }
            Modification::ChangeSender { address, arguments } => {
                put_address(out, limit, CHANGE_SENDER, address, arguments)
            }
            Modification::AddRecipient { address } => put_address(out, limit, ADD_RECIPIENT, address, None),
            Modification::AddRecipientWithArguments { address, arguments } => {
                put_address(out, limit, ADD_RECIPIENT_WITH_ARGUMENTS, address, arguments)
            }
            Modification::DeleteRecipient { address } => put_address(out, limit, DELETE_RECIPIENT, address, None),
            Modification::Quarantine { reason } => put(out, limit, QUARANTINE, &[reason, b"\0"]),
        }
    }

    /// Reads a change back; `None` when `code` is no modification or the payload is malformed.
    pub fn decode(code: u8, payload: &'a [u8]) -> Option<Self> {
        Some(match code {
            ADD_HEADER => {
                let [name, value] = strings(payload)?;
                Modification::AddHeader { name, value }
            }
            INSERT_HEADER | CHANGE_HEADER => {
                let mut rest = payload;
                let index = rest.try_get_u32().ok()?;
                let [name, value] = strings(rest)?;
                match code {
                    INSERT_HEADER => Modification::InsertHeader { index, name, value },
                    _ => Modification::ChangeHeader { index, name, value },
                }
            }
            CHANGE_SENDER | ADD_RECIPIENT_WITH_ARGUMENTS => {
                let (address, arguments) = match strings(payload) {
                    Some([address, arguments]) => (address, Some(arguments)),
                    None => (strings::<1>(payload)?[0], None),
                };
                match code {
                    CHANGE_SENDER => Modification::ChangeSender { address, arguments },
                    _ => Modification::AddRecipientWithArguments { address, arguments },
                }
            }
            ADD_RECIPIENT => Modification::AddRecipient { address: strings::<1>(payload)?[0] },
            DELETE_RECIPIENT => Modification::DeleteRecipient { address: strings::<1>(payload)?[0] },
            QUARANTINE => Modification::Quarantine { reason: strings::<1>(payload)?[0] },
            _ => return None,
        })
    }
}

fn put(out: &mut Vec<u8>, limit: usize, code: u8, parts: &[&[u8]]) -> Result<(), ModificationError> {
    if parts.iter().map(|part| part.len()).sum::<usize>() > limit {
        return Err(ModificationError::TooLarge);
    }
    frame::try_put(out, code, parts).map_err(|_| ModificationError::NoMemory)
}

fn put_address(
    out: &mut Vec<u8>,
    limit: usize,
    code: u8,
    address: &[u8],
    arguments: Option<&[u8]>,
) -> Result<(), ModificationError> {
    match arguments {
        Some(arguments) => put(out, limit, code, &[address, b"\0", arguments, b"\0"]),
        None => put(out, limit, code, &[address, b"\0"]),
    }
}

/// Exactly `N` NUL-terminated strings and nothing else.
fn strings<const N: usize>(payload: &[u8]) -> Option<[&[u8]; N]> {
    let mut parts = payload.strip_suffix(b"\0")?.split(|&octet| octet == 0);
    let mut found = [&payload[..0]; N];
    for slot in &mut found {
        *slot = parts.next()?;
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_survives_the_wire() {
        let changes = [
            Modification::AddHeader { name: b"X", value: b"y" },
            Modification::InsertHeader { index: 0, name: b"X", value: b"y\n\tz" },
            Modification::ChangeHeader { index: 2, name: b"X", value: b"" },
            Modification::ChangeSender { address: b"<x@y>", arguments: Some(b"SIZE=1") },
            Modification::ChangeSender { address: b"<x@y>", arguments: None },
            Modification::AddRecipient { address: b"<c>" },
            Modification::AddRecipientWithArguments { address: b"<c>", arguments: Some(b"") },
            Modification::AddRecipientWithArguments { address: b"<c>", arguments: None },
            Modification::DeleteRecipient { address: b"<b>" },
            Modification::Quarantine { reason: b"why" },
        ];
        for change in changes {
            let mut wire = Vec::new();
            change.encode(&mut wire, frame::DEFAULT_LIMIT).unwrap();
            let header = frame::parse(&wire, frame::DEFAULT_LIMIT).unwrap().unwrap();
            assert_eq!(header.frame_len(), wire.len());
            assert_eq!(Modification::decode(header.code, &wire[frame::HEADER_LEN..]), Some(change));
        }
    }

    #[test]
    fn every_change_needs_its_action() {
        let (name, value, address, arguments, reason) = (b"X", b"y", b"<a>", None, b"why");
        for (change, action) in [
            (Modification::AddHeader { name, value }, Actions::ADD_HEADERS),
            (Modification::InsertHeader { index: 0, name, value }, Actions::ADD_HEADERS),
            (Modification::ChangeHeader { index: 1, name, value }, Actions::CHANGE_HEADERS),
            (Modification::ChangeSender { address, arguments }, Actions::CHANGE_SENDER),
            (Modification::AddRecipient { address }, Actions::ADD_RECIPIENTS),
            (Modification::AddRecipientWithArguments { address, arguments }, Actions::ADD_RECIPIENTS_WITH_ARGUMENTS),
            (Modification::DeleteRecipient { address }, Actions::DELETE_RECIPIENTS),
            (Modification::Quarantine { reason }, Actions::QUARANTINE),
        ] {
            assert_eq!(change.required_action(), action, "{change:?}");
        }
    }

    #[test]
    fn the_limit_counts_the_whole_payload() {
        let value = vec![b'v'; frame::DEFAULT_LIMIT - 2];
        let mut out = Vec::new();
        let mut encode = |change: Modification<'_>| change.encode(&mut out, frame::DEFAULT_LIMIT);
        let too_large = Err(ModificationError::TooLarge);
        assert_eq!(encode(Modification::AddHeader { name: b"X", value: &value }), too_large);
        assert_eq!(encode(Modification::AddHeader { name: b"X", value: &value[1..] }), Ok(()));
        assert_eq!(encode(Modification::ChangeHeader { index: 1, name: b"X", value: &value[4..] }), too_large);
        assert_eq!(out.len(), frame::HEADER_LEN + frame::DEFAULT_LIMIT);
    }
}
