//! A session driven by a scripted filter and a scripted MTA.

use std::mem;

use milter_protocol::{Actions, Callback, Callbacks, Command, Engine, Notice, Profile, SmtpReply, Steps, frame};

/// A session whose callbacks return what a table says, and otherwise CONTINUE.
pub(crate) struct Conversation {
    pub(crate) engine: Engine,
    returns: Vec<(&'static str, i32)>,
    /// Steps to write into the negotiation's result.
    pub(crate) wanted: Option<Steps>,
    /// How many callbacks go well before the connection is lost in one.
    pub(crate) lost_in: Option<usize>,
    pub(crate) called: Vec<&'static str>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) replies: String,
}

pub(crate) fn profile(callbacks: Callbacks) -> Profile {
    Profile { version: 0x0100_0001, actions: Actions::VERSION_6, callbacks, promised: Steps::empty() }
}

impl Conversation {
    pub(crate) fn new(callbacks: Callbacks, returns: &[(&'static str, i32)]) -> Self {
        Conversation {
            engine: Engine::new(profile(callbacks), frame::DEFAULT_LIMIT),
            returns: returns.to_vec(),
            wanted: None,
            lost_in: None,
            called: Vec::new(),
            notices: Vec::new(),
            replies: String::new(),
        }
    }

    pub(crate) fn negotiated(callbacks: Callbacks, returns: &[(&'static str, i32)]) -> Self {
        let mut conversation = Self::new(callbacks, returns);
        conversation.negotiate(6, Steps::VERSION_6);
        conversation
    }

    pub(crate) fn quiet(offered: Steps, returns: &[(&'static str, i32)]) -> Self {
        let mut conversation = Self::new(Callbacks::all(), returns);
        conversation.wanted = Some(Steps::NO_REPLY);
        conversation.negotiate(6, offered);
        conversation
    }

    pub(crate) fn negotiate(&mut self, version: u32, steps: Steps) {
        self.say(&[Command::Negotiate { version, actions: Actions::VERSION_6, steps }]);
        self.called.clear();
        self.replies.clear();
        self.notices.clear();
    }

    pub(crate) fn say(&mut self, commands: &[Command<'_>]) -> &mut Self {
        for command in commands {
            let mut wire = Vec::new();
            command.encode(&mut wire);
            let (start, payload) = wire.split_at_mut(frame::HEADER_LEN);
            self.take(start[4], payload);
        }
        self
    }

    pub(crate) fn take(&mut self, letter: u8, payload: &mut [u8]) {
        if self.engine.is_finished() {
            return;
        }
        self.engine.handle_command(letter, payload);
        self.run(payload);
    }

    pub(crate) fn store_reply(&mut self, code: &[u8]) {
        self.engine.store_reply(SmtpReply::single(code, None, Some(b"text")).unwrap());
    }

    pub(crate) fn lose(&mut self) -> &mut Self {
        self.engine.handle_disconnect();
        self.run(&mut []);
        self
    }

    pub(crate) fn run(&mut self, payload: &mut [u8]) {
        loop {
            let callback = self.engine.poll_callback(payload);
            self.notices.extend(self.engine.poll_notice());
            let Some(callback) = callback else { break };
            let name = name(&callback);
            self.called.push(name);
            let value = self.returns.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value);
            let lost = self.lost_in.as_mut().is_some_and(|left| mem::replace(left, left.wrapping_sub(1)) == 0);
            match callback {
                _ if lost => self.engine.handle_disconnect(),
                Callback::Negotiate(mut offer) => {
                    offer.wanted_steps = self.wanted.map_or(offer.wanted_steps, |steps| steps.bits());
                    self.engine.answer_negotiation(value, &offer);
                }
                _ => self.engine.answer(value),
            }
        }
        let output = mem::take(self.engine.output());
        let mut rest = &output[..];
        while let Some(header) = frame::parse(rest, usize::MAX - 8).unwrap() {
            self.replies.push(header.code.into());
            rest = &rest[header.frame_len()..];
        }
        assert!(rest.is_empty(), "only whole frames are sent");
    }
}

fn name(callback: &Callback<'_>) -> &'static str {
    match callback {
        Callback::Negotiate(_) => "negotiate",
        Callback::Connect { .. } => "connect",
        Callback::Helo(_) => "helo",
        Callback::EnvFrom(_) => "envfrom",
        Callback::EnvRcpt(_) => "envrcpt",
        Callback::Data => "data",
        Callback::Unknown(_) => "unknown",
        Callback::Header { .. } => "header",
        Callback::Eoh => "eoh",
        Callback::Body(_) => "body",
        Callback::Eom => "eom",
        Callback::Abort => "abort",
        Callback::Close => "close",
    }
}
