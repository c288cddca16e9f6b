//! Who looks on: what sessions tell those who want to know more than the log says.
//!
//! Without any of its options there is no observer, and each place that tells one something costs a look at a null
//! pointer. What is told for each command is `#[cold]`, so that the compiler keeps it out of the way of mail.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use milter_protocol::negotiation::ALL_OPTIONS;
use milter_protocol::packet::{self, Field, Packet, Value};
use milter_protocol::record::Kind;
use milter_protocol::{
    Callbacks, CommandCode, Failure, Modification, ModificationError, RequestError, SmtpReply, SmtpReplyError, Stage,
    Verdict, frame,
};

use super::hints::{Deletions, Hints};
use super::options::Options;
use super::recording::{Archive, Recording};
use super::trace::Trace;
use crate::sys::memory;

/// What is observed of one run.
pub(super) struct Observers {
    trace: Option<Trace>,
    archive: Option<Archive>,
    hints: Option<Hints>,
}

/// Why observing cannot begin.
pub(super) struct ObserverError {
    pub(super) what: String,
    pub(super) error: io::Error,
}

/// Bytes that a line of the trace may take, as fields and as text, for each byte that it is about: macros without names
/// and values take most.
const LINE_MEMORY: usize = 80;

/// How long the end of a run waits for a trace to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Observers {
    /// As the options want it; `None` if they want nothing.
    pub(super) fn open(options: &Options, filter: &CStr) -> Result<Option<Arc<Self>>, ObserverError> {
        let trace = options.trace.as_ref().map(|target| {
            let opened = Trace::open(target.clone(), options.trace_format, options.trace_body, filter);
            opened.map_err(|error| ObserverError { what: format!("cannot open the trace {target}"), error })
        });
        let archive = options.record.as_ref().map(|directory| {
            let opened = Archive::open(directory, filter.to_owned());
            opened.map_err(|error| ObserverError { what: format!("cannot record into {}", directory.display()), error })
        });
        let hints = options.hints.then(|| {
            Hints::new(filter.to_owned()).map_err(|error| ObserverError { what: "no memory for hints".into(), error })
        });
        let (trace, archive, hints) = (trace.transpose()?, archive.transpose()?, hints.transpose()?);
        let wanted = trace.is_some() || archive.is_some() || hints.is_some();
        Ok(wanted.then(|| Arc::new(Observers { trace, archive, hints })))
    }

    /// Has everything written that is still on its way.
    pub(super) fn flush(&self) {
        if let Some(trace) = &self.trace {
            trace.flush(LAST_WORDS);
        }
    }
}

/// An observer of one session.
pub(super) struct Observer {
    session: u64,
    recording: Recording,
    deletions: Deletions,
    observers: Arc<Observers>,
}

impl Observer {
    pub(super) fn new(session: u64, observers: &Arc<Observers>) -> Box<Self> {
        let observers = Arc::clone(observers);
        Box::new(Observer { session, recording: Recording::default(), deletions: Deletions::default(), observers })
    }

    fn trace(&self, event: &'static str, what: &str, fields: &[Field<'_>]) {
        if let Some(trace) = &self.observers.trace {
            trace.write(self.session, event, what, fields);
        }
    }

    fn is_traced(&self) -> bool {
        self.observers.trace.is_some()
    }

    /// Whether there is a trace, and memory for a line about so many bytes. Without memory the line is left out.
    fn has_room_for(&self, bytes: usize) -> bool {
        let Some(trace) = &self.observers.trace else { return false };
        let has_room = memory::is_available(bytes.saturating_mul(LINE_MEMORY));
        if !has_room {
            trace.leave_out();
        }
        has_room
    }

    fn record(&self, kind: Kind, parts: &[&[u8]]) {
        if let Some(archive) = &self.observers.archive {
            self.recording.write(archive, self.session, kind, parts);
        }
    }

    /// Octets have come, or none at the end.
    #[cold]
    pub(super) fn received(&self, octets: &[u8]) {
        if !octets.is_empty() {
            self.record(Kind::FromMta, &[octets]);
        }
    }

    /// A command has come.
    #[cold]
    pub(super) fn command(&self, letter: u8, payload: &[u8]) {
        if letter == CommandCode::EndOfBody.letter() {
            self.deletions.clear();
        }
        if !self.has_room_for(payload.len()) {
            return;
        }
        let Packet { name, fields } = Packet::of_command(letter, payload);
        self.trace("command", name, &fields);
    }

    /// Replies have been sent, and then `packet`, given as its head and its payload; there may be none.
    #[cold]
    pub(super) fn sent(&self, mut replies: &[u8], packet: [&[u8]; 2]) {
        self.record(Kind::FromFilter, &[replies, packet[0], packet[1]]);
        if !self.is_traced() {
            return;
        }
        while let Ok(Some(header)) = frame::parse(replies, usize::MAX) {
            let (reply, rest) = replies.split_at(header.frame_len());
            self.sent_reply(header.code, &reply[frame::HEADER_LEN..]);
            replies = rest;
        }
        if let Ok(Some(header)) = frame::parse(packet[0], usize::MAX) {
            self.sent_reply(header.code, packet[1]);
        }
    }

    fn sent_reply(&self, letter: u8, payload: &[u8]) {
        if !self.has_room_for(payload.len()) {
            return;
        }
        let Packet { name, fields } = Packet::of_reply(letter, payload);
        self.trace("reply", name, &fields);
    }

    /// A callback has returned, or ended its thread.
    #[cold]
    pub(super) fn returned(&self, callback: Callbacks, value: Option<c_int>, duration: Duration) {
        if !self.is_traced() {
            return;
        }
        let number = value.unwrap_or_default().to_string();
        let verdict = match (value, callback) {
            (None, _) => Value::Word("thread-ended"),
            (Some(ALL_OPTIONS), Callbacks::NEGOTIATE) => Value::Word("SMFIS_ALL_OPTS"),
            (Some(value), _) => {
                Verdict::from_c(value).map_or(Value::Text(number.as_bytes()), |verdict| Value::Word(verdict.c_name()))
            }
        };
        let fields = [("verdict", verdict), ("seconds", Value::Seconds(duration))];
        self.trace("callback", callback.c_name(), &fields);
    }

    /// The filter has called the library: with what, and why that has failed if it has.
    fn called(&self, call: &str, fields: Vec<Field<'_>>, outcome: Result<(), impl fmt::Display>) {
        let bytes = |(_, value): &Field<'_>| match value {
            Value::Text(bytes) | Value::Content(bytes) => bytes.len(),
            _ => 0,
        };
        if !self.has_room_for(fields.iter().map(bytes).sum()) {
            return;
        }
        let reason = outcome.err().map(|reason| reason.to_string());
        let mut fields = fields;
        fields.push(("result", Value::Word(if reason.is_none() { "MI_SUCCESS" } else { "MI_FAILURE" })));
        fields.extend(reason.as_ref().map(|reason| ("reason", Value::Text(reason.as_bytes()))));
        self.trace("call", call, &fields);
    }

    /// The filter has asked for a change of the message.
    #[cold]
    pub(super) fn modified(&self, modification: &Modification<'_>, outcome: Result<(), CallError>) {
        let call = call_name(modification);
        self.advise(call, outcome);
        if let Some(hints) = &self.observers.hints {
            hints.modification(call, modification, &self.deletions);
        }
        self.called(call, Packet::of_modification(modification).fields, outcome);
    }

    /// The filter has asked for another body.
    pub(super) fn replaced_body(&self, body: &[u8], outcome: Result<(), CallError>) {
        self.advise("smfi_replacebody", outcome);
        self.called("smfi_replacebody", vec![("body", Value::Content(body))], outcome);
    }

    fn advise(&self, call: &str, outcome: Result<(), CallError>) {
        if let (Some(hints), Err(CallError::Modification(ModificationError::Obstacle(obstacle)))) =
            (&self.observers.hints, outcome)
        {
            hints.obstacle(call, obstacle);
        }
    }

    /// The filter has told the MTA that it is still working.
    pub(super) fn progressed(&self, outcome: Result<(), CallError>) {
        self.called("smfi_progress", Vec::new(), outcome);
    }

    /// The filter has called the library with arguments that cannot be used.
    pub(super) fn refused(&self, call: &str) {
        self.called(call, Vec::new(), Err("an argument is NULL, empty or out of range"));
    }

    /// The filter has stored a reply, or something that is none.
    pub(super) fn set_reply(&self, call: &str, reply: &Result<SmtpReply, SmtpReplyError>) {
        if let (Some(hints), Err(error)) = (&self.observers.hints, reply) {
            hints.bad_reply(call, *error);
        }
        let text = reply.as_ref().ok().map(|reply| ("text", Value::Text(reply.text())));
        self.called(call, text.into_iter().collect(), reply.as_ref().map(drop));
    }

    /// The filter has asked the MTA for macros.
    pub(super) fn requested_macros(&self, stage: Stage, names: &[u8], outcome: Result<(), RequestError>) {
        let fields = vec![("stage", Value::Word(packet::stage_name(stage))), ("macros", Value::Text(names))];
        self.called("smfi_setsymlist", fields, outcome);
    }

    /// The filter has looked up a macro.
    #[cold]
    pub(super) fn looked_up(&self, name: &[u8], value: Option<&[Cell<u8>]>) {
        if !self.has_room_for(name.len() + value.map_or(0, <[_]>::len)) {
            return;
        }
        let value = value.map(|value| value.iter().map(Cell::get).take_while(|&octet| octet != 0).collect::<Vec<_>>());
        let value = value.as_deref().map_or(Value::Word("NULL"), Value::Text);
        self.trace("call", "smfi_getsymval", &[("name", Value::Text(name)), ("value", value)]);
    }

    /// A line about the session goes to the log.
    pub(super) fn logged(&self, text: fmt::Arguments<'_>) {
        if !self.is_traced() {
            return;
        }
        self.trace("log", "line", &[("text", Value::Text(text.to_string().as_bytes()))]);
    }

    /// The session is over.
    pub(super) fn ended(&self, failure: Option<Failure>) {
        let reason = failure.map_or_else(|| "the MTA said quit".to_owned(), |failure| failure.to_string());
        self.record(Kind::End, &[reason.as_bytes()]);
        self.trace("session", "end", &[("reason", Value::Text(reason.as_bytes()))]);
    }
}

/// Why a call of the filter has failed.
#[derive(Clone, Copy)]
pub(super) enum CallError {
    Modification(ModificationError),
    Unreachable,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Modification(error) => error.fmt(f),
            CallError::Unreachable => f.write_str("the MTA cannot be reached"),
        }
    }
}

fn call_name(modification: &Modification<'_>) -> &'static str {
    match modification {
        Modification::AddHeader { .. } => "smfi_addheader",
        Modification::InsertHeader { .. } => "smfi_insheader",
        Modification::ChangeHeader { .. } => "smfi_chgheader",
        Modification::ChangeSender { .. } => "smfi_chgfrom",
        Modification::AddRecipient { .. } => "smfi_addrcpt",
        Modification::AddRecipientWithArguments { .. } => "smfi_addrcpt_par",
        Modification::DeleteRecipient { .. } => "smfi_delrcpt",
        Modification::Quarantine { .. } => "smfi_quarantine",
    }
}
