//! Recorded sessions: every octet that MTA and filter have sent each other, and when.
//!
//! A record is [`MAGIC`], then entries. An entry is its kind, one octet; the microseconds since the session began, 64
//! bits; the length of what follows, 32 bits; and that many octets. Numbers are in network order.
//!
//! | kind | octets |
//! |---|---|
//! | `#` | text about the session, for people |
//! | `>` | what the MTA has sent, as it was received: any part of a packet, or several |
//! | `<` | what the filter has answered |
//! | `.` | why the session is over, as text; the last entry, unless the process has died |

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BufMut};

/// What a record begins with; the digit is the version.
pub const MAGIC: &[u8] = b"milter-record 1\n";

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Text about the session.
    About = b'#',
    /// Octets of the MTA.
    FromMta = b'>',
    /// Octets of the filter.
    FromFilter = b'<',
    /// Why the session is over.
    End = b'.',
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::About, Kind::FromMta, Kind::FromFilter, Kind::End];
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Since the session began; microseconds count.
    pub at: Duration,
    /// The octets.
    pub octets: &'a [u8],
}

impl Entry<'_> {
    /// Bytes before what an entry holds: its kind, its time and a length.
    pub const HEAD_LEN: usize = size_of::<u8>() + size_of::<u64>() + size_of::<u32>();

    /// Appends the entry.
    ///
    /// # Panics
    ///
    /// For 4 GiB of octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Entry::encode_head(self.kind, self.at, self.octets.len(), out);
        out.put_slice(self.octets);
    }

    /// Appends the head of an entry that holds `len` bytes; they have to follow.
    ///
    /// # Panics
    ///
    /// For 4 GiB of bytes.
    pub fn encode_head(kind: Kind, at: Duration, len: usize, out: &mut Vec<u8>) {
        out.put_u8(kind as u8);
        out.put_u64(u64::try_from(at.as_micros()).unwrap_or(u64::MAX));
        out.put_u32(u32::try_from(len).expect("less than 4 GiB at once"));
    }
}

/// Why something is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// It begins with something else than [`MAGIC`].
    NoRecord,
    /// An entry is of no known kind. Holds where it begins, in octets from the start.
    UnknownEntry(usize),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::NoRecord => f.write_str("this is not a recorded session"),
            RecordError::UnknownEntry(at) => write!(f, "the record is damaged at octet {at}"),
        }
    }
}

impl std::error::Error for RecordError {}

/// The entries of a record. An entry that is cut off at the end is left out: the process died there.
pub fn entries(record: &[u8]) -> Result<Vec<Entry<'_>>, RecordError> {
    let mut rest = record.strip_prefix(MAGIC).ok_or(RecordError::NoRecord)?;
    let mut entries = Vec::new();
    while let Some((&letter, mut body)) = rest.split_first() {
        let known = Kind::ALL.into_iter().find(|kind| *kind as u8 == letter);
        let kind = known.ok_or(RecordError::UnknownEntry(record.len() - rest.len()))?;
        let (Ok(micros), Ok(len)) = (body.try_get_u64(), body.try_get_u32()) else { break };
        let Some((octets, next)) = body.split_at_checked(len as usize) else { break };
        entries.push(Entry { kind, at: Duration::from_micros(micros), octets });
        rest = next;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut record = MAGIC.to_vec();
        entries.iter().for_each(|entry| entry.encode(&mut record));
        record
    }

    const ENTRIES: [Entry<'_>; 4] = [
        Entry { kind: Kind::About, at: Duration::ZERO, octets: b"who" },
        Entry { kind: Kind::FromMta, at: Duration::from_micros(1), octets: b"\0\0\0\x01Q" },
        Entry { kind: Kind::FromFilter, at: Duration::from_secs(1 << 33), octets: b"" },
        Entry { kind: Kind::End, at: Duration::from_secs(1 << 34), octets: b"over" },
    ];

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(entries(&record(&ENTRIES)), Ok(ENTRIES.to_vec()));
        assert_eq!(entries(MAGIC), Ok(Vec::new()));
    }

    #[test]
    fn a_record_ends_where_the_process_died() {
        let whole = record(&ENTRIES);
        let last = whole.len() - record(&ENTRIES[3..]).len() + MAGIC.len();
        for end in last..whole.len() {
            assert_eq!(entries(&whole[..end]).map(|entries| entries.len()), Ok(3), "{end}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert_eq!(entries(b"From: a\n"), Err(RecordError::NoRecord));
        assert_eq!(entries(&[MAGIC, b"?"].concat()), Err(RecordError::UnknownEntry(MAGIC.len())));
        let mut record = record(&ENTRIES[..1]);
        let end = record.len();
        record.extend_from_slice(b"x");
        assert_eq!(entries(&record), Err(RecordError::UnknownEntry(end)));
    }
}
