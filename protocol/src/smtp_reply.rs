//! The SMTP reply text a filter stores for its verdict.

use std::fmt;

/// A checked SMTP reply, one line or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpReply {
    /// The lines joined by CR LF, without a final one.
    text: Box<[u8]>,
}

/// Why a text cannot be an SMTP reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpReplyError {
    /// The reply code is not three digits starting with 4 or 5.
    BadCode,
    /// The enhanced status code (RFC 2034) is not of the form class.subject.detail.
    BadStatus,
    /// A line holds CR or LF.
    LineBreak,
    /// A line is longer than [`SmtpReply::MAX_LINE`].
    LongLine,
    /// There are more lines than [`SmtpReply::MAX_LINES`].
    TooManyLines,
    /// There is no memory for the text.
    NoMemory,
}

impl fmt::Display for SmtpReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SmtpReplyError::BadCode => "the reply code is not 4xx or 5xx",
            SmtpReplyError::BadStatus => "the enhanced status code is malformed",
            SmtpReplyError::LineBreak => "a line holds a line break",
            SmtpReplyError::LongLine => "a line is too long",
            SmtpReplyError::TooManyLines => "there are too many lines",
            SmtpReplyError::NoMemory => "there is no memory for it",
        })
    }
}

impl std::error::Error for SmtpReplyError {}

impl SmtpReply {
    /// Longest line, in octets, without the codes.
    pub const MAX_LINE: usize = 980;
    /// Most lines of one reply.
    pub const MAX_LINES: usize = 32;

    /// A reply of one line: code, enhanced status code if any, text if any (`smfi_setreply`).
    pub fn single(code: &[u8], status: Option<&[u8]>, text: Option<&[u8]>) -> Result<Self, SmtpReplyError> {
        check_codes(code, status)?;
        check_line(text.unwrap_or_default())?;
        let separator: &[u8] = if status.is_some() && text.is_some() { b" " } else { b"" };
        let mut reply = Vec::new();
        append(&mut reply, &[code, b" ", status.unwrap_or_default(), separator, text.unwrap_or_default()])?;
        Ok(SmtpReply { text: reply.into() })
    }

    /// A reply of up to [`SmtpReply::MAX_LINES`] lines, each with both codes (`smfi_setmlreply`). Without `status` the
    /// general one of the code's class is used. No lines at all give the codes alone.
    pub fn multiline<'a>(
        code: &[u8],
        status: Option<&[u8]>,
        lines: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, SmtpReplyError> {
        check_codes(code, status)?;
        let status = status.unwrap_or(if code[0] == b'4' { b"4.0.0" } else { b"5.0.0" });
        let mut reply = Vec::new();
        let mut last_line = 0;
        for (number, line) in lines.into_iter().enumerate() {
            if number == Self::MAX_LINES {
                return Err(SmtpReplyError::TooManyLines);
            }
            check_line(line)?;
            if number > 0 {
                append(&mut reply, &[b"\r\n"])?;
            }
            last_line = reply.len();
            append(&mut reply, &[code, b"-", status, b" ", line])?;
        }
        if reply.is_empty() {
            append(&mut reply, &[code, b"-", status])?;
        }
        reply[last_line + code.len()] = b' ';
        Ok(SmtpReply { text: reply.into() })
    }

    /// The text without its NUL.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the reply refuses for good (5xx) rather than for now (4xx).
    pub fn is_permanent(&self) -> bool {
        self.text[0] == b'5'
    }
}

fn append(reply: &mut Vec<u8>, parts: &[&[u8]]) -> Result<(), SmtpReplyError> {
    reply.try_reserve(parts.iter().map(|part| part.len()).sum()).map_err(|_| SmtpReplyError::NoMemory)?;
    parts.iter().for_each(|part| reply.extend_from_slice(part));
    Ok(())
}

fn check_codes(code: &[u8], status: Option<&[u8]>) -> Result<(), SmtpReplyError> {
    match code {
        [b'4' | b'5', b'0'..=b'9', b'0'..=b'9'] => {}
        _ => return Err(SmtpReplyError::BadCode),
    }
    match status {
        Some(status) if !is_enhanced_status(status) => Err(SmtpReplyError::BadStatus),
        _ => Ok(()),
    }
}

fn is_enhanced_status(status: &[u8]) -> bool {
    let number = |part: &[u8]| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let mut parts = status.split(|&octet| octet == b'.');
    matches!(
        (parts.next(), parts.next(), parts.next(), parts.next()),
        (Some(b"2" | b"4" | b"5"), Some(subject), Some(detail), None) if number(subject) && number(detail)
    )
}

fn check_line(line: &[u8]) -> Result<(), SmtpReplyError> {
    if line.iter().any(|octet| matches!(octet, b'\r' | b'\n')) {
        Err(SmtpReplyError::LineBreak)
    } else if line.len() > SmtpReply::MAX_LINE {
        Err(SmtpReplyError::LongLine)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(code: &str, status: Option<&str>, text: Option<&str>) -> Result<String, SmtpReplyError> {
        SmtpReply::single(code.as_bytes(), status.map(str::as_bytes), text.map(str::as_bytes))
            .map(|reply| String::from_utf8(reply.text().to_vec()).unwrap())
    }

    fn multiline(lines: &[&str]) -> Result<String, SmtpReplyError> {
        SmtpReply::multiline(b"450", None, lines.iter().map(|line| line.as_bytes()))
            .map(|reply| String::from_utf8(reply.text().to_vec()).unwrap())
    }

    #[test]
    fn one_line_is_spelt_as_filters_know_it() {
        assert_eq!(single("550", Some("5.7.1"), Some("no")).unwrap(), "550 5.7.1 no");
        assert_eq!(single("550", None, Some("no")).unwrap(), "550 no");
        assert_eq!(single("550", Some("5.7.1"), None).unwrap(), "550 5.7.1");
        assert_eq!(single("550", None, None).unwrap(), "550 ");
        assert_eq!(single("550", Some("5.7.1"), Some("")).unwrap(), "550 5.7.1 ");
        assert_eq!(single("550", Some("2.1.1"), Some("no")).unwrap(), "550 2.1.1 no");
    }

    #[test]
    fn bad_replies_are_refused() {
        for code in ["", "55", "5500", "250", "350", "5x0", "650"] {
            assert_eq!(single(code, None, None), Err(SmtpReplyError::BadCode), "{code}");
        }
        for status in ["", "5", "5.7", "5.7.", "5..1", "3.7.1", "5.7.1.1", "5.1234.1", "5.7.1 ", "55.7.1"] {
            assert_eq!(single("550", Some(status), None), Err(SmtpReplyError::BadStatus), "{status}");
        }
        assert_eq!(single("550", None, Some("a\rb")), Err(SmtpReplyError::LineBreak));
        assert_eq!(single("550", None, Some("a\nb")), Err(SmtpReplyError::LineBreak));
        assert_eq!(single("550", None, Some(&"x".repeat(981))), Err(SmtpReplyError::LongLine));
        assert!(single("550", None, Some(&"x".repeat(980))).is_ok());
    }

    #[test]
    fn several_lines_repeat_the_codes() {
        assert_eq!(multiline(&["one", "two", "three"]).unwrap(), "450-4.0.0 one\r\n450-4.0.0 two\r\n450 4.0.0 three");
        assert_eq!(multiline(&["one"]).unwrap(), "450 4.0.0 one");
        assert!(multiline(&["x"; 32]).is_ok());
        assert_eq!(multiline(&["x"; 33]), Err(SmtpReplyError::TooManyLines));
    }

    #[test]
    fn defect_24_no_lines_are_no_continuation() {
        assert_eq!(multiline(&[]).unwrap(), "450 4.0.0");
    }
}
