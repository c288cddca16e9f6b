//! Socket descriptions.
#![no_main]

use std::ffi::CString;

use libfuzzer_sys::{Corpus, fuzz_target};
use milter::fuzzing::address;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = CString::new(bytes) else { return Corpus::Reject };
    // Names of hosts would be looked up in the network.
    if bytes.iter().position(|&byte| byte == b'@').is_some_and(|at| bytes.get(at + 1) != Some(&b'[')) {
        return Corpus::Reject;
    }
    match address(&text) {
        Ok(meaning) => {
            let again = CString::new(meaning.clone()).expect("part of a C string");
            assert_eq!(address(&again), Ok(meaning), "a description has one meaning");
        }
        Err(line) => assert!(!line.is_empty()),
    }
    Corpus::Keep
});
