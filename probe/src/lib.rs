//! The MTA's side of the milter protocol.
//!
//! The tool `milter-probe` plays an MTA to a running filter and shows what the filter does to a message. This library
//! is its inside: a [`Session`] is one connection to a filter, given messages and answering with [`Outcome`]s.
//!
//! | module | what |
//! |---|---|
//! | [`arguments`] | the command line |
//! | [`send`] | the sub-command that passes messages to a filter |
//! | [`load`] | the sub-command that passes many, and measures |
//! | [`ping`] | the sub-command that says whether a filter answers |
//! | [`inspect`] | the sub-command that says what a filter asks for |
//! | [`replay`] | the sub-command that plays a recorded session |
//! | [`target`] | where the filter listens |
//! | [`wire`] | frames out and in, with deadlines |
//! | [`mta`] | the MTAs that can be played, and where they differ |
//! | [`session`] | the conversation |
//! | [`negotiation`], [`macros`], [`client`], [`envelope`], [`mail`] | what the conversation is about |
//! | [`delivery`] | a message with the filter's changes, put together as the MTA does it |
//! | [`outcome`], [`smtp`] | what becomes of a message, and what the SMTP client is told |
//! | [`failure`], [`stranger`] | what goes wrong |
//! | [`diff`] | two messages line by line |
//! | [`report`], [`palette`] | all of this for human eyes |
//! | [`document`] | the same for programs |
#![forbid(unsafe_code)]

mod answer;
pub mod arguments;
pub mod client;
pub mod delivery;
pub mod diff;
pub mod document;
pub mod envelope;
pub mod failure;
pub mod inspect;
pub mod load;
pub mod macros;
pub mod mail;
pub mod mta;
pub mod negotiation;
pub mod outcome;
pub mod palette;
pub mod ping;
pub mod reason;
pub mod replay;
pub mod report;
pub mod send;
pub mod session;
pub mod smtp;
pub mod stranger;
pub mod target;
pub mod wire;

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use client::Client;
pub use envelope::{Envelope, Mailbox};
pub use failure::Failure;
pub use mail::Mail;
pub use mta::Mta;
pub use outcome::{Fate, Outcome};
pub use session::Session;
pub use target::Target;
