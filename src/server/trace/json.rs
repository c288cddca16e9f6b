//! Lines as JSON objects. Octets that are no UTF-8 are shown as U+FFFD.

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
        Value::Pairs(pairs) => list(out, "{}", pairs, |out, (name, value)| {
            text(out, name);
            out.push(':');
            text(out, value);
        }),
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

fn text(out: &mut String, octets: &[u8]) {
    string(out, &String::from_utf8_lossy(octets));
}

/// A string in quotes, on one line whatever it holds.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other if other.is_control() || matches!(other, '\u{2028}' | '\u{2029}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(other)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
