//! Recognising peers that do not speak milter at all.
//!
//! Somebody points a web browser, a mail server or another daemon at a filter's port. Its first octets read as an
//! absurd packet length, and whoever operates the filter sees only that number unless the text behind it is shown.

use std::fmt;

/// What the first octets of a conversation look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranger {
    start: [u8; 5],
    kind: Option<&'static str>,
}

/// First octets, and who sends them.
const KNOWN: [(&[u8], &str); 19] = [
    (b"GET ", "an HTTP client"),
    (b"POST", "an HTTP client"),
    (b"HEAD", "an HTTP client"),
    (b"PUT ", "an HTTP client"),
    (b"OPTIO", "an HTTP client"),
    (b"CONNE", "an HTTP client"),
    (b"PRI *", "an HTTP/2 client"),
    (b"HTTP/", "an HTTP server"),
    (b"EHLO", "an SMTP client"),
    (b"HELO", "an SMTP client"),
    (b"LHLO", "an LMTP client"),
    (b"MAIL", "an SMTP client"),
    (b"QUIT", "an SMTP client"),
    (b"220 ", "an SMTP server"),
    (b"SSH-", "an SSH client"),
    (b"PROXY", "a proxy that announces the client's address"),
    (b"PING", "a client of clamd"),
    (b"zINST", "a client of clamd"),
    (b"UNKNO", "a server of another protocol"),
];

impl Stranger {
    /// Recognises a peer by its first octets: by name where the protocol is known, as text where it is printable.
    pub fn recognise(start: &[u8; 5]) -> Option<Self> {
        let kind = match start {
            [0x16, 0x03, ..] => Some("a TLS client"),
            _ => KNOWN.iter().find(|(text, _)| start.starts_with(text)).map(|(_, kind)| *kind),
        };
        let printable = start[..4].iter().all(|octet| octet.is_ascii_graphic() || octet.is_ascii_whitespace());
        (kind.is_some() || printable).then_some(Stranger { start: *start, kind })
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer started with \"{}\"", self.start[..4].escape_ascii())?;
        match self.kind {
            Some(kind) => write!(f, " like {kind}, not like an MTA"),
            None => f.write_str(", which is not the milter protocol"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_it_knows_and_quotes_the_rest() {
        let text = |start| Stranger::recognise(start).map(|stranger| stranger.to_string());
        assert_eq!(text(b"POST ").unwrap(), "the peer started with \"POST\" like an HTTP client, not like an MTA");
        assert_eq!(
            text(&[0x16, 3, 1, 2, 0]).unwrap(),
            "the peer started with \"\\x16\\x03\\x01\\x02\" like a TLS client, not like an MTA"
        );
        assert_eq!(text(b"abcd\n").unwrap(), "the peer started with \"abcd\", which is not the milter protocol");
        assert_eq!(text(&[0, 2, 0, 0, b'B']), None);
    }
}
