//! The mail that a load test passes to a filter.

use crate::client::Client;
use crate::envelope::{Envelope, Mailbox};
use crate::macros::Definition;
use crate::mail::{Mail, with_crlf};
use crate::mta::Mta;

/// Octets of a made-up header, with its name.
const HEADER_LEN: usize = 100;

/// What made-up bodies consist of.
const LINE: &str = "The quick brown fox jumps over the lazy dog and then goes home to sleep it off.\n";

/// What is passed to the filter again and again, and by which MTA.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The MTA.
    pub mta: Mta,
    /// Its client; it gives its name in HELO.
    pub client: Client,
    /// Values of macros beyond what the MTA would say.
    pub macros: Vec<Definition>,
    /// Sender and recipients.
    pub envelope: Envelope,
    /// The message.
    pub mail: Mail,
}

impl Workload {
    /// A message of ten headers of 100 octets each and a body of `body_len` octets.
    pub fn made_up(mta: Mta, recipients: usize, body_len: usize) -> Self {
        let mut text = String::new();
        for (name, value) in [
            ("Received", "from client.example.org (client.example.org [192.0.2.25]) by mta.example.org; id"),
            ("From", "\"A Sender With A Name\" <sender@example.org>"),
            ("To", "\"The Recipients Of This\" <user0@example.net>"),
            ("Subject", "A message that a load test has made up"),
            ("Date", "Thu, 01 Jan 2026 12:00:00 +0000"),
            ("Message-ID", "<20260101120000.load@mta.example.org>"),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=us-ascii"),
            ("X-Mailer", "milter-probe"),
            ("X-Note", "nothing to see here"),
        ] {
            let start = text.len();
            text.push_str(&format!("{name}: {value}"));
            // A comment, which may stand in most of them, makes all of one length.
            let missing = HEADER_LEN.saturating_sub(text.len() - start + 3);
            text.push_str(&format!(" ({})\n", "x".repeat(missing)));
        }
        text.push('\n');
        let mut mail = Mail::parse(text.as_bytes());
        let body: Vec<u8> = LINE.bytes().cycle().take(body_len).collect();
        mail.body = with_crlf(&body);
        mail.body.truncate(body_len);
        let recipient = |number| Mailbox::parse(format!("user{number}@example.net").as_bytes());
        let envelope = Envelope {
            sender: Mailbox::parse(b"sender@example.org SIZE=2048 BODY=8BITMIME"),
            recipients: (0..recipients).map(recipient).collect(),
        };
        let client = "client.example.org[192.0.2.25]".parse().expect("a client");
        Workload { client, ..Workload::of(mta, mail, envelope) }
    }

    /// A message that exists, from a client on the same host.
    pub fn of(mta: Mta, mail: Mail, envelope: Envelope) -> Self {
        Workload { mta, client: Client::default(), macros: Vec::new(), envelope, mail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_messages_have_the_promised_size() {
        let workload = Workload::made_up(Mta::Postfix, 3, 2048);
        assert_eq!(workload.envelope.recipients.len(), 3);
        assert_eq!((workload.mail.headers.len(), workload.mail.body.len()), (10, 2048));
        for header in &workload.mail.headers {
            assert_eq!(header.name.len() + 1 + header.value.len(), HEADER_LEN, "{header:?}");
        }
        assert!(Workload::made_up(Mta::Sendmail, 1, 0).mail.body.is_empty());
    }
}
