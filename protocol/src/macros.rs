//! The macros of a session, stage by stage.

use crate::command::CommandCode;

/// Where in a session a set of macros belongs. The order is that of the requests a filter can make (`SMFIM_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// `SMFIM_CONNECT`
    Connect,
    /// `SMFIM_HELO`
    Helo,
    /// `SMFIM_ENVFROM`
    Mail,
    /// `SMFIM_ENVRCPT`
    Rcpt,
    /// `SMFIM_DATA`
    Data,
    /// `SMFIM_EOM`
    Eom,
    /// `SMFIM_EOH`
    Eoh,
}

impl Stage {
    /// Every stage in the order of its index.
    pub const ALL: [Stage; 7] =
        [Stage::Connect, Stage::Helo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Eom, Stage::Eoh];

    /// The stages as a session passes them; a later set is cleared when an earlier stage begins anew.
    const IN_TIME: [Stage; 7] =
        [Stage::Connect, Stage::Helo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Eoh, Stage::Eom];

    /// The stage with index `index` (`SMFIM_*`).
    pub fn from_index(index: i32) -> Option<Self> {
        usize::try_from(index).ok().and_then(|index| Self::ALL.get(index)).copied()
    }

    /// The index of a stage (`SMFIM_*`).
    pub fn index(self) -> u32 {
        self as u32
    }

    /// The stage to which macros announced for the command `letter` belong. MTAs announce macros for further commands
    /// too (Postfix for L, B and U); those have no stage.
    pub fn from_letter(letter: u8) -> Option<Self> {
        Some(match CommandCode::from_letter(letter)? {
            CommandCode::Connect => Stage::Connect,
            CommandCode::Helo => Stage::Helo,
            CommandCode::Mail => Stage::Mail,
            CommandCode::Rcpt => Stage::Rcpt,
            CommandCode::Data => Stage::Data,
            CommandCode::EndOfHeaders => Stage::Eoh,
            CommandCode::EndOfBody => Stage::Eom,
            _ => return None,
        })
    }

    fn place_in_time(self) -> usize {
        match self {
            Stage::Eoh => 5,
            Stage::Eom => 6,
            early => early as usize,
        }
    }
}

/// The macros that are in force, one set per stage.
///
/// A value stays where it is in memory until its set is replaced or cleared: filters keep the pointers.
#[derive(Debug, Default)]
pub struct MacroTable {
    /// By place in time; each set as received: name NUL value NUL name NUL value NUL ...
    sets: [Vec<u8>; 7],
}

impl MacroTable {
    /// Takes the payload of a MACRO command: the letter of the command the macros belong to, then names and values,
    /// each with its NUL. Replaces the whole set of that stage. Sets for other letters, and packets that hold not even
    /// a name, change nothing; octets behind the last NUL are dropped.
    pub fn store(&mut self, payload: &[u8]) {
        let Some((&letter, pairs)) = payload.split_first() else { return };
        let Some(stage) = Stage::from_letter(letter) else { return };
        let Some(end) = pairs.iter().rposition(|&octet| octet == 0) else { return };
        let set = &mut self.sets[stage.place_in_time()];
        set.clear();
        set.reserve_exact(end + 1);
        set.extend_from_slice(&pairs[..=end]);
    }

    /// Drops the sets of `stage` and of all later ones.
    pub fn clear_from(&mut self, stage: Stage) {
        for later in &Stage::IN_TIME[stage.place_in_time()..] {
            self.sets[later.place_in_time()] = Vec::new();
        }
    }

    /// The value of a macro with its NUL, from the latest stage that has it.
    ///
    /// One-letter names are found with and without braces, longer names only as the MTA spelt them. A name without a
    /// value counts as absent.
    pub fn value(&mut self, name: &[u8]) -> Option<&mut [u8]> {
        let (set, range) = (0..self.sets.len()).rev().find_map(|set| Some((set, find(&self.sets[set], name)?)))?;
        Some(&mut self.sets[set][range])
    }
}

/// Where the value of `name`, with its NUL, lies in a set.
fn find(set: &[u8], name: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut rest = 0;
    while let Some(name_len) = memchr(&set[rest..]) {
        let value = rest + name_len + 1;
        let value_end = value + memchr(&set[value..])? + 1;
        if same_name(&set[rest..rest + name_len], name) {
            return Some(value..value_end);
        }
        rest = value_end;
    }
    None
}

fn memchr(octets: &[u8]) -> Option<usize> {
    octets.iter().position(|&octet| octet == 0)
}

fn same_name(known: &[u8], asked: &[u8]) -> bool {
    known == asked
        || match (known, asked) {
            ([letter], [b'{', asked, b'}']) => letter == asked,
            ([b'{', known, b'}'], [letter]) => known == letter,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(packets: &[&[u8]]) -> MacroTable {
        let mut table = MacroTable::default();
        packets.iter().for_each(|packet| table.store(packet));
        table
    }

    fn value(table: &mut MacroTable, name: &str) -> Option<String> {
        table.value(name.as_bytes()).map(|value| String::from_utf8(value[..value.len() - 1].to_vec()).unwrap())
    }

    #[test]
    fn later_stages_win_and_braces_of_one_letter_do_not_matter() {
        let mut table = table(&[b"Mi\0Q1\0{mail_addr}\0a\0", b"R{i}\0Q2\0"]);
        assert_eq!(value(&mut table, "i").as_deref(), Some("Q2"));
        assert_eq!(value(&mut table, "{i}").as_deref(), Some("Q2"));
        assert_eq!(value(&mut table, "{mail_addr}").as_deref(), Some("a"));
        assert_eq!(value(&mut table, "mail_addr"), None);
    }

    #[test]
    fn end_of_message_comes_before_end_of_headers() {
        let mut table = table(&[b"E{m}\0eom\0", b"N{m}\0eoh\0"]);
        assert_eq!(value(&mut table, "{m}").as_deref(), Some("eom"));
        table.clear_from(Stage::Eom);
        assert_eq!(value(&mut table, "{m}").as_deref(), Some("eoh"));
    }

    #[test]
    fn a_packet_replaces_its_set_but_an_empty_one_does_not() {
        let mut table = table(&[b"Mi\0Q1\0x\0y\0", b"M", b"Mno nul"]);
        assert_eq!(value(&mut table, "x").as_deref(), Some("y"));
        table.store(b"Mi\0Q2\0");
        assert_eq!(value(&mut table, "x"), None);
    }

    #[test]
    fn defect_14_a_name_without_value_is_absent() {
        let mut table = table(&[b"Ma\0b\0c\0", b"Rjunk\0v\0tail"]);
        assert_eq!(value(&mut table, "c"), None);
        assert_eq!(value(&mut table, "d"), None);
        assert_eq!(value(&mut table, "junk").as_deref(), Some("v"));
        assert_eq!(value(&mut table, "tail"), None);
    }

    #[test]
    fn letters_without_a_stage_are_ignored() {
        let mut table = table(&[b"Li\0x\0", b"Bi\0x\0", b"Ui\0x\0", b"Zi\0x\0", b""]);
        assert_eq!(value(&mut table, "i"), None);
    }
}
