//! The sub-command `send`: messages through a filter.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use milter_protocol::escape::{EscapedJson, EscapedLines};

use crate::arguments::Send;
use crate::client::Client;
use crate::document::document;
use crate::envelope::{Envelope, Mailbox};
use crate::failure::Failure;
use crate::mail::Mail;
use crate::mta::Patience;
use crate::outcome::{Fate, Outcome};
use crate::reason::Reason;
use crate::report::{Extent, Report};
use crate::session::{Progress, Session};
use crate::target::Target;

/// Bodies shorter than this, in octets, are sent before a progress bar could be read.
const LONG_BODY: usize = 1 << 20;

/// Why a run came to nothing.
#[derive(Debug)]
pub enum Error {
    /// The filter.
    Filter(Target, Failure),
    /// A file.
    File(PathBuf, io::Error),
    /// Options that do not go together.
    Usage(&'static str),
}

impl Error {
    /// Exit status of the run.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Filter(_, failure) => failure.exit_status(),
            Error::File(..) => 9,
            Error::Usage(_) => 2,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Filter(target, failure) => write!(f, "{target}: {failure}"),
            Error::File(path, error) => write!(f, "{}: {}", path.display(), Reason(error)),
            Error::Usage(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

/// Runs the sub-command.
pub fn run(options: &Send) -> Result<ExitCode, Error> {
    let only_message = options.output.as_deref() == Some(Path::new("-"));
    if options.output.is_some() && options.messages.len() > 1 {
        return Err(Error::Usage("--output takes the result of one message; give one message"));
    }
    if only_message && (options.diff || options.json) {
        return Err(Error::Usage("--output - writes the message and nothing else; leave out --diff and --json"));
    }
    let texts = options.messages.iter().map(|path| Ok((path, read(path)?))).collect::<Result<Vec<_>, Error>>()?;
    let mut report = if only_message || options.json { Report::silent() } else { Report::on_stdout() };
    let status = match converse(options, &texts, &mut report) {
        Ok(status) => status,
        // Whoever read the report has seen enough.
        Err(Error::File(_, error)) if error.kind() == ErrorKind::BrokenPipe => 0,
        Err(error) => return Err(error),
    };
    Ok(ExitCode::from(status))
}

fn converse(options: &Send, texts: &[(&PathBuf, Vec<u8>)], report: &mut Report) -> Result<u8, Error> {
    let filter = |failure| Error::Filter(options.connect.clone(), failure);
    let stdout = |error| Error::File("standard output".into(), error);
    let patience = options.timeout.map_or(options.mta.patience(), Patience::uniform);

    let stream = options.connect.connect(patience.connect).map_err(filter)?;
    let mut session = Session::negotiate(stream, options.mta, patience).map_err(filter)?;
    report.negotiation(&options.connect, options.mta, session.negotiation()).map_err(stdout)?;
    let helo = options.helo.as_ref().unwrap_or(&options.client.name);
    let client = Client { tls: options.tls, ..options.client.clone() };
    session.greet(&client, helo, &options.macros).map_err(filter)?;
    if let Some(octets) = options.chunk {
        session.cut_bodies(octets.into());
    }

    let mut status = Fate::Accepted.exit_status();
    for (path, text) in texts {
        let mail = Mail::parse(text);
        let envelope = envelope(options, text);
        let outcome = {
            let mut bar = Bar::new(mail.body.len());
            session.deliver(&mail, &envelope, &mut |progress| bar.show(progress)).map_err(filter)?
        };
        if status == Fate::Accepted.exit_status() {
            status = outcome.fate.exit_status();
        }
        let extent = match options.output {
            _ if options.diff => Extent::Difference,
            None => Extent::Whole,
            Some(_) => Extent::Nothing,
        };
        report.outcome(path, options.mta, &mail, &envelope, &outcome, extent).map_err(stdout)?;
        if options.json {
            let document = document(&options.connect, options.mta, path, &envelope, &outcome);
            writeln!(io::stdout(), "{}", EscapedJson(&document.to_string())).map_err(stdout)?;
        }
        if let Some(output) = &options.output {
            write(output, &outcome)?;
        }
    }
    session.quit().map_err(filter)?;
    Ok(status)
}

fn envelope(options: &Send, text: &[u8]) -> Envelope {
    let mut envelope = Envelope::suggested_by(text);
    if let Some(from) = &options.from {
        envelope.sender = Mailbox::parse(from.as_bytes());
    }
    if !options.rcpt.is_empty() {
        envelope.recipients = options.rcpt.iter().map(|rcpt| Mailbox::parse(rcpt.as_bytes())).collect();
    }
    envelope
}

pub(crate) fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().lock().read_to_end(&mut text).map(|_| text)
    } else {
        fs::read(path)
    };
    text.map_err(|error| Error::File(path.clone(), error))
}

/// Writes the resulting message, if there is one; says on standard error if there is none.
fn write(path: &PathBuf, outcome: &Outcome) -> Result<(), Error> {
    if !outcome.is_delivered() {
        let reply = outcome.reply.to_string();
        eprintln!("milter-probe: no message to write, it was {}: {}", outcome.fate, EscapedLines(reply.as_bytes()));
        return Ok(());
    }
    let text = outcome.delivery.mail().render();
    let written = if path == Path::new("-") {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&text).and_then(|()| stdout.flush())
    } else {
        fs::write(path, text)
    };
    written.map_err(|error| Error::File(path.clone(), error))
}

/// A progress bar on standard error; invisible unless that is a terminal and the body is long.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(body_len: usize) -> Self {
        let style =
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {msg}").expect("the template is valid");
        Bar((body_len >= LONG_BODY).then(|| ProgressBar::new(body_len as u64).with_style(style)))
    }

    fn show(&mut self, progress: Progress) {
        match (&self.0, progress) {
            (None, _) => {}
            (Some(bar), Progress::Sent(octets)) => bar.set_position(octets as u64),
            (Some(bar), Progress::Waiting) => {
                bar.set_message("waiting for the filter");
                bar.enable_steady_tick(Duration::from_millis(200));
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
