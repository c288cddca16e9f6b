//! What an MTA sends under one agreement, as octets made once and sent many times.

use std::rc::Rc;

use milter_protocol::reply::BODY_CHUNK;
use milter_protocol::{Command, CommandCode};

use super::workload::Workload;
use crate::macros::{MacroLists, MacroValues};
use crate::mta::Mta;
use crate::negotiation::{Negotiation, Treatment};

/// One command with its macros.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The command.
    pub(super) code: CommandCode,
    /// Where its macros end in the octets of the script; they begin where the step before ends.
    pub(super) macros_end: usize,
    /// Where it ends.
    pub(super) end: usize,
    /// Whether the filter answers it.
    pub(super) answered: bool,
}

impl Step {
    /// Whether an SMTP client causes it by a command of its own. Headers and body come in one go.
    pub(super) fn is_of_client(&self) -> bool {
        use CommandCode::{Abort, Data, Helo, Mail, Quit, Rcpt};
        matches!(self.code, Helo | Mail | Rcpt | Data | Abort | Quit)
    }
}

/// A part of a session, from its first packet to its last.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// All packets in a row.
    pub(super) octets: Vec<u8>,
    /// What they are.
    pub(super) steps: Vec<Step>,
}

impl Script {
    /// The MTA's offer.
    pub(super) fn offer(mta: Mta) -> Self {
        let offer = mta.offer();
        let mut script = Script::default();
        let command = Command::Negotiate { version: offer.version, actions: offer.actions, steps: offer.steps };
        script.push(mta, &command, 0, true);
        script
    }

    fn push(&mut self, mta: Mta, command: &Command<'_>, macros_end: usize, answered: bool) {
        mta.encode(command, &mut self.octets);
        self.steps.push(Step { code: command.code(), macros_end, end: self.octets.len(), answered });
    }

    /// Gives the message before up; for the start of what follows it.
    fn push_abort(&mut self, mta: Mta) {
        let start = self.octets.len();
        self.push(mta, &Command::Abort, start, false);
    }

    /// Where a step begins in the octets.
    pub(super) fn start(&self, step: usize) -> usize {
        step.checked_sub(1).map_or(0, |before| self.steps[before].end)
    }
}

/// Everything after the negotiation.
#[derive(Debug)]
pub(super) struct Scripts {
    /// CONNECT and HELO.
    pub(super) greeting: Rc<Script>,
    /// One message. The first step gives up the message before; without one, start at the second.
    pub(super) message: Rc<Script>,
    /// The end of the session. The first step gives up the message before; without one, start at the second.
    pub(super) quit: Rc<Script>,
}

impl Scripts {
    /// Writes everything down that the MTA of `workload` says under this agreement.
    pub(super) fn new(workload: &Workload, negotiation: &Negotiation) -> Self {
        let mta = workload.mta;
        let mut writer = Writer {
            mta,
            negotiation,
            lists: MacroLists::new(mta, &negotiation.macros),
            values: MacroValues::new(mta, &workload.client, &workload.macros),
            script: Script::default(),
        };
        let client = &workload.client;
        writer.say(&Command::Connect { host: client.name.as_bytes(), address: client.wire_address() });
        writer.say(&Command::Helo(client.name.as_bytes()));
        let greeting = writer.take();

        writer.message(workload);
        let message = writer.take();

        writer.script.push_abort(mta);
        // Postfix forgets the HELO, and everything since, with an ABORT of its own.
        if mta == Mta::Postfix {
            writer.script.push_abort(mta);
        }
        writer.say(&Command::Quit);
        Scripts { greeting, message, quit: writer.take() }
    }
}

struct Writer<'a> {
    mta: Mta,
    negotiation: &'a Negotiation,
    lists: MacroLists,
    values: MacroValues,
    script: Script,
}

impl Writer<'_> {
    fn take(&mut self) -> Rc<Script> {
        Rc::new(std::mem::take(&mut self.script))
    }

    fn say(&mut self, command: &Command<'_>) {
        let code = command.code();
        let treatment = self.negotiation.treatment(self.mta, code);
        if treatment == Treatment::LeftOut {
            return;
        }
        let octets = &mut self.script.octets;
        if let Some(pairs) = self.values.pairs(self.mta, &self.lists, code) {
            self.mta.encode(&Command::Macro { letter: code.letter(), pairs }, octets);
        }
        let macros_end = octets.len();
        if treatment == Treatment::Announced {
            self.script.steps.push(Step { code, macros_end, end: macros_end, answered: false });
        } else {
            self.script.push(self.mta, command, macros_end, treatment == Treatment::Answered);
        }
    }

    fn message(&mut self, workload: &Workload) {
        const QUEUE_ID: &[u8] = b"4PROBELOAD";
        self.script.push_abort(self.mta);
        self.values.unset("i");
        // Postfix names a message when it has its first recipient, Sendmail at once.
        if self.mta == Mta::Sendmail {
            self.values.set("i", QUEUE_ID);
        }
        let envelope = &workload.envelope;
        self.values.set_mailbox("mail", &envelope.sender);
        let strings = envelope.sender.strings();
        self.say(&Command::Mail(strings.iter().map(Vec::as_slice).collect()));
        for recipient in &envelope.recipients {
            self.values.set_mailbox("rcpt", recipient);
            let strings = recipient.strings();
            self.say(&Command::Rcpt(strings.iter().map(Vec::as_slice).collect()));
            self.values.set("i", QUEUE_ID);
        }
        ["{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"].into_iter().for_each(|name| self.values.unset(name));
        self.say(&Command::Data);
        for header in &workload.mail.headers {
            let (name, value) = self.negotiation.header_strings(header);
            self.say(&Command::Header { name, value });
        }
        self.say(&Command::EndOfHeaders);
        for piece in workload.mail.body.chunks(BODY_CHUNK) {
            self.say(&Command::Body(piece));
        }
        if let Some(id) = workload.mail.header(b"Message-ID") {
            self.values.set("{msg_id}", id.value.trim_ascii());
        }
        self.say(&Command::EndOfBody(b""));
    }
}

#[cfg(test)]
mod tests {
    use milter_protocol::{Actions, Steps};

    use super::*;

    fn message(mta: Mta, steps: Steps) -> Rc<Script> {
        let negotiation = Negotiation { version: 6, actions: Actions::empty(), steps, macros: Vec::new() };
        Scripts::new(&Workload::made_up(mta, 1, 2048), &negotiation).message
    }

    fn packets(script: &Script) -> usize {
        let mut rest = &script.octets[..];
        let mut count = 0;
        while let Some(header) = milter_protocol::frame::parse(rest, usize::MAX).unwrap() {
            rest = &rest[header.frame_len()..];
            count += 1;
        }
        count
    }

    #[test]
    fn a_message_has_the_packets_of_its_mta() {
        // 16 commands with an answer; Postfix announces each, Sendmail MAIL, RCPT and the end. One ABORT before.
        for (mta, count) in [(Mta::Postfix, 33), (Mta::Sendmail, 20)] {
            let script = message(mta, Steps::empty());
            assert_eq!(packets(&script), count, "{mta:?}");
            assert_eq!(script.steps.iter().filter(|step| step.answered).count(), 16);
        }
    }

    #[test]
    fn agreements_shorten_it() {
        let answered = |steps| message(Mta::Postfix, steps).steps.iter().filter(|step| step.answered).count();
        assert_eq!(answered(Steps::NO_REPLY), 1);
        assert_eq!(answered(Steps::NO_HEADERS | Steps::NO_BODY), 5);
        let script = message(Mta::Postfix, Steps::NO_MAIL);
        let mail = script.steps.iter().find(|step| step.code == CommandCode::Mail).unwrap();
        assert_eq!((mail.macros_end, mail.answered), (mail.end, false), "macros alone");
    }
}
