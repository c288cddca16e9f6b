//! The MTAs that can be played, and where they differ.

use std::time::Duration;

use clap::ValueEnum;
use milter_protocol::{Actions, Command, CommandCode, Stage, Steps};

use crate::wire::Grouping;

/// The MTA that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mta {
    /// Postfix 3
    Postfix,
    /// Sendmail 8
    Sendmail,
}

/// What an MTA offers a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Highest protocol version.
    pub version: u32,
    /// Actions.
    pub actions: Actions,
    /// Protocol steps.
    pub steps: Steps,
}

/// How long an MTA waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the connection.
    pub connect: Duration,
    /// For the answer to a command before the content.
    pub command: Duration,
    /// For the answer to a header or a piece of the body.
    pub content: Duration,
    /// For the next packet after the end of the message.
    pub end: Duration,
}

impl Patience {
    /// The same time for everything.
    pub fn uniform(time: Duration) -> Self {
        Patience { connect: time, command: time, content: time, end: time }
    }

    /// How long to wait for the answer to a command.
    pub fn for_answer(&self, command: CommandCode) -> Duration {
        match command {
            CommandCode::Header | CommandCode::EndOfHeaders | CommandCode::Body => self.content,
            CommandCode::EndOfBody => self.end,
            _ => self.command,
        }
    }
}

impl Mta {
    /// The name people know.
    pub fn name(self) -> &'static str {
        match self {
            Mta::Postfix => "Postfix",
            Mta::Sendmail => "Sendmail",
        }
    }

    /// What it offers; the same in both since Sendmail 8.14 and Postfix 2.6.
    pub fn offer(self) -> Offer {
        Offer { version: 6, actions: Actions::VERSION_6, steps: Steps::VERSION_6 }
    }

    /// Its timeouts as shipped.
    pub fn patience(self) -> Patience {
        let seconds = Duration::from_secs;
        match self {
            Mta::Postfix => {
                Patience { connect: seconds(30), command: seconds(30), content: seconds(300), end: seconds(300) }
            }
            Mta::Sendmail => {
                Patience { connect: seconds(300), command: seconds(10), content: seconds(10), end: seconds(300) }
            }
        }
    }

    /// How it groups packets into writes.
    pub fn grouping(self) -> Grouping {
        match self {
            Mta::Postfix => Grouping::Collected,
            Mta::Sendmail => Grouping::Single,
        }
    }

    /// Appends a command the way this MTA writes it.
    pub fn encode(self, command: &Command<'_>, out: &mut Vec<u8>) {
        match self {
            Mta::Postfix => command.encode(out),
            Mta::Sendmail => command.encode_for_sendmail(out),
        }
    }

    /// The macros it sends at a stage unless the filter asks for others: its shipped configuration.
    pub fn default_macros(self, stage: Stage) -> &'static [&'static str] {
        match (self, stage) {
            (Mta::Postfix, Stage::Connect) => &["j", "{daemon_name}", "{daemon_addr}", "v", "_"],
            (Mta::Sendmail, Stage::Connect) => &["j", "_", "{daemon_name}", "{if_name}", "{if_addr}"],
            (_, Stage::Helo) => &["{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}"],
            (Mta::Postfix, Stage::Mail) => {
                &["i", "{auth_type}", "{auth_authen}", "{auth_author}", "{mail_addr}", "{mail_host}", "{mail_mailer}"]
            }
            (Mta::Sendmail, Stage::Mail) => &[
                "i",
                "{auth_type}",
                "{auth_authen}",
                "{auth_ssf}",
                "{auth_author}",
                "{mail_mailer}",
                "{mail_host}",
                "{mail_addr}",
            ],
            (Mta::Postfix, Stage::Rcpt) => &["i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"],
            (Mta::Sendmail, Stage::Rcpt) => &["{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"],
            (Mta::Postfix, Stage::Data | Stage::Eoh | Stage::Eom) => &["i"],
            (Mta::Sendmail, Stage::Data | Stage::Eoh) => &[],
            (Mta::Sendmail, Stage::Eom) => &["{msg_id}"],
        }
    }

    /// The stage whose macros it sends before a command; `None` when it sends none. Postfix announces every command,
    /// headers and pieces of the body with the lists of what follows them, unknown commands with an empty list.
    pub fn macro_stage(self, command: CommandCode) -> Option<Option<Stage>> {
        match (self, command) {
            (Mta::Postfix, CommandCode::Header) => Some(Some(Stage::Eoh)),
            (Mta::Postfix, CommandCode::Body) => Some(Some(Stage::Eom)),
            (Mta::Postfix, CommandCode::Unknown) => Some(None),
            _ => Stage::from_letter(command.letter()).map(Some),
        }
    }

    /// Whether it sends the macros of a command although the filter does not want the command itself.
    pub fn announces_unwanted(self, command: CommandCode) -> bool {
        !matches!(command, CommandCode::Header | CommandCode::EndOfHeaders | CommandCode::Body)
    }

    /// Whether it waits on when a filter reports progress at this command.
    pub fn takes_progress(self, command: CommandCode) -> bool {
        match self {
            Mta::Postfix => command != CommandCode::Negotiate,
            Mta::Sendmail => command == CommandCode::EndOfBody,
        }
    }
}
