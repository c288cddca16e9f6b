//! What can go wrong between MTA and filter.

use std::fmt;
use std::time::Duration;

use milter_protocol::CommandCode;
use milter_protocol::reply::ReplyError;

/// A command as people speak of it.
pub fn stage_name(stage: CommandCode) -> &'static str {
    match stage {
        CommandCode::Negotiate => "negotiation",
        CommandCode::Macro => "macros",
        CommandCode::Connect => "connect",
        CommandCode::Helo => "HELO",
        CommandCode::Mail => "MAIL",
        CommandCode::Rcpt => "RCPT",
        CommandCode::Data => "DATA",
        CommandCode::Header => "a header",
        CommandCode::EndOfHeaders => "the end of the headers",
        CommandCode::Body => "the body",
        CommandCode::EndOfBody => "the end of the message",
        CommandCode::Abort => "abort",
        CommandCode::Quit | CommandCode::QuitNewConnection => "the end of the session",
        CommandCode::Unknown => "an unknown command",
    }
}

/// Why a conversation with a filter came to nothing. The message says what happened and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect {
        /// What is wrong, and what to look at.
        reason: String,
    },
    /// The peer talks, but not milter.
    Stranger {
        /// The start of what it said, made printable.
        said: String,
        /// What talks like this.
        kind: Option<&'static str>,
    },
    /// The filter hung up.
    Closed {
        /// The command that the MTA had sent, or was sending.
        stage: CommandCode,
    },
    /// The filter kept silent.
    Timeout {
        /// The command that the MTA had sent, or was sending.
        stage: CommandCode,
        /// How long the MTA waited.
        after: Duration,
    },
    /// The connection broke.
    Broken {
        /// The command that the MTA had sent, or was sending.
        stage: CommandCode,
        /// What the system says.
        reason: String,
    },
    /// The filter sent what no filter may send.
    Malformed {
        /// The command that the MTA had sent.
        stage: CommandCode,
        /// What is wrong.
        reason: ReplyError,
    },
    /// The filter sent what this MTA does not accept here.
    Breach {
        /// The command that the MTA had sent.
        stage: CommandCode,
        /// What is wrong.
        reason: String,
    },
    /// Filter and MTA do not agree on how to talk.
    Negotiation {
        /// What is wrong.
        reason: String,
    },
}

impl Failure {
    pub(crate) fn breach(stage: CommandCode, reason: impl Into<String>) -> Self {
        Failure::Breach { stage, reason: reason.into() }
    }

    /// Exit status of a run that ends with this failure.
    pub fn exit_status(&self) -> u8 {
        match self {
            Failure::Connect { .. } => 6,
            Failure::Timeout { .. } => 8,
            _ => 7,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect { reason } => write!(f, "cannot connect: {reason}"),
            Failure::Stranger { said, kind } => {
                write!(f, "there is no filter on this socket: it said \"{said}\"")?;
                kind.map_or(Ok(()), |kind| write!(f, ", like {kind}"))
            }
            Failure::Closed { stage: CommandCode::Negotiate } => f.write_str(
                "the filter closed the connection during negotiation; its log should say what it does not like",
            ),
            Failure::Closed { stage } => write!(f, "the filter closed the connection at {}", stage_name(*stage)),
            Failure::Timeout { stage, after } => {
                write!(f, "no answer to {} within {} seconds", stage_name(*stage), after.as_secs_f32())
            }
            Failure::Broken { stage, reason } => {
                write!(f, "the connection broke at {}: {reason}", stage_name(*stage))
            }
            Failure::Malformed { stage, reason } => {
                write!(f, "the filter broke the protocol at {}: {reason}", stage_name(*stage))
            }
            Failure::Breach { stage, reason } => {
                write!(f, "the filter broke the protocol at {}: {reason}", stage_name(*stage))
            }
            Failure::Negotiation { reason } => write!(f, "negotiation failed: {reason}"),
        }
    }
}

impl std::error::Error for Failure {}
