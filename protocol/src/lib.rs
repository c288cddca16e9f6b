//! The milter protocol without I/O.
//!
//! A milter ("mail filter") sits beside a mail transfer agent. The MTA opens a stream connection, offers what it can
//! do, and then reports every step of every SMTP session as a *command*; the filter looks at it and answers with a
//! *reply*: a verdict, at the end of a message preceded by *modifications*.
//!
//! This crate holds both ends of that wire and the filter's side of the conversation:
//!
//! | module | what |
//! |---|---|
//! | [`frame`] | packets: a length, a letter, a payload |
//! | [`command`] | what the MTA says, both directions of the codec |
//! | [`reply`], [`modification`] | what the filter says, both directions of the codec |
//! | [`flags`] | actions, protocol steps and callbacks as sets |
//! | [`negotiation`] | which of the offered actions and steps a session uses |
//! | [`state`] | which command may follow which |
//! | [`macros`] | the macros of a session, stage by stage |
//! | [`smtp_reply`] | the SMTP reply text a filter stores for its verdict |
//! | [`callback`], [`verdict`] | what the filter is asked, and what it may answer |
//! | [`engine`] | one session: commands in, callbacks and reply bytes out |
//! | [`failure`], [`notice`] | why a session fails, what else the operator should know |
//! | [`packet`] | commands and replies in words |
//! | [`escape`] | text of others, safe to show |
//! | [`record`] | recorded sessions |
//! | [`stranger`] | recognising peers that do not speak milter at all |
//!
//! Absent on purpose: sockets, clocks, threads, logging, process-wide state. An [`Engine`] is a plain value; whoever
//! owns it reads bytes, runs callbacks and writes bytes whenever and on whichever thread it likes.
#![forbid(unsafe_code)]

pub mod callback;
pub mod command;
pub mod engine;
pub mod escape;
pub mod failure;
pub mod flags;
pub mod frame;
pub mod macros;
pub mod modification;
pub mod negotiation;
pub mod notice;
pub mod packet;
pub mod record;
pub mod reply;
pub mod smtp_reply;
pub mod state;
pub mod stranger;
pub mod verdict;

pub use callback::{Arguments, Callback, ClientAddress, Offer};
pub use command::{Command, CommandCode};
pub use engine::{Engine, Profile};
pub use escape::Escaped;
pub use failure::Failure;
pub use flags::{Actions, Callbacks, Steps};
pub use macros::{MacroTable, RequestError, Stage};
pub use modification::{Modification, ModificationError};
pub use notice::Notice;
pub use packet::Packet;
pub use reply::Reply;
pub use smtp_reply::{SmtpReply, SmtpReplyError};
pub use state::State;
pub use verdict::Verdict;
