//! Sessions with everything that MTAs and filters can do, checked by the oracle of the protocol's own tests.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../protocol/tests/engine/oracle.rs"]
mod oracle;
#[path = "../../protocol/tests/engine/script.rs"]
mod script;

fuzz_target!(|bytes: &[u8]| script::play(bytes));
