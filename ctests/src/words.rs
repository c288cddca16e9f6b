//! The words of a line, in dialogues and in records alike.

use std::fmt;

/// One word: bare, or quoted with escapes and perhaps repeated (`"x"*3`). Quoted ones that touch
/// each other are one word (`"ab""x"*3`).
#[derive(Clone, Debug)]
pub struct Word {
    /// What it stands for.
    pub octets: Vec<u8>,
    /// Whether it was written in quotes; the bare word NULL is the null pointer.
    pub quoted: bool,
}

impl Word {
    /// The text of a word that has to be ASCII.
    pub(crate) fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.octets).map_err(|_| format!("{self} is not text"))
    }

    fn is_null(&self) -> bool {
        !self.quoted && self.octets == b"NULL"
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Word) -> bool {
        self.octets == other.octets && self.is_null() == other.is_null()
    }
}

impl Eq for Word {}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quoted {
            f.write_str(&quote(&self.octets))
        } else {
            f.write_str(&String::from_utf8_lossy(&self.octets))
        }
    }
}

/// Octets in the form in which dialogues write them.
pub(crate) fn quote(octets: &[u8]) -> String {
    const LONGEST: usize = 64;
    if octets.len() > LONGEST && octets.iter().all(|octet| *octet == octets[0]) {
        return format!("{}*{}", quote(&octets[..1]), octets.len());
    }
    let mut text = String::from("\"");
    for &octet in octets {
        match octet {
            b'"' | b'\\' => text.extend(['\\', octet.into()]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b' '..=b'~' => text.push(octet.into()),
            _ => text.push_str(&format!("\\x{octet:02x}")),
        }
    }
    text.push('"');
    text
}

/// Splits a line at blanks, and at ` ; ` into several lists.
pub(crate) fn split(line: &str) -> Result<Vec<Vec<Word>>, String> {
    let mut rest = line.trim_start();
    let mut lists = vec![Vec::new()];
    while !rest.is_empty() {
        let (word, after) = if rest.starts_with('"') { quoted(rest)? } else { bare(rest) };
        if !word.quoted && word.octets == b";" {
            lists.push(Vec::new());
        } else {
            lists.last_mut().expect("never empty").push(word);
        }
        rest = after.trim_start();
    }
    Ok(lists)
}

fn bare(text: &str) -> (Word, &str) {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (Word { octets: text.as_bytes()[..end].to_vec(), quoted: false }, &text[end..])
}

fn quoted(text: &str) -> Result<(Word, &str), String> {
    let mut octets = Vec::new();
    let mut rest = &text[1..];
    loop {
        let mut characters = rest.chars();
        let character = characters.next().ok_or_else(|| format!("missing quote: {text}"))?;
        rest = characters.as_str();
        match character {
            '"' => break,
            '\\' => {
                let escape = characters.next().ok_or_else(|| format!("missing quote: {text}"))?;
                rest = characters.as_str();
                match escape {
                    'n' => octets.push(b'\n'),
                    'r' => octets.push(b'\r'),
                    '"' | '\\' => octets.push(escape as u8),
                    'x' => {
                        let digits = rest.get(..2).unwrap_or("");
                        octets.push(
                            u8::from_str_radix(digits, 16)
                                .map_err(|_| format!("\\x needs two hexadecimal digits: {text}"))?,
                        );
                        rest = &rest[2..];
                    }
                    _ => return Err(format!("unknown escape \\{escape}: {text}")),
                }
            }
            _ => octets.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    if let Some(after) = rest.strip_prefix('*') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let copies = after[..end].parse().map_err(|_| format!("* needs a number: {text}"))?;
        octets = octets.repeat(copies);
        rest = &after[end..];
    }
    if rest.starts_with('"') {
        let (next, after) = quoted(rest)?;
        octets.extend(next.octets);
        rest = after;
    }
    Ok((Word { octets, quoted: true }, rest))
}
