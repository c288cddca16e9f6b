//! Records of sessions, whole, damaged and cut off.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milter_protocol::record::{MAGIC, entries};

fuzz_target!(|bytes: &[u8]| {
    // Few bytes that are no record have anything to teach.
    let record = [MAGIC, bytes].concat();
    let Ok(entries) = entries(&record) else { return };
    let mut again = MAGIC.to_vec();
    entries.iter().for_each(|entry| entry.encode(&mut again));
    assert!(record.starts_with(&again), "entries are read as they are written");
});
