//! Dialogue files: what an MTA says, what the filter's callbacks see, what the MTA hears.
//!
//! `ctests/README.md` describes the language.

use std::{fs, time::Duration};

use crate::{
    Origin,
    conversation::{Script, Step},
    recorder::Event,
    wire::{self, Frame},
    words::{self, Word},
    workspace_dir,
};

/// One case of a dialogue file.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its identifier, unique over all files.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Whether it can also be played in other pieces than written.
    pub any_delivery: bool,
    /// The only library it is for, where the other one does not do the same thing every time.
    pub only: Option<Origin>,
    /// Whether what one session does to the process concerns the next.
    pub one_process: bool,
    /// The lines of the recorder's plan.
    plan: String,
    why: bool,
    /// A defect of the reference, or another difference, is named.
    difference: bool,
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Item {
    line: usize,
    /// `None`: for both libraries.
    only: Option<Origin>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Send(Vec<Vec<u8>>),
    Reply(ExpectedReply),
    Event(Event),
    Log(Severity),
    Act(Act),
}

/// An action of the MTA other than sending.
#[derive(Clone, Copy, Debug)]
enum Act {
    Connect,
    Shutdown,
    Close,
    Pause(Duration),
}

/// A reply that a dialogue expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedReply {
    /// This packet.
    Frame(Frame),
    /// The filter closes the connection.
    End,
}

/// How many messages of a severity a dialogue expects.
#[derive(Clone, Copy, Debug)]
struct Severity {
    level: u8,
    count: usize,
}

/// What one library has to do in a case. Everything carries the line that says so.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Replies in order.
    pub replies: Vec<(usize, ExpectedReply)>,
    /// Callbacks and calls in order.
    pub events: Vec<(usize, Event)>,
    /// Severities and how many messages of each; others are not looked at.
    pub logs: Vec<(u8, usize)>,
    /// Whether the program may write to standard output.
    pub output: bool,
}

/// Every case of `ctests/dialogues` after the name of its file.
///
/// # Panics
///
/// When a file cannot be read or understood.
#[must_use]
pub fn all() -> Vec<(String, Case)> {
    let directory = workspace_dir().join("ctests/dialogues");
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dialogue"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let cases = parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let subject = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        all.extend(cases.into_iter().map(|case| (subject.clone(), case)));
    }
    all
}

/// Reads the cases of a file.
///
/// # Errors
///
/// The first line that is not understood, or a case that breaks a rule of the language.
pub fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut pieces = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |message: String| format!("line {}: {message}", at + 1);
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if keyword == "case" {
            let (id, title) = rest.trim().split_once(' ').unwrap_or((rest, ""));
            cases.push(Case::new(id, title.trim()));
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| fault("no case yet".into()))?;
        let (only, line) = match keyword {
            "ours:" => (Some(Origin::Ours), rest.trim()),
            "reference:" => (Some(Origin::Reference), rest.trim()),
            _ => (None, line),
        };
        case.read(at + 1, only, line, &mut pieces).map_err(fault)?;
    }
    for case in &cases {
        case.check().map_err(|message| format!("case {}: {message}", case.id))?;
    }
    Ok(cases)
}

impl Case {
    fn new(id: &str, title: &str) -> Case {
        Case {
            id: id.into(),
            title: title.into(),
            any_delivery: true,
            only: None,
            one_process: false,
            plan: String::new(),
            why: false,
            difference: false,
            items: Vec::new(),
        }
    }

    fn read(&mut self, number: usize, only: Option<Origin>, line: &str, pieces: &mut Vec<usize>) -> Result<(), String> {
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if only.is_some() && !matches!(keyword, "<" | "!") {
            return Err("only replies (<) and events (!) can differ between libraries".into());
        }
        let mut push = |kind| self.items.push(Item { line: number, only, kind });
        match keyword {
            "why" => self.why = !rest.is_empty(),
            "defect" | "difference" if !rest.is_empty() => self.difference = true,
            "only" if rest == "ours" => self.only = Some(Origin::Ours),
            "one" if rest == "process" => self.one_process = true,
            "callbacks" | "flags" | "version" | "name" | "before" | "on" => {
                self.plan.push_str(line);
                self.plan.push('\n');
            }
            ">" => {
                let octets: Vec<u8> = words::split(rest)?
                    .iter()
                    .map(|words| wire::command(words))
                    .collect::<Result<Vec<_>, _>>()?
                    .concat();
                push(Kind::Send(cut(octets, &std::mem::take(pieces))?));
            }
            "<" => {
                for words in words::split(rest)? {
                    push(Kind::Reply(match &words[..] {
                        [only] if only.octets == b"EOF" => ExpectedReply::End,
                        words => ExpectedReply::Frame(wire::reply(words)?),
                    }));
                }
            }
            "!" => {
                for words in words::split(rest)? {
                    push(event_or_log(words)?);
                }
            }
            "split" => {
                *pieces = numbers(rest)?;
                self.any_delivery = false;
            }
            "connect" => push(Kind::Act(Act::Connect)),
            "shutdown" => push(Kind::Act(Act::Shutdown)),
            "close" => push(Kind::Act(Act::Close)),
            "pause" => {
                let [time] = numbers(rest)?[..] else { return Err("pause MILLISECONDS".into()) };
                push(Kind::Act(Act::Pause(Duration::from_millis(time as u64))));
                self.any_delivery = false;
            }
            _ => return Err(format!("'{keyword}' is not a word of dialogues")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if !self.why {
            return Err("a line 'why ...' is missing".into());
        }
        let differs = self.only.is_some() || self.items.iter().any(|item| item.only.is_some());
        if differs != self.difference {
            return Err("'only', 'ours:' and 'reference:' need 'defect N' or 'difference ...', and it them".into());
        }
        for origin in [Origin::Ours, Origin::Reference] {
            let mut ended = false;
            for item in self.items.iter().filter(|item| item.concerns(origin)) {
                match item.kind {
                    Kind::Reply(_) if ended => {
                        return Err(format!("line {}: a reply of {origin} after its end", item.line));
                    }
                    Kind::Reply(ExpectedReply::End) => ended = true,
                    Kind::Act(Act::Connect) => ended = false,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The plan for the recorder.
    #[must_use]
    pub fn plan(&self) -> &str {
        &self.plan
    }

    /// What the MTA does when it talks to a filter of this library. After an expected end of the
    /// connection nothing more is sent on it; at the end of the case the MTA says that it has
    /// nothing more to send and waits for the filter to close.
    #[must_use]
    pub fn script(&self, origin: Origin) -> Script {
        let mut steps = vec![Step::Connect];
        let mut open = true;
        let mut events = 0;
        let mut logs = 0;
        for item in self.items.iter().filter(|item| item.concerns(origin)) {
            match &item.kind {
                Kind::Send(pieces) if open => {
                    for (at, piece) in pieces.iter().enumerate() {
                        if at > 0 {
                            steps.push(Step::Pause(BETWEEN_PIECES));
                        }
                        steps.push(Step::Send(piece.clone()));
                    }
                }
                Kind::Reply(ExpectedReply::Frame(_)) => match steps.last_mut() {
                    Some(Step::Await(count)) => *count += 1,
                    _ => steps.push(Step::Await(1)),
                },
                Kind::Reply(ExpectedReply::End) => {
                    steps.push(Step::AwaitEnd);
                    open = false;
                }
                Kind::Event(_) => events += 1,
                Kind::Act(Act::Connect) => {
                    if open {
                        steps.extend([Step::Shutdown, Step::AwaitEnd]);
                    }
                    steps.push(Step::Connect);
                    open = true;
                }
                Kind::Act(Act::Shutdown) if open => steps.push(Step::Shutdown),
                Kind::Act(Act::Close) if open => {
                    steps.push(Step::Close);
                    open = false;
                }
                Kind::Act(Act::Pause(time)) => steps.push(Step::Pause(*time)),
                Kind::Log(severity) => logs += severity.count,
                Kind::Send(_) | Kind::Act(_) => {}
            }
        }
        if open {
            steps.extend([Step::Shutdown, Step::AwaitEnd]);
        }
        // The end of a connection comes after its callbacks, but not always after its log messages.
        if !open || logs > 0 {
            steps.push(Step::AwaitRecord(events + logs));
        }
        Script { steps }
    }

    /// What a filter of this library has to do.
    #[must_use]
    pub fn expectation(&self, origin: Origin) -> Expectation {
        let mut expectation = Expectation { output: self.plan.contains("setdbg"), ..Expectation::default() };
        let mut open = true;
        for item in self.items.iter().filter(|item| item.concerns(origin)) {
            match &item.kind {
                Kind::Reply(reply) => {
                    open = *reply != ExpectedReply::End;
                    expectation.replies.push((item.line, reply.clone()));
                }
                Kind::Event(event) => expectation.events.push((item.line, event.clone())),
                Kind::Log(severity) => match expectation.logs.iter_mut().find(|(level, _)| *level == severity.level) {
                    Some((_, count)) => *count += severity.count,
                    None => expectation.logs.push((severity.level, severity.count)),
                },
                Kind::Act(Act::Connect) => {
                    if open {
                        expectation.replies.push((item.line, ExpectedReply::End));
                    }
                    open = true;
                }
                Kind::Act(Act::Close) => open = false,
                Kind::Act(Act::Shutdown | Act::Pause(_)) | Kind::Send(_) => {}
            }
        }
        if origin == Origin::Ours {
            let ended = expectation.replies.iter().any(|(_, reply)| *reply == ExpectedReply::End);
            let named: Vec<u8> = expectation.logs.iter().map(|(level, _)| *level).collect();
            let quiet = (0..=4).filter(|level| !named.contains(level) && (*level != ERROR || !ended));
            expectation.logs.extend(quiet.map(|level| (level, 0)));
        }
        if open {
            expectation.replies.push((self.items.last().map_or(0, |item| item.line), ExpectedReply::End));
        }
        expectation
    }
}

impl Item {
    fn concerns(&self, origin: Origin) -> bool {
        self.only.is_none_or(|only| only == origin)
    }
}

/// What the log says when the filter ends a connection, as in syslog(3).
const ERROR: u8 = 3;

/// The pause that makes it likely that two pieces are read separately.
const BETWEEN_PIECES: Duration = Duration::from_millis(5);

fn cut(octets: Vec<u8>, sizes: &[usize]) -> Result<Vec<Vec<u8>>, String> {
    let mut rest = &octets[..];
    let mut pieces = Vec::new();
    for &size in sizes {
        let (piece, after) = rest.split_at_checked(size).ok_or("split beyond the end of the commands")?;
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces.push(rest.to_vec());
    Ok(pieces)
}

fn numbers(text: &str) -> Result<Vec<usize>, String> {
    text.split_whitespace().map(|word| word.parse().map_err(|_| format!("{word} is not a number"))).collect()
}

fn event_or_log(words: Vec<Word>) -> Result<Kind, String> {
    let texts: Vec<&[u8]> = words.iter().map(|word| &word.octets[..]).collect();
    let (count, level) = match texts[..] {
        [b"log", level] => (1, level),
        [b"no", b"log", level] => (0, level),
        [] => return Err("nothing between two semicolons".into()),
        _ => return Ok(Kind::Event(Event::new(words))),
    };
    match level {
        [digit @ b'0'..=b'7'] => Ok(Kind::Log(Severity { level: digit - b'0', count })),
        _ => Err("a severity is a digit from 0 to 7".into()),
    }
}
