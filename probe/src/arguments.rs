//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::Client;
use crate::macros::Definition;
use crate::mta::Mta;
use crate::target::Target;

const EXIT_STATUS: &str = "\
Exit status (of the first message that is not accepted):
  0  accepted
  1  rejected (5xx)
  2  wrong usage
  3  tempfailed (4xx)
  4  discarded
  5  quarantined
  6  no connection to the filter
  7  the filter broke the protocol, hung up, or is no filter
  8  the filter did not answer in time
  9  a file could not be read or written";

const CLIENT: &str = "\
The SMTP client: NAME[ADDRESS], NAME[ADDRESS]:PORT, ADDRESS, or NAME without a known address; the address is IPv4, \
IPv6 or the path of a Unix socket [default: localhost[127.0.0.1]]";

/// Plays an MTA to a mail filter (milter) and shows what the filter does.
#[derive(Debug, Parser)]
#[command(name = "milter-probe", version, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
}

/// What the tool can do.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Pass messages to a filter; show its verdict, its changes, and the message as the MTA would deliver it
    #[command(after_help = EXIT_STATUS)]
    Send(Send),
}

/// Options of `send`.
#[derive(Debug, Args)]
pub struct Send {
    /// Where the filter listens, as the filter itself is told: unix:/path, local:/path, /path, inet:port@host or
    /// inet6:port@host
    #[arg(short, long, value_name = "SOCKET")]
    pub connect: Target,

    /// The MTA to play
    #[arg(long = "as", value_enum, default_value_t = Mta::Postfix, value_name = "MTA")]
    pub mta: Mta,

    /// Sender, with ESMTP arguments after blanks; "" for the null sender [default: from the headers]
    #[arg(short, long, value_name = "ADDRESS")]
    pub from: Option<String>,

    /// Recipient, with ESMTP arguments after blanks; repeatable [default: from the headers]
    #[arg(short, long, value_name = "ADDRESS")]
    pub rcpt: Vec<String>,

    /// What the client says in HELO [default: its name]
    #[arg(long, value_name = "NAME")]
    pub helo: Option<String>,

    /// The SMTP client.
    #[arg(long, value_name = "CLIENT", hide_default_value = true, default_value = "localhost[127.0.0.1]", help = CLIENT)]
    pub client: Client,

    /// Value of a macro; repeatable. A macro that no stage asks for is sent with CONNECT
    #[arg(short, long = "macro", value_name = "NAME=VALUE")]
    pub macros: Vec<Definition>,

    /// Longest wait for the filter at any point [default: what the MTA waits, 10 seconds to 5 minutes]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Write the resulting message to a file and leave it out of the report; "-" writes it to standard output, and
    /// nothing else
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// The messages; "-" is standard input
    #[arg(required = true, value_name = "MESSAGE")]
    pub messages: Vec<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|&seconds: &f64| seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "use a number of seconds above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_readme_lists_every_exit_status() {
        let readme = include_str!("../README.md");
        for line in EXIT_STATUS.lines().skip(1) {
            let (status, meaning) = line.trim().split_once("  ").unwrap();
            assert!(readme.contains(&format!("| {status} | {meaning} |")), "{line}");
        }
    }

    #[test]
    fn the_readme_names_every_option() {
        let readme = include_str!("../README.md");
        let command = Arguments::command();
        let send = command.find_subcommand("send").unwrap();
        for option in send.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(readme.contains(&format!("`--{option}")), "--{option}");
        }
    }

    #[test]
    fn seconds_are_positive_and_finite() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "x", "nan", "inf", "1e300"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
