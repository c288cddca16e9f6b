//! The sub-command `replay`: a recorded session once more, to see whether a filter still answers the same.
//!
//! The filter gets every octet that it got then. What the MTA sent after an answer is sent after the answer now, so
//! that no time is measured and none is waited. "Still working" packets come as time goes by: they are not compared.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use milter_protocol::record::{self, Entry, Kind};
use milter_protocol::reply::PROGRESS;
use milter_protocol::{CommandCode, Packet, frame};

use crate::arguments::Replay;
use crate::failure::Failure;
use crate::mta::Mta;
use crate::palette::{BAD, GOOD, Palette};
use crate::send::{Error, read};
use crate::wire::{Frame, Grouping, Stream, Wire};

/// Octets of a body that are shown.
const CONTENT: usize = 400;

/// What a replay has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Every reply is the same.
    Same {
        /// How many commands there were.
        commands: usize,
        /// How many replies there were.
        replies: usize,
    },
    /// A reply is not.
    Different(Difference),
}

/// The first difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which reply it is, from 1.
    pub reply: usize,
    /// The last command before it, in words.
    pub command: String,
    /// The reply of the record, in words.
    pub recorded: String,
    /// What there is now, in words.
    pub now: String,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Comparison::Same { commands, replies } => {
                write!(f, "the same: {replies} replies to {commands} commands")
            }
            Comparison::Different(Difference { reply, command, recorded, now }) => {
                write!(f, "reply {reply} differs\n  to        {command}\n  recorded  {recorded}\n  now       {now}")
            }
        }
    }
}

/// Runs the sub-command.
pub fn run(options: &Replay) -> Result<ExitCode, Error> {
    let octets = read(&options.record)?;
    let wrong = |error| Error::File(options.record.clone(), io::Error::other(error));
    let entries = record::entries(&octets).map_err(wrong)?;
    let filter = |failure| Error::Filter(options.connect.clone(), failure);
    let patience = Mta::Postfix.patience();
    let stream = options.connect.connect(patience.connect).map_err(filter)?;
    let comparison = replay(stream, &entries, options.timeout.unwrap_or(patience.end)).map_err(filter)?;
    let (style, status) = match comparison {
        Comparison::Same { .. } => (GOOD, 0),
        Comparison::Different(_) => (BAD, 1),
    };
    let stdout = io::stdout();
    // Whoever closed the pipe has seen enough.
    let _ = writeln!(&stdout, "{}", Palette::for_stream(&stdout).paint(style, comparison));
    if entries.iter().all(|entry| entry.kind != Kind::End) {
        let note = "the record has no end: the filter has crashed, or could not write on";
        let _ = writeln!(io::stderr(), "milter-probe: {}: {note}", options.record.display());
    }
    Ok(ExitCode::from(status))
}

/// Plays a record to a filter, which may take `timeout` for each reply.
pub fn replay(stream: Stream, entries: &[Entry<'_>], timeout: Duration) -> Result<Comparison, Failure> {
    let mut player = Player {
        wire: Wire::new(stream, Grouping::Single),
        timeout,
        commands: Frames::default(),
        replies: Frames::default(),
        last: None,
        counts: (0, 0),
    };
    for entry in entries {
        let difference = match entry.kind {
            Kind::FromMta => player.send(entry.octets)?,
            Kind::FromFilter => player.compare(entry.octets)?,
            Kind::About | Kind::End => None,
        };
        if let Some(difference) = difference {
            return Ok(Comparison::Different(difference));
        }
    }
    if let Some(difference) = player.end()? {
        return Ok(Comparison::Different(difference));
    }
    let (commands, replies) = player.counts;
    Ok(Comparison::Same { commands, replies })
}

struct Player {
    wire: Wire,
    timeout: Duration,
    commands: Frames,
    replies: Frames,
    /// The last command.
    last: Option<Frame>,
    /// Commands and replies so far.
    counts: (usize, usize),
}

impl Player {
    /// The command that the filter is busy with, for messages about it.
    fn stage(&self) -> CommandCode {
        let code = self.last.as_ref().and_then(|command| CommandCode::from_letter(command.code));
        code.unwrap_or(CommandCode::Negotiate)
    }

    fn send(&mut self, octets: &[u8]) -> Result<Option<Difference>, Failure> {
        for command in self.commands.add(octets) {
            self.last = Some(command);
            self.counts.0 += 1;
        }
        let (stage, timeout) = (self.stage(), self.timeout);
        match self.wire.send(stage, timeout, |out| out.extend_from_slice(octets)) {
            // It may have answered before it hung up.
            Ok(()) | Err(Failure::Closed { .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn compare(&mut self, octets: &[u8]) -> Result<Option<Difference>, Failure> {
        for recorded in self.replies.add(octets).into_iter().filter(is_compared) {
            self.counts.1 += 1;
            let now = self.receive()?;
            if now.as_ref() != Some(&recorded) {
                return Ok(Some(self.difference(Some(recorded), now)));
            }
        }
        Ok(None)
    }

    /// The MTA is gone: there is nothing more to say.
    fn end(&mut self) -> Result<Option<Difference>, Failure> {
        self.wire.finish();
        self.counts.1 += 1;
        let now = self.receive()?;
        let difference = now.is_some().then(|| self.difference(None, now));
        self.counts.1 -= 1;
        Ok(difference)
    }

    /// The next reply that is compared; `None` when the filter hangs up.
    fn receive(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            match self.wire.receive(self.stage(), self.timeout) {
                Ok(reply) if !is_compared(&reply) => {}
                Ok(reply) => return Ok(Some(reply)),
                Err(Failure::Closed { .. }) => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn difference(&self, recorded: Option<Frame>, now: Option<Frame>) -> Difference {
        let words = |reply: Option<Frame>, none: &str| {
            reply.map_or(none.to_owned(), |reply| text(&Packet::of_reply(reply.code, &reply.payload)))
        };
        let command = self.last.as_ref();
        Difference {
            reply: self.counts.1,
            command: command.map_or("nothing".to_owned(), |last| text(&Packet::of_command(last.code, &last.payload))),
            recorded: words(recorded, "nothing more"),
            now: words(now, "the filter hangs up"),
        }
    }
}

fn is_compared(reply: &Frame) -> bool {
    reply.code != PROGRESS
}

fn text(packet: &Packet<'_>) -> String {
    let mut text = String::new();
    packet.write_text(&mut text, CONTENT);
    text
}

/// Packets out of octets that come in pieces.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    /// The packets that are complete now. What no packet begins with stays where it is, and all behind it.
    fn add(&mut self, octets: &[u8]) -> Vec<Frame> {
        self.0.extend_from_slice(octets);
        let mut frames = Vec::new();
        let mut done = 0;
        while let Ok(Some(header)) = frame::parse(&self.0[done..], frame::LARGEST_LIMIT)
            && self.0.len() - done >= header.frame_len()
        {
            let payload = self.0[done + frame::HEADER_LEN..done + header.frame_len()].to_vec();
            frames.push(Frame { code: header.code, payload });
            done += header.frame_len();
        }
        self.0.drain(..done);
        frames
    }
}
