//! Where an MTA delivers to: an LMTP server that keeps everything.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

use crate::Backend;

/// A message as it was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Delivery {
    /// What followed `MAIL FROM:`, ESMTP arguments included.
    pub sender: String,
    /// What followed each `RCPT TO:`, sorted.
    pub recipients: Vec<String>,
    /// Header and body, lines ended by LF; each octet is a character, as in Latin-1, so that all of them count.
    pub message: String,
}

impl Delivery {
    /// The values of all header fields of this name, unfolded, in order.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<String> {
        let mut values: Vec<String> = Vec::new();
        let mut wanted = false;
        for line in self.message.lines().take_while(|line| !line.is_empty()) {
            if line.starts_with([' ', '\t']) {
                if let (true, Some(value)) = (wanted, values.last_mut()) {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                continue;
            }
            let field = line.split_once(':').filter(|(found, _)| found.eq_ignore_ascii_case(name));
            wanted = field.is_some();
            values.extend(field.map(|(_, value)| value.trim().to_owned()));
        }
        values
    }

    /// The same delivery without what differs from one run to the next: names of messages in the queue,
    /// dates of reception, time and value of a DKIM signature, and what a verifier quotes of that value.
    #[must_use]
    pub fn stable(&self) -> Delivery {
        let mut message = self.message.clone();
        let mut hide = |text: Option<&str>, name: &str| {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                message = message.replace(text, name);
            }
        };
        for received in self.header("Received") {
            let id = received.split_once(" id ").and_then(|(_, rest)| rest.split([' ', ';']).next());
            hide(id, "QUEUED");
            hide(received.rsplit_once("; ").map(|(_, date)| date), "DATE");
        }
        for result in self.header("Authentication-Results") {
            hide(result.split_once("header.b=").and_then(|(_, rest)| rest.split([' ', ';']).next()), "QUOTED");
        }
        let mut lines: Vec<String> = Vec::new();
        let mut signature = false;
        for line in message.lines() {
            let begins = line.starts_with("DKIM-Signature:");
            signature = begins || signature && line.starts_with([' ', '\t']);
            match lines.last_mut() {
                // Where it is folded depends on the digits of the time.
                Some(field) if signature && !begins => field.push_str(line.trim()),
                _ => lines.push(line.to_owned()),
            }
        }
        for line in lines.iter_mut().filter(|line| line.starts_with("DKIM-Signature:")) {
            let kept = |tag: &&str| !["t=", "b="].iter().any(|name| tag.trim().starts_with(name));
            *line = line.split(';').filter(kept).collect::<Vec<_>>().join(";");
        }
        Delivery { message: lines.join("\n") + "\n", ..self.clone() }
    }

    /// What comes after the header.
    #[must_use]
    pub fn body(&self) -> &str {
        self.message.split_once("\n\n").map_or("", |(_, body)| body)
    }
}

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server; it ends on drop.
#[derive(Debug)]
pub struct Sink {
    deliveries: Receiver<Delivery>,
    _server: Backend,
}

impl Sink {
    /// Listens on a UNIX socket that every user may connect to.
    ///
    /// # Panics
    ///
    /// When the socket cannot be made.
    #[must_use]
    pub fn listen(path: impl AsRef<Path>) -> Sink {
        let (sender, deliveries) = mpsc::channel();
        Sink { deliveries, _server: Backend::listen(path, move |stream| converse(stream, &sender)) }
    }

    /// The next message that arrives.
    ///
    /// # Panics
    ///
    /// When none does.
    #[must_use]
    pub fn next(&self) -> Delivery {
        self.deliveries.recv_timeout(PATIENCE).expect("a message is delivered within 20 seconds")
    }

    /// So many messages, in the order of their subjects: an MTA may deliver them in any order.
    ///
    /// # Panics
    ///
    /// When fewer arrive.
    #[must_use]
    pub fn collect(&self, count: usize) -> Vec<Delivery> {
        let mut deliveries: Vec<Delivery> = (0..count).map(|_| self.next()).collect();
        deliveries.sort_by_key(|delivery| delivery.header("Subject"));
        deliveries
    }

    /// Checks that nothing has arrived that was not asked for.
    ///
    /// # Panics
    ///
    /// When something has.
    pub fn assert_empty(&self) {
        assert_eq!(self.deliveries.try_iter().collect::<Vec<_>>(), [], "deliveries that nobody expects");
    }
}

/// Serves one connection of the MTA.
fn converse(stream: &UnixStream, deliveries: &Sender<Delivery>) -> std::io::Result<()> {
    let mut writer = stream;
    let mut lines = Lines(BufReader::new(stream));
    let mut current = Delivery::default();
    writer.write_all(b"220 sink.example LMTP\r\n")?;
    while let Some(line) = lines.next()? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let after_colon = || line.split_once(':').map_or("", |(_, path)| path.trim()).to_owned();
        match verb.as_str() {
            "LHLO" => writer.write_all(b"250-sink.example\r\n250-8BITMIME\r\n250 DSN\r\n")?,
            "MAIL" => {
                current = Delivery { sender: after_colon(), ..Delivery::default() };
                writer.write_all(b"250 2.1.0 Ok\r\n")?;
            }
            "RCPT" => {
                current.recipients.push(after_colon());
                writer.write_all(b"250 2.1.5 Ok\r\n")?;
            }
            "DATA" => {
                writer.write_all(b"354 Go on\r\n")?;
                while let Some(line) = lines.next()?.filter(|line| line != ".") {
                    current.message.push_str(line.strip_prefix('.').unwrap_or(&line));
                    current.message.push('\n');
                }
                let recipients = current.recipients.len();
                current.recipients.sort();
                let _ = deliveries.send(std::mem::take(&mut current));
                writer.write_all("250 2.0.0 Kept\r\n".repeat(recipients).as_bytes())?;
            }
            "RSET" => {
                current = Delivery::default();
                writer.write_all(b"250 2.0.0 Ok\r\n")?;
            }
            "QUIT" => return writer.write_all(b"221 2.0.0 Bye\r\n"),
            _ => writer.write_all(b"502 5.5.2 Not here\r\n")?,
        }
    }
    Ok(())
}

struct Lines<'a>(BufReader<&'a UnixStream>);

impl Lines<'_> {
    /// The next line without its end; `None` when the peer has hung up.
    fn next(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.0.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Ok(Some(text.iter().map(|octet| char::from(*octet)).collect()))
    }
}
