//! Which command may follow which.
//!
//! An MTA leaves out what a filter does not want, so a command is also accepted when everything between the current
//! state and the command's own has been left out.

use crate::command::CommandCode;
use crate::flags::Steps;

/// Where a session stands: after which command. Numbers appear in log and debug lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Connected, nothing said.
    Init = 0,
    /// Negotiated.
    Negotiated = 1,
    /// CONNECT.
    Connect = 2,
    /// HELO, and between messages.
    Helo = 3,
    /// MAIL.
    Mail = 4,
    /// RCPT.
    Rcpt = 5,
    /// DATA.
    Data = 6,
    /// HEADER.
    Header = 7,
    /// End of headers.
    Eoh = 8,
    /// BODY.
    Body = 9,
    /// End of message.
    Eom = 10,
    /// QUIT.
    Quit = 11,
    /// ABORT.
    Abort = 12,
    /// An unknown SMTP command: never where a session stands, only a place it can pass.
    Unknown = 13,
    /// QUIT with a new connection to follow.
    QuitNewConnection = 14,
}

/// A set of states, one bit each.
pub type StateSet = u16;

const fn set(states: &[State]) -> StateSet {
    let mut set = 0;
    let mut i = 0;
    while i < states.len() {
        set |= 1 << states[i] as u16;
        i += 1;
    }
    set
}

use State::*;

/// By state: what may follow directly. Headers, end of headers and body are optional whenever a message has a
/// recipient; a message may have none of them.
const SUCCESSORS: [StateSet; 15] = [
    set(&[Negotiated]),
    set(&[Connect, Unknown]),
    set(&[Helo, Mail, Unknown]),
    set(&[Helo, Mail, Unknown]),
    set(&[Rcpt, Abort, Unknown]),
    set(&[Rcpt, Data, Header, Eoh, Body, Eom, Abort, Unknown]),
    set(&[Header, Eoh, Body, Eom, Abort]),
    set(&[Header, Eoh, Body, Eom, Abort]),
    set(&[Body, Eom, Abort]),
    set(&[Body, Eom, Abort]),
    set(&[Mail, Unknown, Quit, QuitNewConnection]),
    set(&[]),
    set(&[]),
    set(&[Helo, Mail, Rcpt, Data, Body, Abort, Unknown, Quit, QuitNewConnection]),
    set(&[Connect, Unknown]),
];

const IN_ORDER: [State; 15] = [
    Init,
    Negotiated,
    Connect,
    Helo,
    Mail,
    Rcpt,
    Data,
    Header,
    Eoh,
    Body,
    Eom,
    Quit,
    Abort,
    Unknown,
    QuitNewConnection,
];

impl State {
    /// The state a command leads to; MACRO leads nowhere.
    pub fn after(command: CommandCode) -> Option<State> {
        Some(match command {
            CommandCode::Macro => return None,
            CommandCode::Negotiate => Negotiated,
            CommandCode::Connect => Connect,
            CommandCode::Helo => Helo,
            CommandCode::Mail => Mail,
            CommandCode::Rcpt => Rcpt,
            CommandCode::Data => Data,
            CommandCode::Header => Header,
            CommandCode::EndOfHeaders => Eoh,
            CommandCode::Body => Body,
            CommandCode::EndOfBody => Eom,
            CommandCode::Abort => Abort,
            CommandCode::Quit => Quit,
            CommandCode::QuitNewConnection => QuitNewConnection,
            CommandCode::Unknown => Unknown,
        })
    }

    /// What may follow this state directly.
    pub fn successors(self) -> StateSet {
        SUCCESSORS[self as usize]
    }

    /// Whether a message is in progress.
    pub fn in_message(self) -> bool {
        (Mail as u8..=Body as u8).contains(&(self as u8))
    }

    /// Whether `wanted` may follow, given the states that the MTA leaves out.
    pub fn reaches(self, wanted: State, left_out: StateSet) -> bool {
        IN_ORDER[self as usize + 1..]
            .iter()
            .take_while(|passed| left_out & set(&[**passed]) != 0)
            .chain(std::iter::once(&self))
            .any(|from| from.successors() & set(&[wanted]) != 0)
    }

    /// The states an MTA leaves out under `steps`.
    pub fn left_out(steps: Steps) -> StateSet {
        const TABLE: [(Steps, State); 9] = [
            (Steps::NO_CONNECT, Connect),
            (Steps::NO_HELO, Helo),
            (Steps::NO_MAIL, Mail),
            (Steps::NO_RCPT, Rcpt),
            (Steps::NO_DATA, Data),
            (Steps::NO_HEADERS, Header),
            (Steps::NO_EOH, Eoh),
            (Steps::NO_BODY, Body),
            (Steps::NO_UNKNOWN, Unknown),
        ];
        TABLE.iter().filter(|(step, _)| steps.contains(*step)).fold(0, |states, (_, state)| states | set(&[*state]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_passes_what_is_left_out() {
        let nothing = 0;
        let envelope = State::left_out(Steps::NO_CONNECT | Steps::NO_HELO | Steps::NO_MAIL | Steps::NO_RCPT);
        assert!(!Negotiated.reaches(Eom, nothing));
        assert!(Negotiated.reaches(Eom, envelope));
        assert!(Negotiated.reaches(Connect, envelope));
        assert!(!Negotiated.reaches(Helo, nothing));
        assert!(Negotiated.reaches(Helo, State::left_out(Steps::NO_CONNECT)));
        assert!(!Abort.reaches(Rcpt, nothing));
        assert!(Abort.reaches(Rcpt, State::left_out(Steps::NO_UNKNOWN)));
    }

    #[test]
    fn defect_4_content_is_optional() {
        for from in [Rcpt, Data, Header, Eoh, Body] {
            assert!(from.reaches(Eom, 0), "{from:?}");
        }
    }

    #[test]
    fn messages_last_from_mail_to_body() {
        let inside: Vec<State> = IN_ORDER.into_iter().filter(|state| state.in_message()).collect();
        assert_eq!(inside, [Mail, Rcpt, Data, Header, Eoh, Body]);
    }
}
