//! What the two libraries are known to differ in.

use std::fmt;

/// Why the two libraries may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The defect of the reference that has this number.
    Defect(u8),
    /// `SMFIS_NOREPLY` without the agreement: silence there, CONTINUE here.
    NoReplyUnagreed,
    /// xxfi_close may modify the message when the connection ends right after it.
    CloseModifies,
    /// A filter that declined UNKNOWN may be sent parts of a message right after ABORT.
    AbortPassed,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Defect(number) => write!(f, "defect {number}"),
            Difference::NoReplyUnagreed => f.write_str("NOREPLY that was not negotiated"),
            Difference::CloseModifies => f.write_str("modifications in xxfi_close"),
            Difference::AbortPassed => f.write_str("parts of a message after ABORT"),
        }
    }
}
