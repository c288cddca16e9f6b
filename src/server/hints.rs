//! Advice about calls that have no effect or another one than their author expects. Each piece is given once in a run.

use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use milter_protocol::modification::Obstacle;
use milter_protocol::{Escaped, Modification, SmtpReplyError};
use parking_lot::Mutex;

use super::log::{self, Level};
use crate::sys::shared::Shared;

/// What there is advice about.
#[derive(Clone, Copy)]
enum Kind {
    NotEndOfMessage,
    NotNegotiated,
    LineBreak,
    ReplyLineBreak,
    RisingDeletion,
}

const KINDS: usize = Kind::RisingDeletion as usize + 1;

/// The advice of one run.
pub(super) struct Hints {
    filter: CString,
    told: Shared<[AtomicBool; KINDS]>,
}

/// The headers that a filter has deleted at the end of a message: name and index of the last one of each name.
#[derive(Default)]
pub(super) struct Deletions(Mutex<Vec<(Vec<u8>, u32)>>);

impl Hints {
    pub(super) fn new(filter: CString) -> io::Result<Self> {
        Ok(Hints { filter, told: Shared::new([const { AtomicBool::new(false) }; KINDS])? })
    }

    /// A call for a change has met an obstacle.
    pub(super) fn obstacle(&self, call: &str, obstacle: Obstacle) {
        let kind = match obstacle {
            Obstacle::NotEndOfMessage => Kind::NotEndOfMessage,
            Obstacle::NotNegotiated(_) => Kind::NotNegotiated,
        };
        self.give(kind, format_args!("{call} has no effect: {obstacle}"));
    }

    /// A change was asked for.
    pub(super) fn modification(&self, call: &str, modification: &Modification<'_>, deletions: &Deletions) {
        if texts(modification).into_iter().any(breaks_lines) {
            self.give(
                Kind::LineBreak,
                format_args!(
                    "{call} was given a CR, or a LF without a blank behind it, which can end a header field too early; \
                     remove it, or fold with LF and a tab"
                ),
            );
        }
        if let Modification::ChangeHeader { index, name, value: b"" } = *modification
            && deletions.rise(name, index)
        {
            self.give(
                Kind::RisingDeletion,
                format_args!(
                    "{call} deletes fields {} by rising index, but each deletion changes the index of those behind it, \
                     and some may stay; begin with the highest index",
                    Escaped(name)
                ),
            );
        }
    }

    /// A reply was not taken.
    pub(super) fn bad_reply(&self, call: &str, error: SmtpReplyError) {
        if error == SmtpReplyError::LineBreak {
            self.give(
                Kind::ReplyLineBreak,
                format_args!("{call} has no effect: {error}; smfi_setmlreply takes several lines, each as an argument"),
            );
        }
    }

    fn give(&self, kind: Kind, text: std::fmt::Arguments<'_>) {
        if !self.told[kind as usize].swap(true, Relaxed) {
            log::write(Level::Warning, &self.filter, format_args!("hint: {text}"));
        }
    }
}

impl Deletions {
    /// Forgets those of the last message.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Notes a deletion; whether one with a lower index came before it.
    fn rise(&self, name: &[u8], index: u32) -> bool {
        let mut deletions = self.0.lock();
        match deletions.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, last)) => std::mem::replace(last, index) < index,
            None => {
                let mut copy = Vec::new();
                // Without memory there is no advice.
                if copy.try_reserve_exact(name.len()).is_ok() && deletions.try_reserve(1).is_ok() {
                    copy.extend_from_slice(name);
                    deletions.push((copy, index));
                }
                false
            }
        }
    }
}

fn texts<'a>(modification: &Modification<'a>) -> [&'a [u8]; 2] {
    match *modification {
        Modification::AddHeader { name, value }
        | Modification::InsertHeader { name, value, .. }
        | Modification::ChangeHeader { name, value, .. } => [name, value],
        Modification::ChangeSender { address, arguments }
        | Modification::AddRecipientWithArguments { address, arguments } => [address, arguments.unwrap_or_default()],
        Modification::AddRecipient { address } | Modification::DeleteRecipient { address } => [address, b""],
        Modification::Quarantine { reason } => [reason, b""],
    }
}

/// Whether a text has line breaks that are no folds.
fn breaks_lines(text: &[u8]) -> bool {
    let ends = |at: usize| !matches!(text.get(at + 1), Some(b' ' | b'\t'));
    text.iter().enumerate().any(|(at, &octet)| octet == b'\r' || octet == b'\n' && ends(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_no_line_breaks() {
        for (text, breaks) in
            [(&b"a\n\tb\n c"[..], false), (b"", false), (b"a\nb", true), (b"a\n", true), (b"a\r\n b", true)]
        {
            assert_eq!(breaks_lines(text), breaks, "{text:?}");
        }
    }

    #[test]
    fn only_rising_deletions_of_one_name_in_one_message() {
        let deletions = Deletions::default();
        assert!(!deletions.rise(b"X", 2));
        assert!(!deletions.rise(b"Y", 3));
        assert!(!deletions.rise(b"x", 1));
        assert!(!deletions.rise(b"X", 1), "the way that is right in Sendmail");
        assert!(deletions.rise(b"X", 2));
        deletions.clear();
        assert!(!deletions.rise(b"X", 3));
    }
}
