//! Sender and recipients, as SMTP gives them.

use std::fmt;

use mail_parser::{Address, HeaderValue, Message, MessageParser};
use milter_protocol::Escaped;

/// An address of the envelope with the ESMTP arguments that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Without angle brackets; empty for the null sender.
    pub address: Vec<u8>,
    /// Such as `SIZE=100` or `NOTIFY=NEVER`.
    pub arguments: Vec<Vec<u8>>,
}

impl Mailbox {
    /// Reads an address, with or without angle brackets, and the arguments that follow it after blanks.
    pub fn parse(text: &[u8]) -> Self {
        let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let address = bare(words.next().unwrap_or_default()).to_vec();
        Mailbox { address, arguments: words.map(<[u8]>::to_vec).collect() }
    }

    /// The address in angle brackets.
    pub fn path(&self) -> Vec<u8> {
        [b"<", &self.address[..], b">"].concat()
    }

    /// The part after the last `@`, if any.
    pub fn domain(&self) -> Option<&[u8]> {
        let at = self.address.iter().rposition(|&octet| octet == b'@')?;
        Some(&self.address[at + 1..])
    }

    /// The path and the arguments, each a string of MAIL or RCPT.
    pub fn strings(&self) -> Vec<Vec<u8>> {
        std::iter::once(self.path()).chain(self.arguments.iter().cloned()).collect()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", Escaped(&self.address))?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", Escaped(argument)))
    }
}

/// An address without angle brackets.
pub fn bare(address: &[u8]) -> &[u8] {
    address.strip_prefix(b"<").and_then(|inner| inner.strip_suffix(b">")).unwrap_or(address)
}

/// Who sends a message, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub sender: Mailbox,
    /// The recipients in order.
    pub recipients: Vec<Mailbox>,
}

impl Envelope {
    /// Sender of messages that name none.
    pub const SENDER: &str = "sender@example.org";
    /// Recipient of messages that name none.
    pub const RECIPIENT: &str = "recipient@example.org";

    /// The envelope that the headers of a message suggest: the sender from `Return-Path`, `Sender` or `From`, the
    /// recipients from `To`, `Cc` and `Bcc`.
    pub fn suggested_by(text: &[u8]) -> Self {
        let message = MessageParser::new().with_address_headers().parse_headers(text);
        let named = |headers: [&'static str; 3]| {
            headers.into_iter().flat_map(|name| message.iter().flat_map(move |message| addresses(message, name)))
        };
        let sender = named(["Return-Path", "Sender", "From"]).next();
        let mut recipients: Vec<Mailbox> = named(["To", "Cc", "Bcc"]).collect();
        if recipients.is_empty() {
            recipients.push(Mailbox::parse(Self::RECIPIENT.as_bytes()));
        }
        Envelope { sender: sender.unwrap_or_else(|| Mailbox::parse(Self::SENDER.as_bytes())), recipients }
    }
}

fn addresses<'m>(message: &'m Message<'_>, header: &'static str) -> impl Iterator<Item = Mailbox> + use<'m> {
    let found = message.header(header).and_then(HeaderValue::as_address);
    let texts = found.into_iter().flat_map(Address::iter).filter_map(|address| address.address.as_deref());
    // A blank or a NUL would turn one string of the envelope into two.
    let whole = texts.filter(|text| !text.contains(|found: char| found.is_whitespace() || found.is_control()));
    whole.map(|text| Mailbox::parse(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mailbox(address: &str) -> Mailbox {
        Mailbox { address: address.into(), arguments: Vec::new() }
    }

    #[test]
    fn arguments_follow_the_address() {
        let sender = Mailbox::parse(b"<a@b> SIZE=5  BODY=8BITMIME");
        assert_eq!(sender.to_string(), "<a@b> SIZE=5 BODY=8BITMIME");
        assert_eq!(sender.strings(), [&b"<a@b>"[..], b"SIZE=5", b"BODY=8BITMIME"]);
        assert_eq!(sender.domain(), Some(&b"b"[..]));
        assert_eq!(Mailbox::parse(b"<>"), mailbox(""));
        assert_eq!(Mailbox::parse(b""), mailbox(""));
        assert_eq!(Mailbox::parse(b"local").domain(), None);
    }

    #[test]
    fn headers_suggest_an_envelope() {
        let text = b"From: \"A, B\" <a@example.org>\nTo: x@example.net, Team: y@example.net, z@example.net;\n\
                     Cc: (comment) c@example.net\nSubject: To: nobody\n\nTo: body@example.net\n";
        let envelope = Envelope::suggested_by(text);
        assert_eq!(envelope.sender, mailbox("a@example.org"));
        let expected = ["x@example.net", "y@example.net", "z@example.net", "c@example.net"].map(mailbox);
        assert_eq!(envelope.recipients, expected);
    }

    #[test]
    fn a_message_without_addresses_gets_examples() {
        let envelope = Envelope::suggested_by(b"Subject: none\n\n");
        assert_eq!(envelope.sender, mailbox(Envelope::SENDER));
        assert_eq!(envelope.recipients, [mailbox(Envelope::RECIPIENT)]);
        assert_eq!(Envelope::suggested_by(b"").sender, mailbox(Envelope::SENDER));
    }

    proptest! {
        #[test]
        fn strings_of_the_envelope_are_whole(noise in prop::collection::vec(any::<u8>(), 0..80)) {
            let envelope = Envelope::suggested_by(&[b"From: a@x\nTo: b@x, ", &noise[..], b"\n\n"].concat());
            for mailbox in envelope.recipients.iter().chain([&envelope.sender]) {
                prop_assert!(!mailbox.address.contains(&0), "{mailbox}");
                prop_assert!(mailbox.arguments.is_empty(), "{mailbox}");
            }
        }
    }
}
