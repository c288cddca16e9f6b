//! Text that a peer, a filter or an administrator has chosen, made safe to show.
//!
//! A log, a trace, a terminal or a JSON document must not let that text end a line, move the cursor, reorder the
//! characters around it or hide some of them. [`is_printable`] decides what is shown as it is; everything else is
//! escaped. UTF-8 that is printable stays readable.

use std::fmt::{self, Write};

/// Whether a character is visible and leaves the line, the terminal and the order of the other characters alone.
///
/// False for control characters (C0, DEL, C1), for line and paragraph separators, and for characters that Unicode has
/// programs ignore by default: bidirectional controls, zero-width characters, variation selectors, tags.
pub fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Writes one character: as it is if it is printable, otherwise as `\n`, `\r`, `\t` or `\u{...}`.
pub fn write_char(out: &mut impl Write, character: char) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        shown if is_printable(shown) => out.write_char(shown),
        other => write!(out, "{}", other.escape_unicode()),
    }
}

/// Octets on one line: printable UTF-8 as it is, other characters as by [`write_char`], octets that are no UTF-8 as
/// `\x` and two digits. For people: a backslash is not escaped.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_octets(f, self.0, |f, character| write_char(f, character))
    }
}

/// The same in double quotes, with quotes and backslashes escaped: what is shown says exactly what the octets were.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write_octets(f, self.0, |f, character| {
            if matches!(character, '"' | '\\') {
                f.write_char('\\')?;
            }
            write_char(f, character)
        })?;
        f.write_char('"')
    }
}

/// Octets as several lines: as [`Escaped`], but line feeds and tabs stay.
#[derive(Clone, Copy, Debug)]
pub struct EscapedLines<'a>(pub &'a [u8]);

impl fmt::Display for EscapedLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_octets(f, self.0, |f, character| match character {
            '\n' | '\t' => f.write_char(character),
            other => write_char(f, other),
        })
    }
}

fn write_octets(
    f: &mut fmt::Formatter<'_>,
    octets: &[u8],
    write: impl Fn(&mut fmt::Formatter<'_>, char) -> fmt::Result,
) -> fmt::Result {
    for chunk in octets.utf8_chunks() {
        chunk.valid().chars().try_for_each(|character| write(f, character))?;
        chunk.invalid().iter().try_for_each(|octet| write!(f, "\\x{octet:02x}"))?;
    }
    Ok(())
}

/// JSON that a serializer has written, with everything in its strings that is not printable as `\uXXXX`. Line feeds
/// between its members stay.
#[derive(Clone, Copy, Debug)]
pub struct EscapedJson<'a>(pub &'a str);

impl fmt::Display for EscapedJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character == '\n' { f.write_char('\n')? } else { write_json_char(f, character)? }
        }
        Ok(())
    }
}

/// A string as JSON, in double quotes.
#[derive(Clone, Copy, Debug)]
pub struct JsonString<'a>(pub &'a str);

impl fmt::Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                other => write_json_char(f, other)?,
            }
        }
        f.write_char('"')
    }
}

/// Characters beyond U+FFFF take two escapes, as JSON has it.
fn write_json_char(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    if is_printable(character) {
        return f.write_char(character);
    }
    character.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Controls, and all that Unicode calls ignorable by default or a separator of lines, by samples and their neighbours.
    #[test]
    fn what_is_not_printable() {
        let controls = ('\0'..='\u{1f}').chain('\u{7f}'..='\u{9f}');
        let bidirectional = ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter().chain('\u{202a}'..='\u{202e}');
        let isolates = '\u{2066}'..='\u{2069}';
        let invisible =
            ['\u{ad}', '\u{34f}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2028}', '\u{2029}', '\u{2060}', '\u{feff}'];
        let tags = ['\u{e0001}', '\u{e0041}', '\u{e007f}', '\u{e0100}'];
        for character in controls.chain(bidirectional).chain(isolates).chain(invisible).chain(tags) {
            assert!(!is_printable(character), "{character:?}");
            let shown = Escaped(character.to_string().as_bytes()).to_string();
            assert!(shown.starts_with('\\') && shown.bytes().all(|octet| octet.is_ascii_graphic()), "{shown}");
            let json = JsonString(&character.to_string()).to_string();
            assert!(json.bytes().all(|octet| octet.is_ascii_graphic()), "{json}");
        }
        for character in " ~\u{a0}äßאبक中🦀\u{301}\u{2010}\u{2030}\u{fffd}".chars() {
            assert!(is_printable(character), "{character:?}");
        }
    }

    #[test]
    fn one_line_whatever_it_holds() {
        let text = b"a\\\"\r\n\t\x1b[0m\x7f \xc3\xa4\xe4\xe2\x80\xae\xc2\x9b";
        assert_eq!(Escaped(text).to_string(), r#"a\"\r\n\t\u{1b}[0m\u{7f} ä\xe4\u{202e}\u{9b}"#);
        assert_eq!(Quoted(text).to_string(), r#""a\\\"\r\n\t\u{1b}[0m\u{7f} ä\xe4\u{202e}\u{9b}""#);
        assert_eq!(EscapedLines(b"a\n\tb\r\n\x1b").to_string(), "a\n\tb\\r\n\\u{1b}");
    }

    #[test]
    fn json_says_the_same() {
        let text = "a\\\"\n\u{7f}\u{9b}ä\u{e0041}";
        assert_eq!(JsonString(text).to_string(), r#""a\\\"\n\u007f\u009bä\udb40\udc41""#);
        assert_eq!(EscapedJson("{\n \"a\": \"\u{9b}\\n\"}").to_string(), "{\n \"a\": \"\\u009b\\n\"}");
    }
}
