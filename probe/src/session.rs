//! The conversation with one filter, from the MTA's side.

use std::fmt;

use milter_protocol::reply::BODY_CHUNK;
use milter_protocol::{Actions, Command, CommandCode, Reply, Steps};

use crate::answer::Answer;
use crate::client::Client;
use crate::delivery::Delivery;
use crate::envelope::{Envelope, Mailbox};
use crate::failure::Failure;
use crate::macros::{Definition, MacroLists, MacroValues};
use crate::mail::Mail;
use crate::mta::{Mta, Patience};
use crate::negotiation::{Negotiation, Treatment};
use crate::outcome::Outcome;
use crate::smtp::SmtpReply;
use crate::wire::{Frame, Stream, Wire};

/// How far a message has come; for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many octets of the body have been sent.
    Sent(usize),
    /// Everything has been sent, the filter thinks.
    Waiting,
}

/// A session with a filter. A connection carries one; a session carries any number of messages.
pub struct Session {
    wire: Wire,
    mta: Mta,
    patience: Patience,
    negotiation: Negotiation,
    lists: MacroLists,
    values: MacroValues,
    /// The command of which the filter wants no more until another one comes.
    skipping: Option<CommandCode>,
    /// The answer that covers every message of the session, and when it was given.
    settled: Option<(CommandCode, Answer)>,
    greeted: bool,
    messages: usize,
    body_chunk: usize,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("mta", &self.mta)
            .field("negotiation", &self.negotiation)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Makes the MTA's offer to the filter behind `stream` and takes its answer.
    pub fn negotiate(stream: Stream, mta: Mta, patience: Patience) -> Result<Self, Failure> {
        const STAGE: CommandCode = CommandCode::Negotiate;
        let mut wire = Wire::new(stream, mta.grouping());
        let offer = mta.offer();
        let command = Command::Negotiate { version: offer.version, actions: offer.actions, steps: offer.steps };
        wire.send(STAGE, patience.command, |out| command.encode(out))?;
        let frame = wire.receive(STAGE, patience.command)?;
        let negotiation = Negotiation::check(mta, decode(&frame, STAGE)?)?;
        let lists = MacroLists::new(mta, &negotiation.macros);
        Ok(Session {
            wire,
            mta,
            patience,
            negotiation,
            lists,
            values: MacroValues::default(),
            skipping: None,
            settled: None,
            greeted: false,
            messages: 0,
            body_chunk: BODY_CHUNK,
        })
    }

    /// What was agreed on.
    pub fn negotiation(&self) -> &Negotiation {
        &self.negotiation
    }

    /// Sends bodies in pieces of so many octets, from 1 to the 65535 of an MTA.
    pub fn cut_bodies(&mut self, octets: usize) {
        self.body_chunk = octets.clamp(1, BODY_CHUNK);
    }

    /// Reports the client and its HELO. `definitions` overrule the values of macros.
    pub fn greet(&mut self, client: &Client, helo: &str, definitions: &[Definition]) -> Result<(), Failure> {
        self.greeted = true;
        self.values = MacroValues::new(self.mta, client, definitions);
        let connect = Command::Connect { host: client.name.as_bytes(), address: client.wire_address() };
        for command in [connect, Command::Helo(helo.as_bytes())] {
            let answer = self.ask(&command)?;
            if answer != Answer::Continue {
                self.settled = Some((command.code(), answer));
                break;
            }
        }
        Ok(())
    }

    /// Passes one message to the filter. `watch` is told how far it has come.
    pub fn deliver(
        &mut self,
        mail: &Mail,
        envelope: &Envelope,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, Failure> {
        self.messages += 1;
        let mut transaction = Transaction {
            queue_id: format!("4PROBE{:04}", self.messages),
            refused: Vec::new(),
            delivery: self.delivery(mail, envelope),
            remarks: Vec::new(),
        };
        if let Some((stage, answer)) = self.settled.clone() {
            return Ok(transaction.end(self.mta, stage, answer));
        }
        let (stage, answer) = self.converse(mail, envelope, &mut transaction, watch)?;
        self.reset(stage, &answer)?;
        if answer.is_shutdown() {
            self.settled = Some((stage, answer.clone()));
        }
        Ok(transaction.end(self.mta, stage, answer))
    }

    /// Ends the session as the MTA does.
    pub fn quit(mut self) -> Result<(), Failure> {
        let decided_early = matches!(self.settled, Some((CommandCode::Connect | CommandCode::Helo, _)));
        if decided_early && self.mta == Mta::Postfix {
            return Ok(());
        }
        // Postfix forgets the HELO, and everything since, with an ABORT of its own.
        if self.greeted && self.mta == Mta::Postfix {
            self.say(&Command::Abort)?;
        }
        self.say(&Command::Quit)?;
        match self.wire.flush(CommandCode::Quit, self.patience.command) {
            // A filter that has already hung up wanted the same.
            Err(Failure::Closed { .. }) => Ok(()),
            flushed => flushed,
        }
    }

    fn delivery(&self, mail: &Mail, envelope: &Envelope) -> Delivery {
        Delivery::new(self.mta, self.negotiation.steps.contains(Steps::LEADING_SPACE), mail, envelope)
    }

    /// Everything from MAIL to the end of the message, or to the first answer that makes the rest pointless.
    fn converse(
        &mut self,
        mail: &Mail,
        envelope: &Envelope,
        transaction: &mut Transaction,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(CommandCode, Answer), Failure> {
        let (stage, answer) = self.envelope(envelope, transaction)?;
        if answer != Answer::Continue {
            return Ok((stage, answer));
        }
        let refused: Vec<_> = transaction.refused.iter().map(|(recipient, _)| recipient).collect();
        let mut left = envelope.clone();
        left.recipients.retain(|recipient| !refused.contains(&recipient));
        transaction.delivery = self.delivery(mail, &left);

        let answer = self.ask(&Command::Data)?;
        if answer != Answer::Continue {
            return Ok((CommandCode::Data, answer));
        }
        let (stage, answer) = self.content(mail, watch)?;
        if answer != Answer::Continue {
            return Ok((stage, answer));
        }
        watch(Progress::Waiting);
        if let Some(id) = mail.header(b"Message-ID") {
            self.values.set("{msg_id}", id.value.trim_ascii());
        }
        Ok((CommandCode::EndOfBody, self.end_of_message(transaction)?))
    }

    fn envelope(
        &mut self,
        envelope: &Envelope,
        transaction: &mut Transaction,
    ) -> Result<(CommandCode, Answer), Failure> {
        self.values.unset("i");
        // Postfix names a message when it has its first recipient, Sendmail at once.
        if self.mta == Mta::Sendmail {
            self.values.set("i", transaction.queue_id.as_bytes());
        }
        self.values.set_mailbox("mail", &envelope.sender);
        let answer = self.ask(&Command::Mail(slices(&envelope.sender.strings())))?;
        if answer != Answer::Continue {
            return Ok((CommandCode::Mail, answer));
        }
        for recipient in &envelope.recipients {
            self.values.set_mailbox("rcpt", recipient);
            match self.ask(&Command::Rcpt(slices(&recipient.strings())))? {
                Answer::Continue => self.values.set("i", transaction.queue_id.as_bytes()),
                Answer::Refuse(reply) if !reply.is_shutdown() => transaction.refused.push((recipient.clone(), reply)),
                other => return Ok((CommandCode::Rcpt, other)),
            }
        }
        ["{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"].into_iter().for_each(|name| self.values.unset(name));
        match transaction.refused.last() {
            Some((_, reply)) if transaction.refused.len() == envelope.recipients.len() => {
                Ok((CommandCode::Rcpt, Answer::Refuse(reply.clone())))
            }
            _ => Ok((CommandCode::Rcpt, Answer::Continue)),
        }
    }

    fn content(&mut self, mail: &Mail, watch: &mut dyn FnMut(Progress)) -> Result<(CommandCode, Answer), Failure> {
        for header in &mail.headers {
            let (name, value) = self.negotiation.header_strings(header);
            let answer = self.ask(&Command::Header { name, value })?;
            if answer != Answer::Continue {
                return Ok((CommandCode::Header, answer));
            }
        }
        let answer = self.ask(&Command::EndOfHeaders)?;
        if answer != Answer::Continue {
            return Ok((CommandCode::EndOfHeaders, answer));
        }
        let mut sent = 0;
        for piece in mail.body.chunks(self.body_chunk) {
            let answer = self.ask(&Command::Body(piece))?;
            if answer != Answer::Continue {
                return Ok((CommandCode::Body, answer));
            }
            sent += piece.len();
            watch(Progress::Sent(sent));
        }
        Ok((CommandCode::Body, Answer::Continue))
    }

    /// Sends one command, unless the filter does not want it, and takes the answer, unless the filter gives none.
    fn ask(&mut self, command: &Command<'_>) -> Result<Answer, Failure> {
        let code = command.code();
        let treatment = self.negotiation.treatment(self.mta, code);
        if treatment == Treatment::LeftOut || self.skipping == Some(code) {
            return Ok(Answer::Continue);
        }
        self.skipping = None;
        self.announce(code)?;
        if treatment == Treatment::Announced {
            return Ok(Answer::Continue);
        }
        self.say(command)?;
        if treatment == Treatment::Unanswered {
            return Ok(Answer::Continue);
        }
        loop {
            let frame = self.wire.receive(code, self.patience.for_answer(code))?;
            match decode(&frame, code)? {
                Reply::Progress if self.mta.takes_progress(code) => {}
                Reply::Skip => {
                    let answer = Answer::to_skip(self.mta, code);
                    self.skipping = (answer == Answer::Continue).then_some(code);
                    return Ok(answer);
                }
                reply => return Answer::judge(self.mta, code, &reply),
            }
        }
    }

    /// Sends the macros that belong to a command.
    fn announce(&mut self, code: CommandCode) -> Result<(), Failure> {
        let Some(pairs) = self.values.pairs(self.mta, &self.lists, code) else { return Ok(()) };
        let command = Command::Macro { letter: code.letter(), pairs };
        self.wire.send(code, self.patience.for_answer(code), |out| command.encode(out))
    }

    fn say(&mut self, command: &Command<'_>) -> Result<(), Failure> {
        let (code, mta) = (command.code(), self.mta);
        self.wire.send(code, self.patience.for_answer(code), |out| mta.encode(command, out))
    }

    /// Sends the end of the message and takes modifications until the final reply.
    fn end_of_message(&mut self, transaction: &mut Transaction) -> Result<Answer, Failure> {
        const CODE: CommandCode = CommandCode::EndOfBody;
        self.announce(CODE)?;
        self.say(&Command::EndOfBody(b""))?;
        let mut body = NewBody::default();
        loop {
            let frame = self.wire.receive(CODE, self.patience.end)?;
            let reply = decode(&frame, CODE)?;
            match reply {
                Reply::ReplaceBody(piece) => {
                    if !body.take() && self.mta == Mta::Postfix {
                        return Err(Failure::breach(CODE, "Postfix wants the pieces of a new body in a row"));
                    }
                    if !self.check_action(Actions::CHANGE_BODY, "replaced the body", transaction)
                        && self.mta == Mta::Sendmail
                    {
                        body.refused = true;
                    } else {
                        transaction.delivery.replace_body(piece);
                    }
                    continue;
                }
                Reply::Modify(modification) => {
                    let what = "changed the message";
                    self.check_action(modification.required_action(), what, transaction);
                    transaction.delivery.apply(&modification);
                }
                Reply::Progress => {}
                Reply::Skip if self.mta == Mta::Postfix => return Ok(Answer::Continue),
                Reply::Continue | Reply::Accept if body.refused => {
                    return Ok(Answer::Refuse(SmtpReply::failed(self.mta)));
                }
                reply => return Answer::judge(self.mta, CODE, &reply),
            }
            body.interrupt();
        }
    }

    /// Whether an action was negotiated; if not, it is remarked once.
    fn check_action(&self, action: Actions, what: &str, transaction: &mut Transaction) -> bool {
        let allowed = self.negotiation.actions.contains(action);
        let remark = match (self.mta, action) {
            (Mta::Sendmail, Actions::CHANGE_BODY) => "Sendmail tempfails the message",
            (Mta::Sendmail, _) => "Sendmail logs that and goes on",
            (Mta::Postfix, _) => "Postfix does not mind",
        };
        let remark = format!("the filter {what} without having negotiated {action:?}; {remark}");
        if !allowed && !transaction.remarks.contains(&remark) {
            transaction.remarks.push(remark);
        }
        allowed
    }

    /// Gives the transaction up towards the filter. Postfix does so after every message; Sendmail only when the
    /// filter still waits for the rest of one.
    fn reset(&mut self, stage: CommandCode, answer: &Answer) -> Result<(), Failure> {
        self.skipping = None;
        let unfinished = stage == CommandCode::Rcpt && matches!(answer, Answer::Refuse(_));
        if self.mta == Mta::Postfix || unfinished {
            self.say(&Command::Abort)?;
        }
        Ok(())
    }
}

/// One message in the making.
struct Transaction {
    queue_id: String,
    refused: Vec<(Mailbox, SmtpReply)>,
    delivery: Delivery,
    remarks: Vec<String>,
}

impl Transaction {
    fn end(self, mta: Mta, stage: CommandCode, answer: Answer) -> Outcome {
        let accepted = SmtpReply::accepted(mta, &self.queue_id);
        let fate = answer.fate(self.delivery.quarantine.is_some());
        let reply = match answer {
            Answer::Refuse(reply) => reply,
            Answer::Discard | Answer::Continue | Answer::Accept => accepted,
        };
        Outcome { fate, stage, reply, refused: self.refused, delivery: self.delivery, remarks: self.remarks }
    }
}

/// Where a replacement body stands.
#[derive(Default)]
struct NewBody {
    started: bool,
    ended: bool,
    refused: bool,
}

impl NewBody {
    /// A piece has come; false if the body had already ended.
    fn take(&mut self) -> bool {
        self.started = true;
        !self.ended
    }

    /// Something else has come.
    fn interrupt(&mut self) {
        self.ended = self.started;
    }
}

fn decode(frame: &Frame, stage: CommandCode) -> Result<Reply<'_>, Failure> {
    Reply::decode(frame.code, &frame.payload).map_err(|reason| Failure::Malformed { stage, reason })
}

fn slices(strings: &[Vec<u8>]) -> Vec<&[u8]> {
    strings.iter().map(Vec::as_slice).collect()
}
