//! What the SMTP client is told.

use std::fmt;

use milter_protocol::CommandCode;
use milter_protocol::escape::Quoted;

use crate::macros::HOST;
use crate::mta::Mta;

/// An SMTP reply of one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpReply {
    /// The lines, each with its code, without line ends.
    pub lines: Vec<String>,
}

impl SmtpReply {
    fn line(text: impl Into<String>) -> Self {
        SmtpReply { lines: vec![text.into()] }
    }

    /// The reply to a message that the MTA takes.
    pub fn accepted(mta: Mta, queue_id: &str) -> Self {
        Self::line(match mta {
            Mta::Postfix => format!("250 2.0.0 Ok: queued as {queue_id}"),
            Mta::Sendmail => format!("250 2.0.0 {queue_id} Message accepted for delivery"),
        })
    }

    /// The reply after a plain rejection of `command`.
    pub fn rejected(mta: Mta, command: CommandCode) -> Self {
        Self::line(match (mta, command) {
            (Mta::Sendmail, CommandCode::Connect) => format!("554 {HOST} ESMTP not accepting messages"),
            (Mta::Sendmail, CommandCode::EndOfBody) => "554 5.7.1 Command rejected".to_owned(),
            _ => "550 5.7.1 Command rejected".to_owned(),
        })
    }

    /// The reply after a plain temporary failure.
    pub fn failed(mta: Mta) -> Self {
        Self::line(match mta {
            Mta::Postfix => "451 4.7.1 Service unavailable - try again later",
            Mta::Sendmail => "451 4.3.2 Please try again later",
        })
    }

    /// The last words before the MTA hangs up on the client.
    pub fn shutdown() -> Self {
        Self::line(format!("421 4.7.0 {HOST} closing connection"))
    }

    /// The reply that a filter chose, treated as the MTA treats it.
    ///
    /// Postfix checks every line and gives up on the filter when one is wrong; Sendmail looks at the code only and puts
    /// its own words in the place of what it does not like.
    pub fn chosen(mta: Mta, command: CommandCode, text: &[u8]) -> Result<Self, String> {
        let lines: Vec<&[u8]> = text.split(|&octet| octet == b'\n').map(|line| line.trim_ascii_end()).collect();
        let code = lines[0].get(..3).filter(|code| is_refusal(code));
        match (mta, code) {
            // A greeting has room for the kind of refusal only.
            (Mta::Sendmail, Some(b"421")) if command == CommandCode::Connect => return Ok(Self::shutdown()),
            (Mta::Sendmail, Some([b'4', ..])) if command == CommandCode::Connect => return Ok(Self::failed(mta)),
            (Mta::Sendmail, _) if command == CommandCode::Connect => return Ok(Self::rejected(mta, command)),
            (Mta::Sendmail, None) => return Ok(Self::rejected(mta, command)),
            (Mta::Sendmail, _) if has_lone_percent(text) => return Ok(Self::rejected(mta, command)),
            (Mta::Postfix, None) => {
                return Err(format!("{} is no SMTP reply with a code of 4xx or 5xx", Quoted(text)));
            }
            _ => {}
        }
        let (last, others) = lines.split_last().expect("split gives at least one line");
        let same_code = lines.iter().all(|line| line.get(..3) == code);
        let continued = others.iter().all(|line| line.get(3) == Some(&b'-'));
        let complete = same_code && continued && last.get(3).is_none_or(|&octet| octet == b' ');
        if mta == Mta::Postfix && !complete {
            return Err(format!("{} is no well-formed SMTP reply", Quoted(text)));
        }
        Ok(SmtpReply { lines: lines.into_iter().map(without_percents).collect() })
    }

    /// Whether the refusal is for good (5xx).
    pub fn is_permanent(&self) -> bool {
        self.lines[0].starts_with('5')
    }

    /// Whether the MTA hangs up after this reply.
    pub fn is_shutdown(&self) -> bool {
        self.lines[0].starts_with("421")
    }
}

impl fmt::Display for SmtpReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

fn is_refusal(code: &[u8]) -> bool {
    matches!(code, [b'4' | b'5', tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

fn has_lone_percent(text: &[u8]) -> bool {
    text.split(|&octet| octet != b'%').any(|run| run.len() % 2 == 1)
}

/// Both MTAs treat the text as a format: two percent signs stand for one, a single one is dropped.
fn without_percents(line: &[u8]) -> String {
    String::from_utf8_lossy(line).replace("%%", "\0").replace('%', "").replace('\0', "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(mta: Mta, text: &[u8]) -> Result<Vec<String>, String> {
        SmtpReply::chosen(mta, CommandCode::Mail, text).map(|reply| reply.lines)
    }

    #[test]
    fn lines_are_taken_apart() {
        for mta in [Mta::Postfix, Mta::Sendmail] {
            assert_eq!(chosen(mta, b"550 5.7.1 no").unwrap(), ["550 5.7.1 no"]);
            assert_eq!(chosen(mta, b"450-4.7.1 a\r\n450 4.7.1 b").unwrap(), ["450-4.7.1 a", "450 4.7.1 b"]);
            assert_eq!(chosen(mta, b"550 ").unwrap(), ["550"]);
        }
    }

    #[test]
    fn postfix_refuses_what_sendmail_replaces() {
        for text in [&b"250 ok"[..], b"", b"55", b"no code"] {
            assert!(chosen(Mta::Postfix, text).is_err(), "{}", text.escape_ascii());
            assert_eq!(chosen(Mta::Sendmail, text).unwrap(), ["550 5.7.1 Command rejected"]);
        }
        assert!(chosen(Mta::Postfix, b"550-a\r\n551 b").is_err());
        assert!(chosen(Mta::Postfix, b"550-only").is_err());
    }

    #[test]
    fn percent_signs_are_doubled_or_lost() {
        assert_eq!(chosen(Mta::Postfix, b"550 100%% and 5%").unwrap(), ["550 100% and 5"]);
        assert_eq!(chosen(Mta::Sendmail, b"550 100%%").unwrap(), ["550 100%"]);
        assert_eq!(chosen(Mta::Sendmail, b"550 100%").unwrap(), ["550 5.7.1 Command rejected"]);
    }

    #[test]
    fn sendmail_greets_with_words_of_its_own() {
        let greeting = |text: &[u8]| SmtpReply::chosen(Mta::Sendmail, CommandCode::Connect, text).unwrap();
        assert!(greeting(b"421 bye").is_shutdown());
        assert!(!greeting(b"450 later").is_permanent());
        assert_eq!(greeting(b"550 no").lines, ["554 mta.example.org ESMTP not accepting messages"]);
    }
}
