//! What a filter's reply to one command means to the MTA.

use milter_protocol::{CommandCode, Reply};

use crate::failure::Failure;
use crate::mta::Mta;
use crate::outcome::Fate;
use crate::smtp::SmtpReply;

/// What a filter says to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go on.
    Continue,
    /// Take the message, ask no more about it.
    Accept,
    /// Take the message and throw it away.
    Discard,
    /// Refuse what the command asks for.
    Refuse(SmtpReply),
}

impl Answer {
    /// The meaning of a final reply.
    pub(crate) fn judge(mta: Mta, code: CommandCode, reply: &Reply<'_>) -> Result<Answer, Failure> {
        let greeting = matches!(code, CommandCode::Connect | CommandCode::Helo);
        match reply {
            Reply::Continue => Ok(Answer::Continue),
            Reply::Accept => Ok(Answer::Accept),
            Reply::Discard if greeting && mta == Mta::Postfix => {
                Err(Failure::breach(code, "Postfix can discard a message, not a connection"))
            }
            Reply::Discard => Ok(Answer::Discard),
            Reply::Reject => Ok(Answer::Refuse(SmtpReply::rejected(mta, code))),
            Reply::Tempfail => Ok(Answer::Refuse(SmtpReply::failed(mta))),
            Reply::Shutdown if mta == Mta::Postfix || code != CommandCode::EndOfBody => {
                Ok(Answer::Refuse(SmtpReply::shutdown()))
            }
            Reply::ReplyCode(text) => match SmtpReply::chosen(mta, code, text) {
                Ok(reply) => Ok(Answer::Refuse(reply)),
                Err(reason) => Err(Failure::breach(code, reason)),
            },
            Reply::Modify(_) | Reply::ReplaceBody(_) => {
                Err(Failure::breach(code, "a message can be changed at its end only"))
            }
            other => Err(Failure::breach(code, format!("{other:?} is no answer here"))),
        }
    }

    /// The meaning of SKIP: Postfix stops sending this kind of command, which is to continue; Sendmail does so for the
    /// body and lets the filter go otherwise.
    pub(crate) fn to_skip(mta: Mta, code: CommandCode) -> Answer {
        if mta == Mta::Sendmail && code != CommandCode::Body { Answer::Accept } else { Answer::Continue }
    }

    /// What becomes of the message that is answered like this at its end, or so that the rest is pointless.
    pub(crate) fn fate(&self, quarantined: bool) -> Fate {
        match self {
            Answer::Refuse(reply) if reply.is_permanent() => Fate::Rejected,
            Answer::Refuse(_) => Fate::Deferred,
            Answer::Discard => Fate::Discarded,
            Answer::Continue | Answer::Accept if quarantined => Fate::Quarantined,
            Answer::Continue | Answer::Accept => Fate::Accepted,
        }
    }

    /// Whether the MTA hangs up on the client after this.
    pub(crate) fn is_shutdown(&self) -> bool {
        matches!(self, Answer::Refuse(reply) if reply.is_shutdown())
    }
}
