//! The macros of a session, stage by stage.

use std::cell::Cell;
use std::collections::TryReserveError;
use std::fmt;
use std::slice;

use crate::command::{CommandCode, find_nul};

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

    /// The stages as a session passes them.
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
}

/// The macros that are in force, one set per stage.
///
/// A value stays where it is in memory until its set is replaced or cleared: filters keep the pointers.
#[derive(Debug, Default)]
pub struct MacroTable {
    /// Those of [`Stage::Connect`] and [`Stage::Helo`].
    client: [MacroSet; 2],
    /// Those of the later stages by index, in a box because most sessions that wait do so between messages.
    message: Option<Box<[MacroSet; 5]>>,
}

impl MacroTable {
    /// Takes the payload of a MACRO command: the letter of the command the macros belong to, then names and values,
    /// each with its NUL. Replaces the whole set of that stage. Sets for other letters, and packets that hold not even
    /// a name, change nothing; octets behind the last NUL are dropped. Fails, and changes nothing, when there is no memory.
    pub fn store(&mut self, payload: &[u8]) -> Result<(), TryReserveError> {
        let Some((&letter, strings)) = payload.split_first() else { return Ok(()) };
        let Some(stage) = Stage::from_letter(letter) else { return Ok(()) };
        if strings.contains(&0) {
            let macros = MacroSet::new(strings)?;
            let set = match self.client.get_mut(stage as usize) {
                Some(set) => set,
                None => &mut self.message.get_or_insert_default()[stage as usize - self.client.len()],
            };
            *set = macros;
        }
        Ok(())
    }

    /// Drops the sets of `stage` and of all later ones.
    pub fn clear_from(&mut self, stage: Stage) {
        let later = Stage::IN_TIME.into_iter().skip_while(|passed| *passed != stage);
        for stage in later {
            match (stage, self.client.get_mut(stage as usize), &mut self.message) {
                (_, Some(set), _) => *set = MacroSet::default(),
                (Stage::Mail, None, message) => *message = None,
                (_, None, Some(message)) => message[stage as usize - self.client.len()] = MacroSet::default(),
                (_, None, None) => {}
            }
        }
    }

    fn set(&self, stage: Stage) -> Option<&MacroSet> {
        let later = || self.message.as_ref()?.get(stage as usize - self.client.len());
        self.client.get(stage as usize).or_else(later)
    }

    /// The value of a macro with its NUL, from the latest stage that has it.
    ///
    /// One-letter names are found with and without braces, longer names only as the MTA spelt them. A name without a
    /// value counts as absent. Whoever gets a value may write into it; nothing but this value changes.
    pub fn value(&self, name: &[u8]) -> Option<&[Cell<u8>]> {
        Stage::IN_TIME.iter().rev().find_map(|stage| self.set(*stage)?.value(name))
    }
}

/// The macros of one stage, in one piece of memory: how many there are; where in the strings each value ends; the strings
/// as received, name NUL value NUL name NUL value NUL ...
///
/// Later the filter may have written into the values, NULs included, so their ends are looked for once, here. Names stay
/// as they are.
#[derive(Debug, Default)]
struct MacroSet {
    octets: Box<[Cell<u8>]>,
}

/// Bytes of a set that is allocated like anything small: without a way to fail, which takes longer. Nearly all are.
const SMALL_SET: usize = 1024;

impl MacroSet {
    fn new(strings: &[u8]) -> Result<Self, TryReserveError> {
        let pairs = strings.iter().filter(|octet| **octet == 0).count() / 2;
        let size = (1 + pairs) * size_of::<u32>() + strings.len();
        let mut octets = if size <= SMALL_SET { Vec::with_capacity(size) } else { Vec::new() };
        octets.try_reserve_exact(size)?;
        let mut put = |number: u32| octets.extend_from_slice(&number.to_ne_bytes().map(Cell::new));
        put(pairs as u32);
        let mut end = 0;
        let after_string = |start| find_nul(&strings[start..]).map(|len| start + len + 1);
        while let Some(next) = after_string(end).and_then(after_string) {
            put(next as u32);
            end = next;
        }
        octets.extend(strings[..end].iter().copied().map(Cell::new));
        Ok(MacroSet { octets: octets.into() })
    }

    fn value(&self, name: &[u8]) -> Option<&[Cell<u8>]> {
        let (pairs, rest) = self.octets.split_first_chunk()?;
        let (ends, strings) = rest.split_at(number(pairs) * size_of::<u32>());
        let mut start = 0;
        for end in ends.as_chunks().0 {
            let end = number(end);
            let pair = &strings[start..end];
            let (known, value) = pair.split_at(pair.iter().position(|octet| octet.get() == 0)?);
            if same_name(known, name) {
                return Some(&value[1..]);
            }
            start = end;
        }
        None
    }
}

fn number(octets: &[Cell<u8>; size_of::<u32>()]) -> usize {
    u32::from_ne_bytes(octets.each_ref().map(Cell::get)) as usize
}

fn same_name(known: &[Cell<u8>], asked: &[u8]) -> bool {
    let known = match known {
        [open, letter, close] if open.get() == b'{' && close.get() == b'}' => slice::from_ref(letter),
        _ => known,
    };
    let asked = match asked {
        [b'{', letter, b'}'] => slice::from_ref(letter),
        _ => asked,
    };
    known.len() == asked.len() && known.iter().map(Cell::get).eq(asked.iter().copied())
}

/// Why macros cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// There was a request for the stage before.
    Repeated,
    /// There is no memory for the list.
    NoMemory,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestError::Repeated => "there was a list for this stage",
            RequestError::NoMemory => "there is no memory for it",
        })
    }
}

impl std::error::Error for RequestError {}

/// The macros that a filter asks the MTA for.
#[derive(Debug, Default)]
pub(crate) struct MacroRequests {
    /// One bit for each stage that has been asked for.
    stages: u8,
    names: Vec<(Stage, Box<[u8]>)>,
}

impl MacroRequests {
    /// Adds a request. Fails, and changes nothing, when there was one for the stage, or there is no memory.
    pub(crate) fn add(&mut self, stage: Stage, names: &[u8]) -> Result<(), RequestError> {
        if self.stages & (1 << stage as u8) != 0 {
            return Err(RequestError::Repeated);
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(names.len()).map_err(|_| RequestError::NoMemory)?;
        copy.extend_from_slice(names);
        self.stages |= 1 << stage as u8;
        self.names.push((stage, copy.into()));
        Ok(())
    }

    /// The requests by stage. They stay made, but their texts are gone.
    pub(crate) fn take(&mut self) -> Vec<(Stage, Box<[u8]>)> {
        let mut names = std::mem::take(&mut self.names);
        names.sort_unstable_by_key(|(stage, _)| stage.index());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(packets: &[&[u8]]) -> MacroTable {
        let mut table = MacroTable::default();
        packets.iter().for_each(|packet| table.store(packet).unwrap());
        table
    }

    fn value(table: &MacroTable, name: &str) -> Option<String> {
        let value = table.value(name.as_bytes())?;
        let (nul, text) = value.split_last().unwrap();
        assert_eq!(nul.get(), 0);
        Some(text.iter().map(|octet| char::from(octet.get())).collect())
    }

    #[test]
    fn later_stages_win_and_braces_of_one_letter_do_not_matter() {
        let table = table(&[b"Mi\0Q1\0{mail_addr}\0a\0", b"R{i}\0Q2\0"]);
        assert_eq!(value(&table, "i").as_deref(), Some("Q2"));
        assert_eq!(value(&table, "{i}").as_deref(), Some("Q2"));
        assert_eq!(value(&table, "{mail_addr}").as_deref(), Some("a"));
        assert_eq!(value(&table, "mail_addr"), None);
    }

    #[test]
    fn end_of_message_comes_before_end_of_headers() {
        let mut table = table(&[b"E{m}\0eom\0", b"N{m}\0eoh\0"]);
        assert_eq!(value(&table, "{m}").as_deref(), Some("eom"));
        table.clear_from(Stage::Eom);
        assert_eq!(value(&table, "{m}").as_deref(), Some("eoh"));
    }

    #[test]
    fn a_packet_replaces_its_set_but_an_empty_one_does_not() {
        let mut table = table(&[b"Mi\0Q1\0x\0y\0", b"M", b"Mno nul"]);
        assert_eq!(value(&table, "x").as_deref(), Some("y"));
        table.store(b"Mi\0Q2\0").unwrap();
        assert_eq!(value(&table, "x"), None);
    }

    #[test]
    fn defect_14_a_name_without_value_is_absent() {
        let table = table(&[b"Ma\0b\0c\0", b"Rjunk\0v\0tail"]);
        assert_eq!(value(&table, "c"), None);
        assert_eq!(value(&table, "d"), None);
        assert_eq!(value(&table, "junk").as_deref(), Some("v"));
        assert_eq!(value(&table, "tail"), None);
    }

    #[test]
    fn only_braces_around_one_letter_do_not_matter() {
        let table = table(&[b"Cabc\0x\0{d)\0x\0(e}\0x\0"]);
        for name in ["b", "d", "e"] {
            assert_eq!(value(&table, name), None, "{name}");
        }
    }

    #[test]
    fn every_stage_has_a_letter_and_an_index() {
        for (stage, letter) in Stage::ALL.into_iter().zip(*b"CHMRTEN") {
            assert_eq!(Stage::from_letter(letter), Some(stage));
            assert_eq!(Stage::from_index(stage.index() as i32), Some(stage));
            let mut table = table(&[&[&[letter], &b"{m}\0v\0"[..]].concat()]);
            assert_eq!(value(&table, "{m}").as_deref(), Some("v"), "{stage:?}");
            table.clear_from(stage);
            assert_eq!(value(&table, "{m}"), None, "{stage:?}");
        }
        for index in [-1, 7] {
            assert_eq!(Stage::from_index(index), None);
        }
    }

    #[test]
    fn letters_without_a_stage_are_ignored() {
        let table = table(&[b"Li\0x\0", b"Bi\0x\0", b"Ui\0x\0", b"Zi\0x\0", b""]);
        assert_eq!(value(&table, "i"), None);
    }

    #[test]
    fn what_a_filter_writes_into_a_value_stays_there() {
        let mut table = table(&[b"Ma\0x y z\0{b}\0two\0c\0three\0", b"Ra\0\0d\0four\0"]);
        for name in ["{b}", "c", "d"] {
            table.value(name.as_bytes()).unwrap().iter().for_each(|octet| octet.set(b'#'));
        }
        table.value(b"{b}").unwrap()[1].set(0);
        for (name, len) in [("a", 1), ("{b}", 4), ("b", 4), ("c", 6), ("d", 5)] {
            assert_eq!(table.value(name.as_bytes()).map(<[_]>::len), Some(len), "{name}");
        }
        table.clear_from(Stage::Rcpt);
        assert_eq!(value(&table, "a").as_deref(), Some("x y z"));
        assert_eq!(table.value(b"#"), None);
    }

    #[test]
    fn a_value_stays_in_place_whatever_happens_to_other_stages() {
        let mut table = table(&[b"Mi\0Q1\0"]);
        let place = table.value(b"i").unwrap().as_ptr();
        table.store(b"Ci\0other\0").unwrap();
        table.store(b"E{x}\0other\0").unwrap();
        table.clear_from(Stage::Rcpt);
        assert_eq!(table.value(b"i").unwrap().as_ptr(), place);
    }

    #[test]
    fn a_set_takes_no_more_memory_than_it_needs() {
        let set = MacroSet::new(b"i\0Q1\0j\0mx\0odd\0tail").unwrap();
        assert_eq!(set.octets.len(), 3 * 4 + b"i\0Q1\0j\0mx\0".len());
        assert_eq!(MacroSet::new(b"odd\0tail").unwrap().octets.len(), 4);
    }

    #[test]
    fn a_stage_is_requested_once() {
        let mut requests = MacroRequests::default();
        assert_eq!(requests.add(Stage::Rcpt, b"{rcpt_addr}"), Ok(()));
        assert_eq!(requests.add(Stage::Connect, b""), Ok(()));
        assert_eq!(requests.add(Stage::Rcpt, b"i"), Err(RequestError::Repeated));
        assert_eq!(requests.take(), [(Stage::Connect, b""[..].into()), (Stage::Rcpt, b"{rcpt_addr}"[..].into())]);
        assert_eq!(requests.add(Stage::Rcpt, b"i"), Err(RequestError::Repeated));
        assert_eq!(requests.take(), []);
    }
}
