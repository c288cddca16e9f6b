//! Lines as JSON objects. Octets that are no UTF-8 are shown as U+FFFD.

use std::borrow::Cow;
use std::fmt::Write;

use milter_protocol::escape::JsonString;
use milter_protocol::packet::Value;

use super::{Line, rfc3339};

/// What comes before the time, with which each line begins.
pub(super) const START: &str = "{\"time\":\"";

/// The line with its line end; of contents so many octets.
pub(super) fn line(line: &Line<'_>, content: usize) -> String {
    let mut out = format!("{START}{}\",\"elapsed\":{:.6}", rfc3339(line.wall), line.elapsed.as_secs_f64());
    member(&mut out, "filter", |out| string(out, line.filter));
    member(&mut out, "pid", |out| out.push_str(&line.process.to_string()));
    if let Some(session) = line.session {
        member(&mut out, "session", |out| out.push_str(&session.to_string()));
    }
    member(&mut out, "event", |out| string(out, line.event));
    member(&mut out, "what", |out| string(out, line.what));
    for (name, held) in line.fields {
        match held {
            Value::Content(octets) => {
                member(&mut out, "octets", |out| out.push_str(&octets.len().to_string()));
                if content > 0 {
                    member(&mut out, name, |out| text(out, &octets[..octets.len().min(content)]));
                }
            }
            other => member(&mut out, name, |out| value(out, other)),
        }
    }
    out.push_str("}\n");
    out
}

fn member(out: &mut String, name: &str, put: impl FnOnce(&mut String)) {
    out.push(',');
    string(out, name);
    out.push(':');
    put(out);
}

fn value(out: &mut String, value: &Value<'_>) {
    match value {
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::Seconds(duration) => out.push_str(&format!("{:.6}", duration.as_secs_f64())),
        Value::Word(word) => string(out, word),
        Value::Text(octets) | Value::Content(octets) => text(out, octets),
        Value::Texts(texts) => list(out, "[]", texts, |out, octets| text(out, octets)),
        Value::Flags(flags) => list(out, "[]", flags, |out, flag| string(out, flag)),
        Value::Pairs(pairs) => object(out, pairs),
    }
}

fn list<T>(out: &mut String, brackets: &str, members: &[T], put: impl Fn(&mut String, &T)) {
    let (open, close) = brackets.split_at(1);
    out.push_str(open);
    for (at, member) in members.iter().enumerate() {
        out.push_str(if at == 0 { "" } else { "," });
        put(out, member);
    }
    out.push_str(close);
}

/// Names with values in the order of the names' first occurrence. An object has each name once: one that occurs more
/// often has the list of its values.
fn object(out: &mut String, pairs: &[(&[u8], &[u8])]) {
    let names: Vec<Cow<'_, str>> = pairs.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_key(|&at| &names[at]);
    let mut members: Vec<&[usize]> = order.chunk_by(|&one, &other| names[one] == names[other]).collect();
    members.sort_unstable_by_key(|places| places[0]);
    list(out, "{}", &members, |out, places| {
        string(out, &names[places[0]]);
        out.push(':');
        match places {
            [place] => text(out, pairs[*place].1),
            _ => list(out, "[]", places, |out, &place| text(out, pairs[place].1)),
        }
    });
}

fn text(out: &mut String, octets: &[u8]) {
    string(out, &String::from_utf8_lossy(octets));
}

/// A string in quotes, on one line whatever it holds.
fn string(out: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = write!(out, "{}", JsonString(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_each_name_once() {
        let pairs: [(&[u8], &[u8]); 5] = [(b"i", b"1"), (b"\xe4", b"a"), (b"b", b""), (b"i", b"2"), (b"\xf6", b"c")];
        let mut out = String::new();
        value(&mut out, &Value::Pairs(pairs.into()));
        assert_eq!(out, "{\"i\":[\"1\",\"2\"],\"\u{fffd}\":[\"a\",\"c\"],\"b\":\"\"}");
        out.clear();
        value(&mut out, &Value::Pairs(Vec::new()));
        assert_eq!(out, "{}");
    }

    #[test]
    fn text_stays_in_its_string() {
        let mut out = String::new();
        value(&mut out, &Value::Text("\"\\\n\u{9b}\u{7f}\u{202e}\u{2066}ä".as_bytes()));
        assert_eq!(out, r#""\"\\\n\u009b\u007f\u202e\u2066ä""#);
    }
}
