//! What a filter is asked.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::command::{self, CommandCode, PayloadError};
use crate::flags::Callbacks;

/// One call to be made into the filter. Strings are parts of the received payload, writable, and include their NUL.
#[derive(Debug)]
pub enum Callback<'a> {
    /// `xxfi_negotiate`: choose among what the MTA offers.
    Negotiate(Offer),
    /// `xxfi_connect`: an SMTP client has connected.
    Connect {
        /// Name of the client as the MTA found it, possibly empty or `[address]`.
        host: &'a mut [u8],
        /// Address of the client; `None` when the MTA does not know one.
        address: Option<ClientAddress<'a>>,
    },
    /// `xxfi_helo`: the argument of HELO or EHLO.
    Helo(&'a mut [u8]),
    /// `xxfi_envfrom`: the sender and the ESMTP arguments of MAIL.
    EnvFrom(Arguments<'a>),
    /// `xxfi_envrcpt`: a recipient and the ESMTP arguments of RCPT.
    EnvRcpt(Arguments<'a>),
    /// `xxfi_data`: the SMTP command DATA.
    Data,
    /// `xxfi_unknown`: an SMTP command the MTA does not know. The only string that may lack its NUL.
    Unknown(&'a mut [u8]),
    /// `xxfi_header`: one header, with the folds and blanks of its value as received.
    Header {
        /// Name without the colon.
        name: &'a mut [u8],
        /// Value, possibly empty.
        value: &'a mut [u8],
    },
    /// `xxfi_eoh`: the end of the headers.
    Eoh,
    /// `xxfi_body`: a piece of the body, without a NUL of its own.
    Body(&'a mut [u8]),
    /// `xxfi_eom`: the end of the message; the time for modifications.
    Eom,
    /// `xxfi_abort`: the message in progress is given up.
    Abort,
    /// `xxfi_close`: the session is over.
    Close,
}

impl<'a> Callback<'a> {
    /// Which callback it is.
    pub fn kind(&self) -> Callbacks {
        match self {
            Callback::Negotiate(_) => Callbacks::NEGOTIATE,
            Callback::Connect { .. } => Callbacks::CONNECT,
            Callback::Helo(_) => Callbacks::HELO,
            Callback::EnvFrom(_) => Callbacks::ENVFROM,
            Callback::EnvRcpt(_) => Callbacks::ENVRCPT,
            Callback::Data => Callbacks::DATA,
            Callback::Unknown(_) => Callbacks::UNKNOWN,
            Callback::Header { .. } => Callbacks::HEADER,
            Callback::Eoh => Callbacks::EOH,
            Callback::Body(_) => Callbacks::BODY,
            Callback::Eom => Callbacks::EOM,
            Callback::Abort => Callbacks::ABORT,
            Callback::Close => Callbacks::CLOSE,
        }
    }

    /// The call that a command stands for by itself, out of its payload.
    pub(crate) fn decode(command: CommandCode, payload: &'a mut [u8]) -> Result<Option<Self>, PayloadError> {
        Ok(Some(match command {
            CommandCode::Connect => {
                let (host, address) = command::connect(payload)?;
                Callback::Connect { host, address }
            }
            CommandCode::Helo => Callback::Helo(command::string(payload)?),
            CommandCode::Mail => Callback::EnvFrom(Arguments::parse(payload)?),
            CommandCode::Rcpt => Callback::EnvRcpt(Arguments::parse(payload)?),
            CommandCode::Data => Callback::Data,
            CommandCode::Header => {
                let (name, value) = command::header(payload)?;
                Callback::Header { name, value }
            }
            CommandCode::EndOfHeaders => Callback::Eoh,
            CommandCode::Body => Callback::Body(payload),
            CommandCode::Unknown => Callback::Unknown(payload),
            _ => return Ok(None),
        }))
    }
}

/// What an MTA offers in negotiation and what the filter wants of it (`xxfi_negotiate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Actions the MTA offers (`f0`, `SMFIF_*`).
    pub actions: u32,
    /// Protocol steps the MTA offers, and those the library emulates (`f1`, `SMFIP_*`).
    pub steps: u32,
    /// Actions the filter wants; on entry all that are offered (`*pf0`).
    pub wanted_actions: u32,
    /// Protocol steps the filter wants; on entry those that follow from its callbacks (`*pf1`).
    pub wanted_steps: u32,
}

/// The address of an SMTP client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress<'a> {
    /// IPv4 (`SMFIA_INET`)
    Inet {
        /// The address.
        address: Ipv4Addr,
        /// The port, in host order.
        port: u16,
    },
    /// IPv6 (`SMFIA_INET6`)
    Inet6 {
        /// The address.
        address: Ipv6Addr,
        /// The port, in host order.
        port: u16,
    },
    /// A Unix-domain client (`SMFIA_UNIX`)
    Unix {
        /// Path without NUL, at most [`ClientAddress::MAX_PATH`] octets, possibly empty.
        path: &'a [u8],
    },
}

impl ClientAddress<'_> {
    /// Longest path that fits `sockaddr_un` with its NUL; the BSDs have 104 octets for it, other systems 108.
    pub const MAX_PATH: usize = if cfg!(any(
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "netbsd",
        target_os = "openbsd",
    )) {
        103
    } else {
        107
    };
}

/// The strings of a MAIL or RCPT command: an address, then ESMTP arguments, some possibly empty.
#[derive(Debug)]
pub struct Arguments<'a> {
    strings: &'a mut [u8],
    count: usize,
}

impl<'a> Arguments<'a> {
    /// Takes a payload apart; octets behind the last NUL are dropped, but there has to be one.
    fn parse(payload: &'a mut [u8]) -> Result<Self, PayloadError> {
        let end = payload.iter().rposition(|&octet| octet == 0).ok_or(PayloadError::Unterminated)? + 1;
        let strings = &mut payload[..end];
        let count = strings.iter().filter(|&&octet| octet == 0).count();
        Ok(Arguments { strings, count })
    }

    /// How many strings there are; at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The strings one after another, each with its NUL.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.strings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_for_the_callback_that_it_decodes_to() {
        for command in CommandCode::all() {
            if let Some(callback) = Callback::decode(command, &mut b"h\0U\0".to_vec()).unwrap() {
                assert_eq!(callback.kind(), command.callback(), "{command}");
            }
        }
        let others =
            [(Callback::Eom, Callbacks::EOM), (Callback::Abort, Callbacks::ABORT), (Callback::Close, Callbacks::CLOSE)];
        for (callback, kind) in others {
            assert_eq!(callback.kind(), kind);
        }
    }

    #[test]
    fn what_lacks_its_nul_is_no_argument() {
        for (payload, count, strings) in
            [(&b"<a>\0"[..], 1, &b"<a>\0"[..]), (b"<a>\0\0B=8\0", 3, b"<a>\0\0B=8\0"), (b"<a>\0B=8", 1, b"<a>\0")]
        {
            let mut payload = payload.to_vec();
            let mut arguments = Arguments::parse(&mut payload).unwrap();
            assert_eq!((arguments.count(), &*arguments.bytes()), (count, strings));
        }
        assert_eq!(Arguments::parse(&mut b"<a>".to_vec()).unwrap_err(), PayloadError::Unterminated);
    }
}
