//! The MTA's side of a session that something may happen to.

use std::{path::Path, time::Duration};

use ctests::{MtaConnection, conversation::Reply};

use crate::scene::is_answered;

/// How long an answer may take before it counts as silence.
const SILENCE: Duration = Duration::from_secs(10);

/// How a session goes until something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Every command has been answered.
    Well,
    /// The filter has ended it, or could not be reached.
    Ended,
    /// A command was not answered in time.
    Silent,
}

/// A session, and what it has been answered.
#[derive(Debug)]
pub(crate) struct Talk {
    mta: Option<MtaConnection>,
    pub(crate) fate: Fate,
    /// What came for each command, in the notation of dialogues.
    pub(crate) answers: Vec<String>,
}

impl Talk {
    /// Connects.
    pub(crate) fn with(socket: &Path) -> Talk {
        let mta = MtaConnection::unix(socket).ok();
        let fate = if mta.is_some() { Fate::Well } else { Fate::Ended };
        Talk { mta, fate, answers: Vec::new() }
    }

    /// Whether a filter serves sessions here.
    pub(crate) fn is_answered_at(socket: &Path) -> bool {
        let mut talk = Talk::with(socket);
        talk.say(&["OPTNEG 6 1ff 1fffff", "QUIT"]);
        talk.fate == Fate::Well
    }

    /// Says one command after another, each when the one before has been answered, as long as all goes well.
    pub(crate) fn say(&mut self, commands: &[&str]) {
        for command in commands {
            let (Fate::Well, Some(mta)) = (self.fate, &mut self.mta) else { return };
            mta.command(command);
            if !is_answered(command) {
                continue;
            }
            let mut answer = Vec::new();
            loop {
                let reply = mta.receive(SILENCE);
                let is_last = match &reply {
                    // What is not a modification is the verdict, or the answer to the offer.
                    Reply::Frame(frame) => !b"himeb+2-qp".contains(&frame.letter),
                    Reply::End(_) => {
                        if *command != "QUIT" {
                            self.fate = Fate::Ended;
                        }
                        true
                    }
                    Reply::Silence => {
                        self.fate = Fate::Silent;
                        true
                    }
                };
                answer.push(reply.to_string());
                if is_last {
                    break;
                }
            }
            self.answers.push(answer.join(" ; "));
        }
    }
}
