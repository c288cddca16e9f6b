//! An unexplained difference in the language of dialogues.

use std::fmt::Write as _;

use super::{Stages, Trial, plan::Plan, prediction::Predictions, stage::Performance};
use crate::{
    Frame, wire,
    words::{self, quote},
};

/// A case that can be put into a file of `ctests/dialogues` once it is decided who is right. What each library did, and
/// what the model says, is in comments before it.
pub(super) fn write(stages: &mut Stages, name: &str, trial: &Trial) -> String {
    let predictions = Predictions::new(&trial.plan, &trial.conversation);
    let (ours, reference) = stages.perform(trial, &predictions);
    let mut text = format!("# {name}\n");
    compare(&mut text, "ours", &predictions.ours.performance(), &ours);
    if let Some(reference) = &reference {
        compare(&mut text, "reference", &predictions.reference.performance(), reference);
    }
    let _ = writeln!(text, "case {name} TITLE\n  why REASON");
    if reference.as_ref().is_some_and(|reference| *reference != ours) {
        text.push_str("  difference REASON\n");
    }
    let plan: Plan = trial.plan.clone();
    for line in plan.to_string().lines() {
        let _ = writeln!(text, "  {line}");
    }
    for (at, connection) in trial.conversation.connections.iter().enumerate() {
        if at > 0 {
            text.push_str("  connect\n");
        }
        for command in &connection.commands {
            let _ = writeln!(text, "  > {}", shown(command));
        }
        let heard = |performance: &Performance| performance.heard.get(at).map_or(Vec::new(), |heard| replies(&heard.0));
        expectations(&mut text, '<', &heard(&ours), reference.as_ref().map(heard).as_deref());
        text.push_str(if connection.close { "  close\n" } else { "  shutdown\n" });
    }
    expectations(&mut text, '!', &ours.events, reference.as_ref().map(|reference| &reference.events[..]));
    text
}

fn compare(text: &mut String, who: &str, expected: &Performance, actual: &Performance) {
    let _ =
        writeln!(text, "# {who}: {}", if expected == actual { "as the model says" } else { "not as the model says" });
    if expected == actual {
        return;
    }
    for (name, performance) in [("model", expected), (who, actual)] {
        for (octets, ended) in &performance.heard {
            let end = if *ended { "EOF" } else { "no end" };
            let _ = writeln!(text, "#   {name} < {} ; {end}", replies(octets).join(" ; "));
        }
        let _ = writeln!(text, "#   {name} ! {}", performance.events.join(" ; "));
        if !performance.well {
            let _ = writeln!(text, "#   {name}: the process died or wrote something");
        }
    }
}

/// Lines for both, or for each where they differ.
fn expectations(text: &mut String, sign: char, ours: &[String], reference: Option<&[String]>) {
    let mut line = |whose: &str, what: &[String]| {
        if !what.is_empty() {
            let _ = writeln!(text, "  {whose}{sign} {}", what.join(" ; "));
        }
    };
    match reference {
        Some(reference) if reference != ours => {
            line("ours: ", ours);
            line("reference: ", reference);
        }
        _ => line("", ours),
    }
}

fn replies(octets: &[u8]) -> Vec<String> {
    let mut replies = Vec::new();
    let mut rest = octets;
    while let Some((&[a, b, c, d, letter], after)) = rest.split_first_chunk() {
        let size = (u32::from_be_bytes([a, b, c, d]) as usize).wrapping_sub(1);
        let Some((payload, after)) = after.split_at_checked(size) else { break };
        let frame = Frame { letter, payload: payload.to_vec() };
        let named = frame.to_string();
        let reads_back = words::split(&named).is_ok_and(|lists| wire::reply(&lists[0]).is_ok_and(|read| read == frame));
        replies.push(if reads_back { named } else { format!("frame {} {}", quote(&[letter]), quote(payload)) });
        rest = after;
    }
    if !rest.is_empty() {
        replies.push(format!("{} octets of a packet", rest.len()));
    }
    replies
}

/// A command as readable as possible: whatever reads back as the same octets.
fn shown(command: &[u8]) -> String {
    let digits = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let hex = format!("hex {}", digits(command));
    let Some((&letter, payload)) = command.get(4..).and_then(<[u8]>::split_first) else { return hex };
    let strings = || -> String {
        let end = payload.strip_suffix(b"\0").unwrap_or(payload);
        end.split(|octet| *octet == 0).map(|string| format!(" {}", quote(string))).collect()
    };
    let name = match letter {
        b'H' => "HELO",
        b'M' => "MAIL",
        b'R' => "RCPT",
        b'L' => "HEADER",
        b'U' => "UNKNOWN",
        b'T' => "DATA",
        b'N' => "EOH",
        b'A' => "ABORT",
        b'Q' => "QUIT",
        b'K' => "QUIT_NC",
        b'B' => "BODY",
        b'E' => "BODYEOB",
        _ => "frame",
    };
    let candidates = [
        name.to_owned(),
        format!("{name}{}", strings()),
        format!("{name} {}", quote(payload)),
        offer(letter, payload),
        format!("frame {} {}", quote(&[letter]), quote(payload)),
    ];
    let reads_back = |line: &&String| {
        words::split(line).ok().and_then(|lists| wire::command(lists.first()?).ok()).is_some_and(|read| read == command)
    };
    candidates.iter().find(reads_back).cloned().unwrap_or(hex)
}

fn offer(letter: u8, payload: &[u8]) -> String {
    let number = |at: usize| payload.get(at..at + 4).and_then(<[u8]>::first_chunk).copied().map(u32::from_be_bytes);
    match (letter, number(0), number(4), number(8)) {
        (b'O', Some(version), Some(actions), Some(steps)) => format!("OPTNEG {version} {actions:x} {steps:x}"),
        _ => String::new(),
    }
}
