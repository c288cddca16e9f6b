//! Recognising servers that are no filters by the first thing they say.

use milter_protocol::Escaped;

/// How they begin, and what they are.
const KNOWN: [(&[u8], &str); 9] = [
    (b"HTTP/", "an HTTP server"),
    (b"220", "an SMTP or FTP server"),
    (b"421", "an SMTP or FTP server"),
    (b"554", "an SMTP server"),
    (b"SSH-", "an SSH server"),
    (b"+OK", "a POP3 server"),
    (b"* ", "an IMAP server"),
    (b"UNKNOWN COMMAND", "clamd"),
    (&[0x15, 0x03], "a TLS server"),
];

/// Octets of the first line that are shown.
const SHOWN: usize = 60;

/// The server that starts a conversation with `said`.
pub fn kind(said: &[u8]) -> Option<&'static str> {
    KNOWN.iter().find(|(start, _)| said.starts_with(start)).map(|(_, kind)| *kind)
}

/// The first line of what was said, cut to a reasonable length and made printable.
pub fn quote(said: &[u8]) -> String {
    let line = said.split(|&octet| matches!(octet, b'\r' | b'\n')).next().unwrap_or_default();
    Escaped(&line[..line.len().min(SHOWN)]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_their_greeting() {
        assert_eq!(kind(b"220 mail.example ESMTP\r\n"), Some("an SMTP or FTP server"));
        assert_eq!(kind(b"HTTP/1.1 400 Bad Request"), Some("an HTTP server"));
        assert_eq!(kind(&[0x15, 3, 3, 0, 2, 2, 10]), Some("a TLS server"));
        assert_eq!(kind(b"hello"), None);
    }

    #[test]
    fn quotes_are_one_printable_line() {
        assert_eq!(quote(b"220 \x07 mail\r\n250 more"), "220 \\u{7} mail");
        assert_eq!(quote(&[b'x'; 100]).len(), SHOWN);
        assert_eq!(quote(b""), "");
    }
}
