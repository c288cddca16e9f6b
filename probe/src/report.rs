//! What happened, for human eyes.

use std::collections::HashSet;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anstyle::Style;

use milter_protocol::escape::EscapedLines;

use crate::delivery::Change;
use crate::diff::{self, Line};
use crate::envelope::Envelope;
use crate::failure::stage_name;
use crate::mail::{Header, LineEnd, Mail};
use crate::mta::Mta;
use crate::negotiation::Negotiation;
use crate::outcome::{Fate, Outcome};
use crate::palette::{ADDED, BAD, FAINT, FAIR, GOOD, HEADING, PLACE, Palette, REMOVED};
use crate::target::Target;

/// Lines of a body that a terminal is shown.
const TERMINAL_LINES: usize = 100;

/// Columns of the left side of a table.
const LEFT: usize = 18;

/// How much of the resulting message a report shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Where it differs from the message before.
    Difference,
    /// Nothing.
    Nothing,
}

/// Writes reports.
pub struct Report {
    out: Box<dyn Write>,
    palette: Palette,
    /// On a terminal, control characters are escaped and bodies are cut; a pipe gets every octet as it is.
    terminal: bool,
    started: bool,
}

impl Report {
    /// For people at a terminal, or for what reads from the pipe.
    pub fn on_stdout() -> Self {
        let stdout = io::stdout();
        let (palette, terminal) = (Palette::for_stream(&stdout), stdout.is_terminal());
        Report { out: Box::new(BufWriter::new(stdout)), palette, terminal, started: false }
    }

    /// For nobody.
    pub fn silent() -> Self {
        Self::plain(io::sink())
    }

    /// Without colours, to anywhere.
    pub fn plain(out: impl Write + 'static) -> Self {
        Report { out: Box::new(out), palette: Palette::PLAIN, terminal: false, started: false }
    }

    /// What filter and MTA agreed on.
    pub fn negotiation(&mut self, target: &Target, mta: Mta, negotiation: &Negotiation) -> io::Result<()> {
        self.heading(&format!("Filter at {target}, asked by {}", mta.name()))?;
        negotiation.words().iter().try_for_each(|(about, what)| self.row(about, what))?;
        self.out.flush()
    }

    /// What became of a message.
    pub fn outcome(
        &mut self,
        path: &Path,
        mta: Mta,
        mail: &Mail,
        envelope: &Envelope,
        outcome: &Outcome,
        extent: Extent,
    ) -> io::Result<()> {
        self.heading(&format!("Message {}", path.display()))?;
        self.envelope(envelope)?;
        for (recipient, reply) in &outcome.refused {
            self.row("refused", &format!("{recipient}: {}", clean(reply.to_string().as_bytes())))?;
        }

        let style = match outcome.fate {
            Fate::Accepted => GOOD,
            Fate::Quarantined | Fate::Discarded => FAIR,
            Fate::Rejected | Fate::Deferred => BAD,
        };
        self.heading(&format!(
            "Verdict: {} at {}",
            self.palette.paint(style, outcome.fate),
            stage_name(outcome.stage)
        ))?;
        self.row("reply to client", &clean(outcome.reply.to_string().as_bytes()))?;
        outcome.remarks.iter().try_for_each(|remark| self.row("remark", &clean(remark.as_bytes())))?;

        let changes = &outcome.delivery.changes;
        if !changes.is_empty() {
            self.heading("Changes, in the order in which the filter asked for them")?;
            for (number, change) in changes.iter().enumerate() {
                self.change(number + 1, change, mail)?;
            }
        }
        if outcome.is_delivered() {
            match extent {
                Extent::Whole => self.message(mta, mail, envelope, outcome)?,
                Extent::Difference => self.difference(path, mta, mail, &outcome.delivery.mail())?,
                Extent::Nothing => {}
            }
        }
        self.out.flush()
    }

    fn envelope(&mut self, envelope: &Envelope) -> io::Result<()> {
        self.row("from", &envelope.sender.to_string())?;
        envelope.recipients.iter().try_for_each(|recipient| self.row("to", &recipient.to_string()))
    }

    fn change(&mut self, number: usize, change: &Change, mail: &Mail) -> io::Result<()> {
        let (what, old, new) = match change {
            Change::AddHeader(header) => (format!("add header {}", clean(&header.name)), None, Some(text(header))),
            Change::InsertHeader(index, header) => {
                (format!("insert header {} at {index}", clean(&header.name)), None, Some(text(header)))
            }
            Change::ChangeHeader(index, header, old) => {
                let missing = if old.is_none() { ", which is not there: add it" } else { "" };
                let what = format!("change header {} no. {index}{missing}", clean(&header.name));
                (what, old.as_ref().map(text), Some(text(header)))
            }
            Change::DeleteHeader(index, name, old) => {
                let missing = if old.is_none() { ", which is not there" } else { "" };
                (format!("delete header {} no. {index}{missing}", clean(name)), old.as_ref().map(text), None)
            }
            Change::ChangeSender(sender) => ("change sender".to_owned(), None, Some(sender.to_string())),
            Change::AddRecipient(recipient) => ("add recipient".to_owned(), None, Some(recipient.to_string())),
            Change::DeleteRecipient(recipient, true) => {
                ("delete recipient".to_owned(), Some(recipient.to_string()), None)
            }
            Change::DeleteRecipient(recipient, false) => {
                (format!("delete recipient {recipient}, who is not there"), None, None)
            }
            Change::ReplaceBody(octets, packets) => {
                let packets = if *packets == 1 { "1 packet".to_owned() } else { format!("{packets} packets") };
                (format!("replace body: {octets} octets in {packets}, before {}", mail.body.len()), None, None)
            }
            Change::Quarantine(reason) => (format!("quarantine: {}", clean(reason)), None, None),
        };
        writeln!(self.out, "  {number:2}. {what}")?;
        for (sign, style, text) in [("-", REMOVED, old), ("+", ADDED, new)] {
            for line in text.iter().flat_map(|text| text.lines()) {
                writeln!(self.out, "      {}", self.palette.paint(style, format_args!("{sign} {line}")))?;
            }
        }
        Ok(())
    }

    fn message(&mut self, mta: Mta, mail: &Mail, envelope: &Envelope, outcome: &Outcome) -> io::Result<()> {
        let delivery = &outcome.delivery;
        let delivered = delivery.mail();
        let held = if outcome.fate == Fate::Quarantined { ", once released" } else { "" };
        self.heading(&format!("The message as {} would deliver it{held}", mta.name()))?;
        if delivery.envelope != *envelope {
            self.envelope(&delivery.envelope)?;
        }
        writeln!(self.out)?;
        let trace = delivery.trace_position();
        for (position, header) in delivered.headers.iter().enumerate() {
            if position == trace {
                self.trace(mta)?;
            }
            let is_new = !mail.headers.contains(header);
            let mut text = Vec::new();
            header.render(LineEnd::Lf, &mut text);
            self.lines(&text, usize::MAX, |_| is_new)?;
        }
        if trace == delivered.headers.len() {
            self.trace(mta)?;
        }
        writeln!(self.out)?;
        let before: HashSet<&[u8]> = mail.body.split(|&octet| octet == b'\n').collect();
        let body = Mail { line_end: LineEnd::Lf, ..delivered }.body_text();
        let is_new = |line: &[u8]| !before.contains(&[line, b"\r"].concat()[..]);
        self.lines(&body, if self.terminal { TERMINAL_LINES } else { usize::MAX }, is_new)
    }

    fn difference(&mut self, path: &Path, mta: Mta, before: &Mail, after: &Mail) -> io::Result<()> {
        // Carriage returns of line ends would only be in the way.
        let text = |mail: &Mail| Mail { line_end: LineEnd::Lf, ..mail.clone() }.render();
        let (before, after) = (text(before), text(after));
        let lines = diff::unified(&before, &after);
        if lines.is_empty() {
            return self.heading("The message is as it was");
        }
        self.heading("What differs in the message")?;
        writeln!(self.out, "{}", self.palette.paint(HEADING, format_args!("--- {}", path.display())))?;
        let delivered = format_args!("+++ {} as {} would deliver it", path.display(), mta.name());
        writeln!(self.out, "{}", self.palette.paint(HEADING, delivered))?;
        for line in lines {
            let (style, sign, text) = match &line {
                Line::Place(place) => (PLACE, "", place.as_bytes()),
                Line::Same(text) => (Style::new(), " ", *text),
                Line::Removed(text) => (REMOVED, "-", *text),
                Line::Added(text) => (ADDED, "+", *text),
            };
            if self.terminal || self.palette.is_coloured() {
                writeln!(self.out, "{}", self.palette.paint(style, format_args!("{sign}{}", clean(text))))?;
            } else {
                self.out.write_all(&[sign.as_bytes(), text, b"\n"].concat())?;
            }
        }
        Ok(())
    }

    fn trace(&mut self, mta: Mta) -> io::Result<()> {
        writeln!(
            self.out,
            "{}",
            self.palette.paint(FAINT, format_args!("Received: (put here by {} itself)", mta.name()))
        )
    }

    fn lines(&mut self, text: &[u8], limit: usize, is_new: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let mut lines = text.split_inclusive(|&octet| octet == b'\n');
        for line in lines.by_ref().take(limit) {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if !self.terminal {
                self.out.write_all(line)?;
                writeln!(self.out)?;
            } else if is_new(line) {
                writeln!(self.out, "{}", self.palette.paint(ADDED, clean(line)))?;
            } else {
                writeln!(self.out, "{}", clean(line))?;
            }
        }
        match lines.count() {
            0 => Ok(()),
            more => {
                let note = format!("({more} more lines; --output FILE writes them all)");
                writeln!(self.out, "{}", self.palette.paint(FAINT, note))
            }
        }
    }

    fn heading(&mut self, text: &str) -> io::Result<()> {
        if self.started {
            writeln!(self.out)?;
        }
        self.started = true;
        writeln!(self.out, "{}", self.palette.paint(HEADING, text))
    }

    fn row(&mut self, left: &str, right: &str) -> io::Result<()> {
        for (number, line) in right.lines().enumerate() {
            writeln!(self.out, "  {:LEFT$}{line}", if number == 0 { left } else { "" })?;
        }
        Ok(())
    }
}

/// A header as text.
fn text(header: &Header) -> String {
    let mut text = Vec::new();
    header.render(LineEnd::Lf, &mut text);
    clean(&text)
}

/// Text that leads no terminal astray; line ends and tabs stay.
fn clean(text: &[u8]) -> String {
    EscapedLines(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_sent() {
        assert_eq!(clean(b"a\x1b[31m\tb\r\n\xe4"), "a\\u{1b}[31m\tb\\r\n\\xe4");
    }
}
