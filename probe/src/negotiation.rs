//! What filter and MTA agreed on.

use milter_protocol::packet::stage_name;
use milter_protocol::{Actions, CommandCode, Reply, Stage, Steps};

use crate::failure::Failure;
use crate::mail::Header;
use crate::mta::Mta;

/// The filter's answer to the MTA's offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiation {
    /// Protocol version of the session.
    pub version: u32,
    /// What the filter may do.
    pub actions: Actions,
    /// What is left out, added or not answered.
    pub steps: Steps,
    /// Macros that the filter asks for, by stage.
    pub macros: Vec<(Stage, Vec<u8>)>,
}

/// What happens to a command under an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Nothing is sent.
    LeftOut,
    /// The filter does not want the command, but its macros are sent.
    Announced,
    /// The filter does not answer.
    Unanswered,
    /// The MTA waits for the answer.
    Answered,
}

const ACTIONS: [(Actions, &str); 9] = [
    (Actions::ADD_HEADERS, "add headers"),
    (Actions::CHANGE_HEADERS, "change headers"),
    (Actions::CHANGE_BODY, "replace the body"),
    (Actions::CHANGE_SENDER, "change the sender"),
    (Actions::ADD_RECIPIENTS, "add recipients"),
    (Actions::ADD_RECIPIENTS_WITH_ARGUMENTS, "add recipients with arguments"),
    (Actions::DELETE_RECIPIENTS, "delete recipients"),
    (Actions::QUARANTINE, "quarantine"),
    (Actions::REQUEST_MACROS, "choose macros"),
];

/// The commands in the order of a session, with the names that people have for them.
pub(crate) const COMMANDS: [(CommandCode, &str); 10] = [
    (CommandCode::Connect, "connect"),
    (CommandCode::Helo, "helo"),
    (CommandCode::Mail, "mail"),
    (CommandCode::Rcpt, "rcpt"),
    (CommandCode::Data, "data"),
    (CommandCode::Header, "headers"),
    (CommandCode::EndOfHeaders, "end of headers"),
    (CommandCode::Body, "body"),
    (CommandCode::EndOfBody, "end of message"),
    (CommandCode::Unknown, "unknown commands"),
];

const EXTRAS: [(Steps, &str); 3] = [
    (Steps::SKIP, "may skip the rest of the body"),
    (Steps::REJECTED_RCPT, "sees rejected recipients"),
    (Steps::LEADING_SPACE, "keeps blanks before header values"),
];

impl Negotiation {
    /// Takes the answer apart and checks it as the MTA does.
    pub fn check(mta: Mta, reply: Reply<'_>) -> Result<Self, Failure> {
        let refuse = |reason: String| Err(Failure::Negotiation { reason });
        let Reply::Negotiated { version, actions, steps, macros } = reply else {
            return refuse("the filter answered the offer with something else".to_owned());
        };
        let offer = mta.offer();
        let too_old = mta == Mta::Sendmail && version < 2;
        if version > offer.version || too_old {
            return refuse(format!("the filter wants protocol version {version}, {} speaks 2 to 6", mta.name()));
        }
        if !offer.actions.contains(actions) {
            let surplus = (actions - offer.actions).bits();
            return refuse(format!("the filter asks for actions that nobody offered: 0x{surplus:x}"));
        }
        // Postfix takes any steps; Sendmail refuses unknown ones, except for the sizes it may have offered.
        if mta == Mta::Sendmail && !offer.steps.contains(steps - Steps::INTERNAL) {
            let surplus = (steps - Steps::INTERNAL - offer.steps).bits();
            return refuse(format!("the filter asks for protocol steps that nobody offered: 0x{surplus:x}"));
        }
        let macros = macros.into_iter().map(|(stage, names)| (stage, names.to_vec())).collect();
        Ok(Negotiation { version, actions, steps, macros })
    }

    /// What the MTA does about a command.
    pub fn treatment(&self, mta: Mta, command: CommandCode) -> Treatment {
        if self.steps.intersects(command.left_out_step()) {
            if mta.announces_unwanted(command) { Treatment::Announced } else { Treatment::LeftOut }
        } else if command.expects_reply() && !self.steps.intersects(command.no_reply_step()) {
            Treatment::Answered
        } else {
            Treatment::Unanswered
        }
    }

    /// Name and value of a header as they travel. MTAs keep headers as C strings, so a NUL ends them.
    pub fn header_strings<'a>(&self, header: &'a Header) -> (&'a [u8], &'a [u8]) {
        let value = match self.steps.contains(Steps::LEADING_SPACE) {
            true => &header.value,
            false => header.unspaced_value(),
        };
        (&header.name, value.split(|&octet| octet == 0).next().unwrap_or_default())
    }

    /// What the filter may do, in words.
    pub fn actions(&self) -> Vec<&'static str> {
        ACTIONS.iter().filter(|(action, _)| self.actions.contains(*action)).map(|(_, name)| *name).collect()
    }

    /// What it asks for besides, in words.
    pub fn extras(&self) -> Vec<&'static str> {
        EXTRAS.iter().filter(|(step, _)| self.steps.contains(*step)).map(|(_, name)| *name).collect()
    }

    /// The commands that the agreed steps leave out, or leave unanswered, in words.
    fn commands(&self, step_for: fn(CommandCode) -> Steps) -> String {
        let agreed = COMMANDS.iter().filter(|(command, _)| self.steps.intersects(step_for(*command)));
        agreed.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }

    /// The agreement in words: what about, and what was agreed. Empty parts are left out.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let actions = self.actions().join(", ");
        let macros = self.macros.iter().map(|(stage, names)| {
            let names = String::from_utf8_lossy(names);
            format!("{}: {}", stage_name(*stage).replace('-', " "), if names.is_empty() { "none" } else { &names })
        });
        let mut words = vec![
            ("version", self.version.to_string()),
            ("may", if actions.is_empty() { "change nothing".to_owned() } else { actions }),
            ("does not want", self.commands(CommandCode::left_out_step)),
            ("does not answer", self.commands(CommandCode::no_reply_step)),
            ("and", self.extras().join(", ")),
            ("macros", macros.collect::<Vec<_>>().join("; ")),
        ];
        words.retain(|(_, text)| !text.is_empty());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(version: u32, actions: u32, steps: u32) -> Reply<'static> {
        let (actions, steps) = (Actions::from_bits_retain(actions), Steps::from_bits_retain(steps));
        Reply::Negotiated { version, actions, steps, macros: vec![(Stage::Eom, b"i"), (Stage::Helo, b"")] }
    }

    #[test]
    fn answers_beyond_the_offer_are_refused() {
        for mta in [Mta::Postfix, Mta::Sendmail] {
            assert!(Negotiation::check(mta, reply(6, 0x1ff, 0x1f_ffff)).is_ok());
            assert!(Negotiation::check(mta, reply(7, 0, 0)).is_err());
            assert!(Negotiation::check(mta, reply(6, 0x200, 0)).is_err());
            assert!(Negotiation::check(mta, Reply::Continue).is_err());
        }
        assert!(Negotiation::check(Mta::Postfix, reply(6, 0, 0x20_0000)).is_ok());
        assert!(Negotiation::check(Mta::Sendmail, reply(6, 0, 0x20_0000)).is_err());
        assert!(Negotiation::check(Mta::Sendmail, reply(6, 0, 0x1000_0000)).is_ok());
        assert!(Negotiation::check(Mta::Sendmail, reply(1, 0, 0)).is_err());
    }

    #[test]
    fn agreements_read_as_words() {
        let negotiation = Negotiation::check(Mta::Postfix, reply(6, 0x1, 0x582)).unwrap();
        assert_eq!(
            negotiation.words(),
            [
                ("version", "6".to_owned()),
                ("may", "add headers".to_owned()),
                ("does not want", "helo, unknown commands".to_owned()),
                ("does not answer", "headers".to_owned()),
                ("and", "may skip the rest of the body".to_owned()),
                ("macros", "end of message: i; helo: none".to_owned()),
            ]
        );
    }
}
