//! What became of a message.

use std::fmt;

use milter_protocol::CommandCode;

use crate::delivery::Delivery;
use crate::envelope::Mailbox;
use crate::smtp::SmtpReply;

/// The fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Delivered.
    Accepted,
    /// Taken from the client and kept back for the operator.
    Quarantined,
    /// Taken from the client and thrown away.
    Discarded,
    /// Refused for good (5xx).
    Rejected,
    /// Refused for now (4xx).
    Deferred,
}

impl Fate {
    /// Exit status of a run that ends with this fate.
    pub fn exit_status(self) -> u8 {
        match self {
            Fate::Accepted => 0,
            Fate::Rejected => 1,
            Fate::Deferred => 3,
            Fate::Discarded => 4,
            Fate::Quarantined => 5,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Accepted => "accepted",
            Fate::Quarantined => "quarantined",
            Fate::Discarded => "discarded",
            Fate::Rejected => "rejected",
            Fate::Deferred => "tempfailed",
        })
    }
}

/// What became of one message, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The fate of the message.
    pub fate: Fate,
    /// The command at which it was decided.
    pub stage: CommandCode,
    /// What the SMTP client is told at the end.
    pub reply: SmtpReply,
    /// Recipients that were refused, and with which words.
    pub refused: Vec<(Mailbox, SmtpReply)>,
    /// The message as the MTA delivers it, with what the filter changed. It is there for every fate: a filter may
    /// change a message and reject it all the same.
    pub delivery: Delivery,
    /// What the MTA would write into its log about the filter.
    pub remarks: Vec<String>,
}

impl Outcome {
    /// Whether there is a message to deliver, now or when the operator releases it.
    pub fn is_delivered(&self) -> bool {
        matches!(self.fate, Fate::Accepted | Fate::Quarantined)
    }
}
