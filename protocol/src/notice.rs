//! What the operator should know.

use std::fmt;

use crate::command::CommandCode;
use crate::state::State;

/// Something the operator should know although the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The filter negotiated not to reply here but returned another verdict than `SMFIS_NOREPLY`; it counts as that.
    BrokenPromise {
        /// The command the callback was called for.
        command: CommandCode,
        /// What the callback returned.
        value: i32,
    },
    /// The filter returned `SMFIS_NOREPLY` where the MTA waits for a reply; it counts as `SMFIS_CONTINUE`.
    ReplyDue(CommandCode),
    /// Negotiation has ended well.
    Negotiated {
        /// Actions the MTA offered.
        offered_actions: u32,
        /// Steps the MTA offered.
        offered_steps: u32,
        /// Actions agreed on.
        actions: u32,
        /// Steps agreed on.
        steps: u32,
    },
    /// A command came where it means nothing, and was ignored; the MTA expects no reply to it.
    Ignored {
        /// The command.
        command: CommandCode,
        /// Where the session stands.
        state: State,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::BrokenPromise { command, value } => {
                let state = State::after(*command).map_or(0, |state| state as u8);
                write!(
                    f,
                    "claimed not to reply in state {state} but did anyway (value {value}), which is not sent; return \
                     SMFIS_NOREPLY, or leave this stage out of the SMFIP_NR_ flags and of the option noreply"
                )
            }
            Notice::ReplyDue(command) => {
                write!(
                    f,
                    "SMFIS_NOREPLY for {command} was not negotiated, the MTA waits for a reply: taken as SMFIS_CONTINUE"
                )
            }
            Notice::Negotiated { offered_actions, offered_steps, actions, steps } => write!(
                f,
                "milter_negotiate: mta_actions=0x{offered_actions:x}, mta_flags=0x{offered_steps:x}, \
                 actions=0x{actions:x}, flags=0x{steps:x}"
            ),
            Notice::Ignored { command, state } => write!(f, "ignored {command} in state {}", *state as u8),
        }
    }
}
