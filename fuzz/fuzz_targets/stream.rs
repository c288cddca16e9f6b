//! What an MTA sends means the same whole and in pieces, on a real connection.
//!
//! The first byte says how many verdicts follow, the next ones are those, then comes a byte for the lengths of pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milter_protocol::frame;

/// A connection takes the replies to so many bytes without anybody reading them.
const LONGEST: usize = 512;

fuzz_target!(|bytes: &[u8]| {
    let Some((&verdicts, rest)) = bytes[..bytes.len().min(LONGEST)].split_first() else { return };
    let Some((verdicts, rest)) = rest.split_at_checked(usize::from(verdicts % 16)) else { return };
    let Some((&length, stream)) = rest.split_first() else { return };

    for end in 0..stream.len() {
        let part = frame::parse(&stream[..end], 1000);
        assert!(part == Ok(None) || part == frame::parse(stream, 1000), "a part is never taken for something else");
    }
    let whole = milter::fuzzing::session(verdicts, [stream]);
    let pieces = milter::fuzzing::session(verdicts, stream.chunks(usize::from(length).max(1)));
    assert_eq!(whole, pieces);
});
