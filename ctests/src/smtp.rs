//! The SMTP client of a test.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, TcpStream},
    time::Duration,
};

/// What an SMTP server answered, all lines, ends of lines as LF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpReply {
    /// The lines as they came.
    pub text: String,
}

impl SmtpReply {
    /// The three digits.
    #[must_use]
    pub fn code(&self) -> &str {
        self.text.get(..3).unwrap_or_default()
    }

    /// The name that the server gave to a message it took.
    #[must_use]
    pub fn queue_id(&self) -> Option<&str> {
        let postfix = self.text.split_once("queued as ").map(|(_, id)| id.trim());
        let sendmail = || self.text.strip_prefix("250 2.0.0 ")?.strip_suffix(" Message accepted for delivery");
        postfix.or_else(sendmail)
    }
}

/// A connection to an SMTP server; closed without a word on drop.
#[derive(Debug)]
pub struct SmtpClient {
    stream: BufReader<TcpStream>,
}

impl SmtpClient {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    ///
    /// When nobody listens, or the server does not greet.
    pub fn connect(address: IpAddr, port: u16) -> std::io::Result<(SmtpClient, SmtpReply)> {
        let stream = TcpStream::connect((address, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        let mut client = SmtpClient { stream: BufReader::new(stream) };
        let greeting = client.read_reply()?;
        Ok((client, greeting))
    }

    /// Sends a line and returns the answer.
    ///
    /// # Panics
    ///
    /// When the server hangs up or is silent.
    pub fn ask(&mut self, line: &str) -> SmtpReply {
        self.send(&format!("{line}\r\n"));
        self.read_reply().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// As [`SmtpClient::ask`], for answers that have to begin with `code`.
    ///
    /// # Panics
    ///
    /// When the answer is another one.
    pub fn expect(&mut self, line: &str, code: &str) -> SmtpReply {
        let reply = self.ask(line);
        assert!(reply.text.starts_with(code), "{line}: {}", reply.text);
        reply
    }

    /// Begins a transaction: sender and recipients.
    pub fn envelope(&mut self, sender: &str, recipients: &[&str]) {
        self.expect(&format!("MAIL FROM:{sender}"), "250");
        for recipient in recipients {
            self.expect(&format!("RCPT TO:{recipient}"), "250");
        }
    }

    /// Sends DATA and a message, lines ended by LF, and returns the final answer.
    pub fn data<M: AsRef<[u8]> + ?Sized>(&mut self, message: &M) -> SmtpReply {
        self.expect("DATA", "354");
        let mut text = Vec::new();
        for line in message.as_ref().split_inclusive(|octet| *octet == b'\n') {
            if line.starts_with(b".") {
                text.push(b'.');
            }
            text.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            text.extend_from_slice(b"\r\n");
        }
        self.send(&text);
        self.ask(".")
    }

    /// Passes a message through the whole transaction and returns the name that the server gave it.
    ///
    /// # Panics
    ///
    /// When the server refuses something.
    pub fn submit(&mut self, sender: &str, recipients: &[&str], message: &str) -> String {
        self.envelope(sender, recipients);
        let reply = self.data(message);
        reply.queue_id().unwrap_or_else(|| panic!("not accepted: {}", reply.text)).to_owned()
    }

    /// Writes octets without waiting for anything.
    ///
    /// # Panics
    ///
    /// When the server has hung up.
    pub fn send<O: AsRef<[u8]> + ?Sized>(&mut self, octets: &O) {
        self.stream.get_mut().write_all(octets.as_ref()).expect("the SMTP server is there");
    }

    fn read_reply(&mut self) -> std::io::Result<SmtpReply> {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::Error::other(format!("the SMTP server hung up after '{text}'")));
            }
            text.push_str(line.trim_end());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(SmtpReply { text });
            }
            text.push('\n');
        }
    }
}
