//! Which command may follow which.
//!
//! An MTA leaves out what a filter does not want, so a command is also accepted when everything between the current
//! state and the command's own has been left out.
//!
//! UNKNOWN, ABORT, QUIT and QUIT_NC may come at any time; there is no order to them.

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
    /// ABORT: a number for log lines, no session stands here.
    Abort = 12,
    /// An unknown SMTP command: a number for log lines, no session stands here.
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
///
/// What cannot follow where a session stands, but could follow HELO, starts again from there. That is how a message in
/// the middle of a message is taken, and HELO or MAIL before any offer.
const SUCCESSORS: [StateSet; 15] = [
    set(&[Negotiated]),
    set(&[Connect]),
    set(&[Helo, Mail]),
    set(&[Helo, Mail]),
    set(&[Rcpt]),
    set(&[Rcpt, Data, Header, Eoh, Body, Eom]),
    set(&[Header, Eoh, Body, Eom]),
    set(&[Header, Eoh, Body, Eom]),
    set(&[Body, Eom]),
    set(&[Body, Eom]),
    set(&[Mail]),
    set(&[]),
    set(&[]),
    set(&[]),
    set(&[Connect]),
];

impl State {
    /// What may follow this state directly.
    pub fn successors(self) -> StateSet {
        SUCCESSORS[self as usize]
    }

    /// Whether `wanted` may follow, given the states that the MTA leaves out.
    pub fn reaches(self, wanted: State, left_out: StateSet) -> bool {
        let mut passed = self as usize;
        loop {
            if SUCCESSORS[passed] & set(&[wanted]) != 0 {
                return true;
            }
            passed += 1;
            if left_out & (1 << passed) == 0 {
                return false;
            }
        }
    }

    /// The states an MTA leaves out under `steps`.
    pub fn left_out(steps: Steps) -> StateSet {
        CommandCode::all()
            .filter(|command| steps.intersects(command.left_out_step()))
            .filter_map(State::after)
            .fold(0, |states, state| states | set(&[state]))
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
    }

    #[test]
    fn successors_are_told_as_bits() {
        assert_eq!(Init.successors(), 1 << 1);
        assert_eq!(Helo.successors(), 1 << 3 | 1 << 4);
        assert_eq!(Quit.successors(), 0);
    }

    #[test]
    fn every_search_ends() {
        let everything = State::left_out(Steps::all());
        for command in CommandCode::all() {
            let Some(from) = State::after(command) else { continue };
            assert!(!from.reaches(Init, everything), "{from:?}");
        }
    }

    #[test]
    fn defect_4_content_is_optional() {
        for from in [Rcpt, Data, Header, Eoh, Body] {
            assert!(from.reaches(Eom, 0), "{from:?}");
        }
    }

    #[test]
    fn unknown_commands_are_no_place_to_pass() {
        let unknown = State::left_out(Steps::NO_UNKNOWN);
        for from in [Init, Negotiated, Connect, Helo, Eom, QuitNewConnection] {
            for wanted in [Rcpt, Data, Body, Eom] {
                assert!(!from.reaches(wanted, unknown), "{from:?} {wanted:?}");
            }
        }
    }
}
