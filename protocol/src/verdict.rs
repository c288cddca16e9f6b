//! What a callback may answer.

/// The decision of a filter about one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Go on (`SMFIS_CONTINUE`).
    Continue,
    /// Refuse the connection, message or recipient (`SMFIS_REJECT`).
    Reject,
    /// Take the message and drop it silently (`SMFIS_DISCARD`).
    Discard,
    /// Take the connection or message without asking further (`SMFIS_ACCEPT`).
    Accept,
    /// Refuse for now (`SMFIS_TEMPFAIL`).
    Tempfail,
    /// Send no reply, as negotiated for this step (`SMFIS_NOREPLY`).
    NoReply,
    /// Do not send more of this kind (`SMFIS_SKIP`).
    Skip,
}

impl Verdict {
    /// The verdict behind a C callback's return value; `None` for values without a meaning.
    pub fn from_c(value: i32) -> Option<Self> {
        Some(match value {
            0 => Verdict::Continue,
            1 => Verdict::Reject,
            2 => Verdict::Discard,
            3 => Verdict::Accept,
            4 => Verdict::Tempfail,
            7 => Verdict::NoReply,
            8 => Verdict::Skip,
            _ => return None,
        })
    }
    /// What C programs call a verdict.
    pub fn c_name(self) -> &'static str {
        match self {
            Verdict::Continue => "SMFIS_CONTINUE",
            Verdict::Reject => "SMFIS_REJECT",
            Verdict::Discard => "SMFIS_DISCARD",
            Verdict::Accept => "SMFIS_ACCEPT",
            Verdict::Tempfail => "SMFIS_TEMPFAIL",
            Verdict::NoReply => "SMFIS_NOREPLY",
            Verdict::Skip => "SMFIS_SKIP",
        }
    }
}
