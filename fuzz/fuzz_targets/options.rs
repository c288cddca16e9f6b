//! The value of `LIBMILTER_OPTIONS`, and single options that a program sets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milter::fuzzing::{option, options};

fuzz_target!(|text: &str| {
    let once = options(text);
    match &once {
        Ok(found) => assert_eq!(Ok(found), options(&format!(" {} ,", text.replace(',', " , ,"))).as_ref()),
        Err(line) => assert!(!line.is_empty()),
    }
    if let Some((name, value)) = text.split_once('=') {
        let _ = option(name, value);
    }
});
