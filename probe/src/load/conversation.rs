//! One session of a load test, driven by what its socket can do.

use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Instant;

use milter_protocol::frame;
use milter_protocol::modification::Modification;
use milter_protocol::{CommandCode, Reply};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};

use super::script::{Script, Scripts, Step};
use super::world::{Turn, World};
use crate::answer::Answer;
use crate::failure::Failure;
use crate::mta::Mta;
use crate::negotiation::Negotiation;
use crate::wire::{self, Grouping};

/// Octets that Postfix writes at once to a Unix socket, and over TCP.
const POSTFIX_WRITES: (usize, usize) = (4 << 10, 256 << 10);

/// A connected socket that does not block.
#[derive(Debug)]
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.write(octets),
            Socket::Tcp(stream) => stream.write(octets),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.read(buffer),
            Socket::Tcp(stream) => stream.read(buffer),
        }
    }

    fn write_limit(&self) -> usize {
        match self {
            Socket::Unix(_) => POSTFIX_WRITES.0,
            Socket::Tcp(_) => POSTFIX_WRITES.1,
        }
    }
}

/// What a conversation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// An answer.
    Readable,
    /// Room for the rest of what it says.
    Writable,
    /// This moment.
    Until(Instant),
    /// Being told to send a message.
    Told,
    /// Nothing, it has ended.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Offer,
    Greeting,
    Message,
    /// Between messages, until it is told to send one.
    Rest,
    Quit,
    Ended,
}

/// One session with the filter.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: Socket,
    part: Part,
    /// What the MTA says in this part.
    script: Rc<Script>,
    /// Everything it says, once the negotiation is done.
    scripts: Option<Rc<Scripts>>,
    /// The step that is being sent or waits for its answer; of those that leave together the last.
    step: usize,
    /// Octets of the script that have been sent.
    sent: usize,
    /// Whether the step has been sent and its answer is due.
    waits: bool,
    /// Whether the socket took no more.
    is_full: bool,
    /// Nothing is sent before.
    due: Option<Instant>,
    /// The start of a frame whose end has not come yet.
    incoming: Vec<u8>,
    /// Whether what follows has to begin with giving up a message.
    unfinished: bool,
    messages: u64,
    refused: usize,
    quarantined: bool,
    opened: Instant,
    began: Instant,
    asked: Instant,
}

impl Conversation {
    /// A session over a socket whose connection may still be in the making.
    pub(super) fn new(socket: Socket, now: Instant, world: &World<'_>) -> Self {
        Conversation {
            socket,
            part: Part::Offer,
            script: world.offer(),
            scripts: None,
            step: 0,
            sent: 0,
            waits: false,
            is_full: false,
            due: None,
            incoming: Vec::new(),
            unfinished: false,
            messages: 0,
            refused: 0,
            quarantined: false,
            opened: now,
            began: now,
            asked: now,
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.socket {
            Socket::Unix(stream) => stream,
            Socket::Tcp(stream) => stream,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(super) fn is_resting(&self) -> bool {
        self.part == Part::Rest
    }

    /// The failure to answer in time, if it is one by now.
    pub(super) fn overdue(&self, now: Instant, world: &World<'_>) -> Option<Failure> {
        let stage = self.stage();
        let after = world.plan.patience.for_answer(stage);
        let idle = self.is_resting() || self.due.is_some();
        (!idle && now.duration_since(self.asked) > after).then_some(Failure::Timeout { stage, after })
    }

    /// Ends a rest with a message.
    pub(super) fn wake(&mut self, world: &mut World<'_>) {
        let now = Instant::now();
        self.begin_message(now, now, world);
    }

    /// Says what can be said.
    pub(super) fn speak(&mut self, world: &mut World<'_>) -> Result<Wait, Failure> {
        loop {
            match self.part {
                Part::Rest => return Ok(Wait::Told),
                Part::Ended => return Ok(Wait::Nothing),
                _ if self.waits => return Ok(Wait::Readable),
                _ => {}
            }
            if let Some(due) = self.due {
                let now = Instant::now();
                if now < due {
                    return Ok(Wait::Until(due));
                }
                self.due = None;
                self.asked = now;
            }
            self.is_full = !self.write(world)?;
            if self.is_full {
                return Ok(Wait::Writable);
            }
            if self.current().answered {
                self.waits = true;
            } else {
                self.proceed(self.step + 1, Instant::now(), world);
            }
        }
    }

    /// Takes what has come. `hung_up`: the system says that nothing more will.
    pub(super) fn listen(&mut self, hung_up: bool, world: &mut World<'_>) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut world.buffer);
        let heard = self.listen_with(&mut buffer, hung_up, world);
        world.buffer = buffer;
        heard
    }

    fn listen_with(&mut self, buffer: &mut [u8], hung_up: bool, world: &mut World<'_>) -> Result<(), Failure> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) if self.part == Part::Quit => {
                    self.part = Part::Ended;
                    return Ok(());
                }
                Ok(0) if self.part == Part::Offer && !self.incoming.is_empty() => {
                    return Err(wire::stranger(&self.incoming));
                }
                Ok(0) => return Err(Failure::Closed { stage: self.stage() }),
                Ok(read) => {
                    world.tally.octets_received += read as u64;
                    self.take_octets(&buffer[..read], world)?;
                    // Less than there is room for is all there is.
                    if read < buffer.len() && !hung_up {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(&error, world)),
            }
        }
    }

    fn take_octets(&mut self, octets: &[u8], world: &mut World<'_>) -> Result<(), Failure> {
        if self.incoming.is_empty() {
            let taken = self.take_frames(octets, world)?;
            self.incoming.extend_from_slice(&octets[taken..]);
        } else {
            let mut incoming = std::mem::take(&mut self.incoming);
            incoming.extend_from_slice(octets);
            let taken = self.take_frames(&incoming, world)?;
            incoming.drain(..taken);
            self.incoming = incoming;
        }
        Ok(())
    }

    /// Takes every whole frame; returns how many octets these are.
    fn take_frames(&mut self, octets: &[u8], world: &mut World<'_>) -> Result<usize, Failure> {
        let mut taken = 0;
        while let Some(header) = wire::complete(&octets[taken..], self.stage())? {
            let payload = &octets[taken + frame::HEADER_LEN..taken + header.frame_len()];
            self.take_reply(header.code, payload, world)?;
            taken += header.frame_len();
        }
        Ok(taken)
    }

    fn take_reply(&mut self, code: u8, payload: &[u8], world: &mut World<'_>) -> Result<(), Failure> {
        let (stage, mta) = (self.stage(), world.plan.workload.mta);
        if !self.waits {
            return Err(Failure::breach(stage, "an answer that nobody waits for"));
        }
        let reply = Reply::decode(code, payload).map_err(|reason| Failure::Malformed { stage, reason })?;
        let at_end = stage == CommandCode::EndOfBody;
        let answer = match reply {
            Reply::Progress if mta.takes_progress(stage) => return Ok(()),
            Reply::Modify(_) | Reply::ReplaceBody(_) if at_end => {
                self.quarantined |= matches!(reply, Reply::Modify(Modification::Quarantine { .. }));
                world.count_modification();
                return Ok(());
            }
            _ if stage == CommandCode::Negotiate => {
                let negotiation = Negotiation::check(mta, reply)?;
                let now = self.answered(world);
                self.begin_session(&negotiation, now, world);
                return Ok(());
            }
            Reply::Skip if !at_end => Answer::to_skip(mta, stage),
            Reply::Skip if mta == Mta::Postfix => Answer::Continue,
            ref reply => Answer::judge(mta, stage, reply)?,
        };
        let now = self.answered(world);
        match answer {
            Answer::Continue if reply == Reply::Skip => {
                let rest = &self.script.steps[self.step..];
                let same = rest.iter().take_while(|step| step.code == stage).count();
                self.proceed(self.step + same, now, world);
            }
            Answer::Continue => self.proceed(self.step + 1, now, world),
            Answer::Refuse(_) if stage == CommandCode::Rcpt && !answer.is_shutdown() => {
                self.refused += 1;
                if self.refused == world.plan.workload.envelope.recipients.len() {
                    self.end_message(&answer, now, world);
                } else {
                    self.proceed(self.step + 1, now, world);
                }
            }
            _ => self.end_message(&answer, now, world),
        }
        Ok(())
    }

    /// The answer has come.
    fn answered(&mut self, world: &mut World<'_>) -> Instant {
        let now = Instant::now();
        self.waits = false;
        world.count_command(self.stage(), now - self.asked);
        now
    }

    /// Goes to a step, or beyond the last one.
    fn proceed(&mut self, step: usize, now: Instant, world: &mut World<'_>) {
        if step < self.script.steps.len() {
            return self.begin_step(step, now, world);
        }
        match self.part {
            Part::Greeting => {
                world.count_session(now - self.opened);
                self.take_turn(now, world);
            }
            Part::Message => self.end_message(&Answer::Continue, now, world),
            _ => self.part = Part::Ended,
        }
    }

    fn begin_part(&mut self, part: Part, script: Rc<Script>, step: usize, now: Instant, world: &World<'_>) {
        self.part = part;
        self.script = script;
        self.begin_step(step, now, world);
    }

    fn begin_step(&mut self, step: usize, now: Instant, world: &World<'_>) {
        let steps = &self.script.steps;
        self.sent = self.script.start(step);
        self.step = match world.plan.workload.mta.grouping() {
            Grouping::Single => step,
            Grouping::Collected => {
                let together = steps[step..].iter().take_while(|step| !step.answered).count();
                (step + together).min(steps.len() - 1)
            }
        };
        self.asked = now;
        if !world.plan.pause.is_zero() && steps[step].is_of_client() {
            self.due = Some(now.max(self.due.unwrap_or(now)) + world.plan.pause);
            // The client's pauses do not count.
            self.began += world.plan.pause;
        }
    }

    fn begin_session(&mut self, negotiation: &Negotiation, now: Instant, world: &mut World<'_>) {
        let scripts = world.scripts(negotiation);
        self.scripts = Some(Rc::clone(&scripts));
        if world.plan.per_session == 0 {
            world.count_session(now - self.opened);
            let last = scripts.quit.steps.len() - 1;
            self.begin_part(Part::Quit, Rc::clone(&scripts.quit), last, now, world);
        } else {
            self.begin_part(Part::Greeting, Rc::clone(&scripts.greeting), 0, now, world);
        }
    }

    /// A message, a rest, or the end.
    fn take_turn(&mut self, now: Instant, world: &mut World<'_>) {
        match world.turn(self.messages, now) {
            Turn::Message(at) => self.begin_message(at, now, world),
            Turn::Rest => self.part = Part::Rest,
            Turn::Quit => self.quit(now, world),
        }
    }

    fn begin_message(&mut self, at: Instant, now: Instant, world: &World<'_>) {
        (self.refused, self.quarantined) = (0, false);
        // A message that is late because others were slow has been waiting since it should have been sent.
        self.began = at;
        self.due = (at > now).then_some(at);
        let first = usize::from(!self.unfinished);
        self.begin_part(Part::Message, Rc::clone(&self.agreed().message), first, now, world);
    }

    /// The message is decided, or, at CONNECT and HELO, all messages are.
    fn end_message(&mut self, answer: &Answer, now: Instant, world: &mut World<'_>) {
        let stage = self.stage();
        let mta = world.plan.workload.mta;
        self.messages += 1;
        world.count_message(answer.fate(self.quarantined), (self.part == Part::Message).then(|| now - self.began));
        if self.part == Part::Greeting {
            world.count_session(now - self.opened);
            // It stands for the one that would have come.
            let _ = world.course.next(now);
            match mta {
                Mta::Postfix => self.part = Part::Ended,
                Mta::Sendmail => self.quit(now, world),
            }
            return;
        }
        // Postfix gives a message up after each, Sendmail when the filter waits for the rest of one.
        self.unfinished = mta == Mta::Postfix || stage == CommandCode::Rcpt;
        if answer.is_shutdown() {
            self.quit(now, world);
        } else {
            self.take_turn(now, world);
        }
    }

    fn quit(&mut self, now: Instant, world: &World<'_>) {
        let first = usize::from(!self.unfinished);
        self.begin_part(Part::Quit, Rc::clone(&self.agreed().quit), first, now, world);
    }

    /// Sends the rest of the step and of those before it; false when the socket takes no more.
    fn write(&mut self, world: &mut World<'_>) -> Result<bool, Failure> {
        let step = *self.current();
        while self.sent < step.end {
            let end = match world.plan.workload.mta.grouping() {
                Grouping::Single if self.sent < step.macros_end => step.macros_end,
                Grouping::Single => step.end,
                Grouping::Collected => step.end.min(self.sent + self.socket.write_limit()),
            };
            match self.socket.write(&self.script.octets[self.sent..end]) {
                Ok(written) => {
                    self.sent += written;
                    world.tally.octets_sent += written as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A filter that has already hung up wanted the same.
                Err(_) if self.part == Part::Quit => return Ok(true),
                Err(error) => return Err(self.failure(&error, world)),
            }
        }
        Ok(true)
    }

    fn current(&self) -> &Step {
        &self.script.steps[self.step]
    }

    fn agreed(&self) -> &Scripts {
        self.scripts.as_ref().expect("messages follow the negotiation")
    }

    fn stage(&self) -> CommandCode {
        self.current().code
    }

    fn failure(&self, error: &io::Error, world: &World<'_>) -> Failure {
        let stage = self.stage();
        match (stage, error.kind()) {
            // The connection was in the making until now.
            (CommandCode::Negotiate, ErrorKind::ConnectionRefused) => world.cannot_connect(error),
            _ => wire::failure(error, stage, world.plan.patience.for_answer(stage)),
        }
    }
}
