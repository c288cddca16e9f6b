//! A message: headers and body, kept as they were written.
//!
//! Headers are split here and not by an e-mail parser: a filter has to see the order, the folds, the blanks around the
//! colon, 8-bit octets and malformed lines exactly as they arrived, and parsers exist to hide all of these.

/// How lines end in the file that a message came from and in the text that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// A line feed.
    Lf,
    /// Carriage return and line feed.
    CrLf,
}

impl LineEnd {
    fn octets(self) -> &'static [u8] {
        match self {
            LineEnd::Lf => b"\n",
            LineEnd::CrLf => b"\r\n",
        }
    }
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name, without the colon and blanks before it.
    pub name: Vec<u8>,
    /// Everything after the colon: the usual blank, the text, its folds as LF and the blanks that follow.
    pub value: Vec<u8>,
}

impl Header {
    /// The field with a blank after the colon, unless `spaced` says that `value` brings what it needs.
    pub fn new(name: &[u8], value: &[u8], spaced: bool) -> Self {
        let blank: &[u8] = if spaced { b"" } else { b" " };
        Header { name: name.to_vec(), value: [blank, value].concat() }
    }

    /// The value without the one blank that usually follows the colon.
    pub fn unspaced_value(&self) -> &[u8] {
        self.value.strip_prefix(b" ").unwrap_or(&self.value)
    }

    /// Whether this is the header `name`.
    pub fn is(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let colon = line.iter().position(|&octet| octet == b':')?;
        let name = line[..colon].trim_ascii_end();
        let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        is_name.then(|| Header { name: name.to_vec(), value: line[colon + 1..].to_vec() })
    }

    /// Appends the field as text.
    pub fn render(&self, line_end: LineEnd, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name);
        out.push(b':');
        for (number, line) in self.value.split(|&octet| octet == b'\n').enumerate() {
            if number > 0 {
                out.extend_from_slice(line_end.octets());
            }
            out.extend_from_slice(line);
        }
        out.extend_from_slice(line_end.octets());
    }
}

/// A message as an MTA receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The headers from top to bottom.
    pub headers: Vec<Header>,
    /// The body with CRLF line ends, also behind the last line.
    pub body: Vec<u8>,
    /// The line ends of the text it came from.
    pub line_end: LineEnd,
}

impl Mail {
    /// Takes the text of a message apart.
    ///
    /// As in an MTA, the headers end at the first empty line or, without an empty line, before the first line that is
    /// no header. The separator line of a mailbox file, `From ` at the very top, is not part of the message.
    pub fn parse(text: &[u8]) -> Self {
        let line_end = match text.iter().position(|&octet| octet == b'\n') {
            Some(at) if text[..at].ends_with(b"\r") => LineEnd::CrLf,
            _ => LineEnd::Lf,
        };
        let mut rest = text;
        if rest.starts_with(b"From ") {
            rest = split_line(rest).1;
        }
        let mut headers: Vec<Header> = Vec::new();
        while !rest.is_empty() {
            let (line, next) = split_line(rest);
            match headers.last_mut() {
                _ if line.is_empty() => {
                    rest = next;
                    break;
                }
                Some(header) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    header.value.push(b'\n');
                    header.value.extend_from_slice(line);
                }
                _ => match Header::parse(line) {
                    Some(header) => headers.push(header),
                    None => break,
                },
            }
            rest = next;
        }
        Mail { headers, body: with_crlf(rest), line_end }
    }

    /// The first header `name`.
    pub fn header(&self, name: &[u8]) -> Option<&Header> {
        self.headers.iter().find(|header| header.is(name))
    }

    /// The text of the message, with the line ends it came with.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 1024);
        self.headers.iter().for_each(|header| header.render(self.line_end, &mut out));
        out.extend_from_slice(self.line_end.octets());
        out.extend_from_slice(&self.body_text());
        out
    }

    /// The body, with the line ends the message came with.
    pub fn body_text(&self) -> Vec<u8> {
        match self.line_end {
            LineEnd::CrLf => self.body.clone(),
            LineEnd::Lf => lines(&self.body).flat_map(|line| [line, b"\n"]).flatten().copied().collect(),
        }
    }
}

/// The first line without its end, and what follows it.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match text.iter().position(|&octet| octet == b'\n') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &text[text.len()..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

fn lines(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        (!text.is_empty()).then(|| {
            let (line, rest) = split_line(text);
            text = rest;
            line
        })
    })
}

/// The text with CRLF at the end of each line, as SMTP carries it; the last line gets one too.
pub fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32 + 2);
    for line in lines(text) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(name: &str, value: &str) -> Header {
        Header { name: name.into(), value: value.into() }
    }

    #[test]
    fn headers_stay_as_they_were_written() {
        let mail = Mail::parse(b"From: a\nSUBJECT :\tx\n  y\n\tz\nX-Empty:\nTo:b\nTo: \xe4\n\nbody\n\nmore");
        assert_eq!(
            mail.headers[..4],
            [header("From", " a"), header("SUBJECT", "\tx\n  y\n\tz"), header("X-Empty", ""), header("To", "b")]
        );
        assert_eq!(mail.headers[4].value, b" \xe4");
        assert_eq!(mail.body, b"body\r\n\r\nmore\r\n");
        assert_eq!(mail.header(b"subject").unwrap().unspaced_value(), b"\tx\n  y\n\tz");
    }

    #[test]
    fn headers_end_before_the_first_line_that_is_none() {
        let mail = Mail::parse(b"A: 1\nthis is text: really\nB: 2\n");
        assert_eq!(mail.headers, [header("A", " 1")]);
        assert_eq!(mail.body, b"this is text: really\r\nB: 2\r\n");
        assert_eq!(Mail::parse(b" folded: first\n").headers, []);
        assert_eq!(Mail::parse(b": no name\n").headers, []);
    }

    #[test]
    fn mailbox_separators_are_dropped() {
        assert_eq!(Mail::parse(b"From me Mon Jan  1\nA: 1\n\n").headers, [header("A", " 1")]);
    }

    #[test]
    fn line_ends_come_back() {
        for text in [&b"A: 1\r\n 2\r\n\r\nx\r\n"[..], b"A: 1\n 2\n\nx\n", b"A: 1\n\n", b"\nx\n", b"\r\n"] {
            assert_eq!(Mail::parse(text).render(), text);
        }
        assert_eq!(Mail::parse(b"").render(), b"\n");
    }

    #[test]
    fn bare_carriage_returns_are_no_line_ends() {
        assert_eq!(with_crlf(b"a\rb\nc\r"), b"a\rb\r\nc\r\n");
    }

    proptest! {
        #[test]
        fn a_rendered_message_reads_back(
            headers in prop::collection::vec(("[!-9;-~]{1,8}", "[ -~\u{80}-\u{ff}]{0,20}(\n[ \t][ -~]{0,9}){0,2}"), 0..5),
            // With LF line ends, a carriage return before one cannot be told from a line end.
            body in prop::collection::vec(any::<u8>().prop_filter("CR", |&octet| octet != b'\r'), 0..200),
            crlf in any::<bool>(),
        ) {
            let mail = Mail {
                headers: headers.iter().map(|(name, value)| header(name, value)).collect(),
                body: with_crlf(&body),
                line_end: if crlf { LineEnd::CrLf } else { LineEnd::Lf },
            };
            prop_assert_eq!(Mail::parse(&mail.render()), mail);
        }

        #[test]
        fn any_text_reads_the_same_twice(text in "[ -~\t\n:]{0,60}") {
            let mail = Mail::parse(text.as_bytes());
            prop_assert_eq!(Mail::parse(&mail.render()), mail);
        }

        #[test]
        fn normal_line_ends_are_stable(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let once = with_crlf(&text);
            prop_assert_eq!(with_crlf(&once), once);
        }
    }
}
