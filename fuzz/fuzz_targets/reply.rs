//! What a filter sends, as the probe reads it: the letter, then the payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milter_protocol::{Packet, Reply, frame};

fuzz_target!(|bytes: &[u8]| {
    let Some((&code, payload)) = bytes.split_first() else { return };
    let packet = Packet::of_reply(code, payload);
    assert!(!packet.to_string().contains(char::is_control), "{packet}");
    let Ok(reply) = Reply::decode(code, payload) else { return };
    let mut wire = Vec::new();
    reply.encode(&mut wire);
    assert_eq!(wire.split_at(frame::HEADER_LEN), (&wire[..frame::HEADER_LEN], payload), "{reply:?}");
    assert_eq!(wire[4], code);
});
