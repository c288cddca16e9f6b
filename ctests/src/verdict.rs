//! Comparing what a filter did with what a dialogue expects.

use crate::{
    Setting,
    conversation::{self, Reply, Script, Transcript},
    dialogue::{Case, Expectation, ExpectedReply},
};

/// Plays a case, its script cut by `deliver`.
///
/// # Errors
///
/// With what is not as expected, in readable lines.
pub fn play(case: &Case, setting: &Setting, deliver: impl Fn(&Script) -> Script) -> Result<(), String> {
    let origin = setting.library.origin();
    let transcript = conversation::run(case.plan(), &deliver(&case.script(origin)), setting);
    let differences = differences(&case.expectation(origin), &transcript);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(format!("{} ({})\n    {}", case.id, case.title, differences.join("\n    ")))
    }
}

/// The differences, one readable line each; none if all is as expected.
#[must_use]
pub fn differences(expected: &Expectation, actual: &Transcript) -> Vec<String> {
    let mut found = Vec::new();
    if !actual.survived {
        found.push("the filter process died".to_owned());
    }
    if !actual.output.is_empty() && !expected.output {
        found.push(format!("the filter wrote to standard output or error: {}", actual.output));
    }
    let replies = expected.replies.iter().map(|(line, reply)| {
        let wanted = match reply {
            ExpectedReply::Frame(frame) => Reply::Frame(frame.clone()),
            ExpectedReply::End => Reply::End(Vec::new()),
        };
        (*line, wanted)
    });
    found.extend(first_difference("reply", replies, actual.replies.iter().cloned()));
    let events = actual.record.iter().filter(|event| !event.is_log()).cloned();
    found.extend(first_difference("event", expected.events.iter().cloned(), events));
    for (level, count) in &expected.logs {
        let logged = actual.record.iter().filter(|event| event.severity() == Some(*level)).count();
        if logged != *count {
            found.push(format!("expected {count} log messages of severity {level}, found {logged}"));
        }
    }
    if !found.is_empty() {
        let list = |lines: Vec<String>| lines.join("\n      ");
        found.push(format!("all replies:\n      {}", list(actual.replies.iter().map(ToString::to_string).collect())));
        found.push(format!("all events:\n      {}", list(actual.record.iter().map(ToString::to_string).collect())));
    }
    found
}

fn first_difference<T: PartialEq + ToString>(
    what: &str,
    expected: impl Iterator<Item = (usize, T)>,
    mut actual: impl Iterator<Item = T>,
) -> Option<String> {
    for (line, wanted) in expected {
        match actual.next() {
            Some(found) if found == wanted => {}
            Some(found) => {
                return Some(format!(
                    "line {line}: expected {what} {}, found {}",
                    wanted.to_string(),
                    found.to_string()
                ));
            }
            None => return Some(format!("line {line}: expected {what} {}, found no more", wanted.to_string())),
        }
    }
    actual.next().map(|surplus| format!("{what} that nothing expects: {}", surplus.to_string()))
}
