//! Mistakes of MTAs, and of whatever else talks to a filter's port.

use super::{
    conversation::{Connection, Conversation, offer, packet},
    random::Random,
};

/// Changes more than half of the connections in one or a few places.
pub(super) fn mutate(random: &mut Random, conversation: &mut Conversation) {
    for connection in &mut conversation.connections {
        for _ in 0..random.weighted(&[(40, 0), (30, 1), (18, 2), (12, 4)]) {
            change(random, connection);
        }
    }
}

fn change(random: &mut Random, connection: &mut Connection) {
    let commands = &mut connection.commands;
    if commands.is_empty() {
        return commands.push(stray(random));
    }
    let at = random.below(commands.len());
    let other = random.below(commands.len());
    match random.below(100) {
        0..=13 => commands.swap(at, other),
        14..=27 => drop(commands.remove(at)),
        28..=38 => commands.insert(at, commands[other].clone()),
        39..=63 => commands.insert(at, stray(random)),
        64..=67 => commands.truncate(at),
        68..=71 => {
            let moved = commands.remove(at);
            commands.insert(other.min(commands.len()), moved);
        }
        72..=84 => damage_payload(random, &mut commands[at]),
        85..=89 => damage_length(random, &mut commands[at]),
        90..=93 => damage_octets(random, &mut commands[at]),
        94..=96 => commands[at][4] = random.one_of(b"ODCHMRTLNBEAQKUZcx\x01\x05\x80\xff"),
        _ => commands.insert(at, large(random)),
    }
}

/// A command from somewhere else.
fn stray(random: &mut Random) -> Vec<u8> {
    const COMMANDS: [(u8, &[u8]); 34] = [
        (b'C', b"h\x004\0\x19127.0.0.1\0"),
        (b'C', b"h\0U"),
        (b'C', b"h\x006\0\x01::1\0"),
        (b'C', b"h\x004\0\x010x7f.1 junk\0"),
        (b'C', b"h"),
        (b'H', b"h\0"),
        (b'H', b"h\0second\0"),
        (b'M', b"<x>\0"),
        (b'M', b"<x>\0\0A=1\0rest"),
        (b'R', b"<y>\0"),
        (b'T', b""),
        (b'T', b"surplus"),
        (b'L', b"A\0b\0"),
        (b'L', b"A\0b\0c\0"),
        (b'L', b"\0ab\0def\0"),
        (b'L', b"\0v\0"),
        (b'N', b""),
        (b'B', b"xx"),
        (b'B', b""),
        (b'E', b""),
        (b'E', b"tail"),
        (b'A', b""),
        (b'A', b""),
        (b'Q', b""),
        (b'K', b""),
        (b'K', b""),
        (b'U', b"NOOP\0"),
        (b'U', b"NOOP\0"),
        (b'U', b"NOOP"),
        (b'D', b"Mi\0Q9\0"),
        (b'D', b"Li\0x\0"),
        (b'D', b"Hx\0y\0j"),
        (b'D', b"Rj\0k\0i\0"),
        (b'Z', b"abc"),
    ];
    match random.below(100) {
        0..=5 => offer(6, 0x1ff, 0x1f_ffff),
        6..=7 => packet(random.one_of(b"ODCHMRLBU"), b""),
        _ => {
            let (letter, payload) = random.one_of(&COMMANDS);
            packet(letter, payload)
        }
    }
}

/// Another payload with a length that fits.
fn damage_payload(random: &mut Random, command: &mut Vec<u8>) {
    if command.len() < 5 {
        return;
    }
    let mut payload = command[5..].to_vec();
    match random.below(6) {
        0 => payload.truncate(random.below(payload.len() + 1)),
        1 => payload.extend_from_slice(random.one_of(&[&b"\0"[..], b"x", b"tail\0", b"\0\0"])),
        2 => {
            payload.pop();
        }
        3 => drop(payload.drain(..random.below(payload.len() + 1))),
        _ if payload.is_empty() => payload.push(0),
        4 => {
            let at = random.below(payload.len());
            payload[at] = random.one_of(b"\0\x01 0A\x7f\x80\xff{}46LU");
        }
        _ => {
            let at = random.below(payload.len());
            payload.insert(at, random.one_of(b"\0\x01 0A\xff.:"));
        }
    }
    *command = packet(command[4], &payload);
}

/// Another length in front of the same octets.
fn damage_length(random: &mut Random, command: &mut [u8]) {
    const LENGTHS: [u32; 8] = [0, 1, 0x1_0000, 0x1_0001, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_ffff];
    let Some(field) = command.first_chunk_mut() else { return };
    let length = u32::from_be_bytes(*field);
    *field = match random.below(4) {
        0 => length.wrapping_add(1),
        1 => length.wrapping_sub(1),
        2 => length.wrapping_add(random.between(2, 40) as u32),
        _ => random.one_of(&LENGTHS),
    }
    .to_be_bytes();
}

/// A cut or surplus that shifts everything behind it.
fn damage_octets(random: &mut Random, command: &mut Vec<u8>) {
    if random.percent(50) {
        command.truncate(random.below(command.len() + 1));
        // What is left is enough of a command for other mutations.
        if command.len() < 5 {
            command.resize(5, 0);
        }
    } else {
        command.push(random.one_of(b"\0A\xff"));
    }
}

/// A packet around the largest size.
fn large(random: &mut Random) -> Vec<u8> {
    let size = random.between(65_534, 65_537);
    packet(random.one_of(b"BBLMREUH"), &vec![b'z'; size])
}
