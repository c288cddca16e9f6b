//! Why a session fails.

use std::fmt;

use crate::command::{CommandCode, PayloadError};
use crate::frame::FrameError;
use crate::negotiation::NegotiationError;
use crate::reply::Reply;
use crate::state::State;

/// Why a session is over before the MTA said QUIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended, timed out or failed; whoever does the I/O knows which.
    Connection,
    /// A frame that cannot be accepted.
    Frame(FrameError),
    /// A letter that is no command.
    UnknownCommand(u8),
    /// A command that cannot be taken here and to which the MTA expects a reply.
    OutOfOrder {
        /// The command.
        command: CommandCode,
        /// Where the session stood.
        state: State,
    },
    /// A command without the payload it needs.
    MissingPayload(CommandCode),
    /// A payload that cannot be understood.
    Payload(CommandCode, PayloadError),
    /// MTA and filter cannot agree.
    Negotiation(NegotiationError),
    /// A callback returned a value without a meaning.
    UndefinedVerdict {
        /// The command it was called for.
        command: CommandCode,
        /// What it returned.
        value: i32,
    },
    /// There is no memory for what the MTA or the filter sends.
    NoMemory,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connection => f.write_str("connection lost"),
            Failure::Frame(error) => error.fmt(f),
            Failure::UnknownCommand(code) if Reply::has_letter(*code) => {
                write!(f, "'{}' is a reply: the peer is another filter, not an MTA", code.escape_ascii())
            }
            Failure::UnknownCommand(code) => write!(f, "unknown command '{}'", code.escape_ascii()),
            Failure::OutOfOrder { command, state } => {
                write!(f, "command {command} is not possible in state {}", *state as u8)
            }
            Failure::MissingPayload(command) => write!(f, "command {command} came without data"),
            Failure::Payload(command, error) => write!(f, "command {command}: {error}"),
            Failure::Negotiation(error) => error.fmt(f),
            Failure::UndefinedVerdict { command, value } => {
                write!(f, "the callback for {command} returned {value}, which has no meaning")
            }
            Failure::NoMemory => f.write_str("out of memory, the session is ended"),
        }
    }
}
