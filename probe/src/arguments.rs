//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::client::Client;
use crate::load;
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

const LOAD_EXIT_STATUS: &str = "\
Exit status, whatever the verdicts are:
  0  every message got one
  2  wrong usage
  6  no connection to the filter
  7  the filter broke the protocol, hung up, or is no filter
  8  the filter did not answer in time
  9  a file could not be read";

const PING_EXIT_STATUS: &str = "\
Exit status:
  0  the filter answers in time
  1  slower than --warning
  2  slower than --critical, no connection, or no right answer
  3  wrong usage";

const INSPECT_EXIT_STATUS: &str = "\
Exit status:
  0  the filter has answered
  2  wrong usage
  6  no connection to the filter
  7  the filter broke the protocol, hung up, or is no filter
  8  the filter did not answer in time";

const REPLAY_EXIT_STATUS: &str = "\
Exit status:
  0  every reply is the same
  1  a reply differs
  2  wrong usage
  6  no connection to the filter
  7  the filter broke the protocol, or is no filter
  8  the filter did not answer in time
  9  the file could not be read, or is no record";

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

    /// Pass many messages to a filter at once; show how many it takes a second and how long it takes to answer
    #[command(after_help = LOAD_EXIT_STATUS)]
    Load(Load),

    /// Say whether a filter answers, and how fast, in one line and the exit status that monitoring wants
    #[command(after_help = PING_EXIT_STATUS)]
    Ping(Ping),

    /// Show what a filter asks for: changes, stages, replies, macros
    #[command(after_help = INSPECT_EXIT_STATUS)]
    Inspect(Inspect),

    /// Play a recorded session to a filter; show the first reply that is not what it was
    #[command(after_help = REPLAY_EXIT_STATUS)]
    Replay(Replay),

    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// Where the filter listens, as the filter itself is told: unix:/path, local:/path, /path, inet:port@host or
    /// inet6:port@host
    #[arg(short, long, value_name = "SOCKET")]
    pub connect: Target,

    /// Longest wait for a reply [default: 5 minutes]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// The recorded session, which the option record=DIRECTORY of the library has made; "-" is standard input
    #[arg(value_name = "FILE")]
    pub record: PathBuf,
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

    /// The client speaks TLS: tls_version, cipher and cipher_bits have values, which --macro can change
    #[arg(long)]
    pub tls: bool,

    /// Value of a macro; repeatable. A macro that no stage asks for is sent with CONNECT
    #[arg(short, long = "macro", value_name = "NAME=VALUE")]
    pub macros: Vec<Definition>,

    /// Send the body in pieces of so many octets [default: 65535, as MTAs do]
    #[arg(long, value_name = "OCTETS", value_parser = clap::value_parser!(u16).range(1..))]
    pub chunk: Option<u16>,

    /// Longest wait for the filter at any point [default: what the MTA waits, 10 seconds to 5 minutes]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Show the lines in which the resulting message differs, as a unified diff, in place of the whole message
    #[arg(short, long)]
    pub diff: bool,

    /// Print what became of each message as JSON, one line for each
    #[arg(long, conflicts_with = "diff")]
    pub json: bool,

    /// Write the resulting message to a file and leave it out of the report; "-" writes it to standard output, and
    /// nothing else
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// The messages; "-" is standard input
    #[arg(required = true, value_name = "MESSAGE")]
    pub messages: Vec<PathBuf>,
}

/// Options of `load`.
#[derive(Debug, Args)]
pub struct Load {
    /// Where the filter listens, as the filter itself is told: unix:/path, local:/path, /path, inet:port@host or
    /// inet6:port@host
    pub socket: Target,

    /// The MTA to play
    #[arg(long = "as", value_enum, default_value_t = Mta::Postfix, value_name = "MTA")]
    pub mta: Mta,

    /// Sessions at once
    #[arg(short, long, value_name = "NUMBER", default_value_t = 8, value_parser = at_least_one)]
    pub connections: usize,

    /// Messages in a session before another one is opened in its place; with 0 sessions end after the negotiation
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub per_session: u64,

    /// End after so many messages (or sessions, where these have no messages)
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub messages: Option<u64>,

    /// End after this time [default: 10 seconds unless --messages is given]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// Time at the start that is not counted
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub warmup: Option<Duration>,

    /// Messages to begin each second, however long the filter takes for one [default: as many as it takes]
    #[arg(short, long, value_name = "NUMBER", value_parser = above_zero)]
    pub rate: Option<f64>,

    /// How long the SMTP client thinks before each of its commands
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub pause: Option<Duration>,

    /// Size of the body in octets, as in 500, 64k, 10M
    #[arg(short, long, value_name = "SIZE", default_value = "2k", value_parser = load::parse_size)]
    pub body: usize,

    /// Recipients of each message
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = at_least_one)]
    pub recipients: usize,

    /// Send this message instead of one that is made up, to the recipients that it names; "-" is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["body", "recipients"])]
    pub message: Option<PathBuf>,

    /// Value of a macro; repeatable. A macro that no stage asks for is sent with CONNECT
    #[arg(short = 'm', long = "macro", value_name = "NAME=VALUE")]
    pub macros: Vec<Definition>,

    /// Longest wait for the filter at any point [default: what the MTA waits, 10 seconds to 5 minutes]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Threads that play the MTA; one drives thousands of sessions
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = at_least_one)]
    pub threads: usize,

    /// Print the result as JSON, durations in milliseconds
    #[arg(long)]
    pub json: bool,
}

/// Options of `ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// Where the filter listens, as the filter itself is told: unix:/path, local:/path, /path, inet:port@host or
    /// inet6:port@host
    pub socket: Target,

    /// The MTA to play
    #[arg(long = "as", value_enum, default_value_t = Mta::Postfix, value_name = "MTA")]
    pub mta: Mta,

    /// Slower than this is a warning
    #[arg(short, long, value_name = "MILLISECONDS", value_parser = milliseconds)]
    pub warning: Option<Duration>,

    /// Slower than this is critical
    #[arg(short, long, value_name = "MILLISECONDS", value_parser = milliseconds)]
    pub critical: Option<Duration>,

    /// Longest wait for the filter, which is critical, too
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub timeout: Duration,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Where the filter listens, as the filter itself is told: unix:/path, local:/path, /path, inet:port@host or
    /// inet6:port@host
    pub socket: Target,

    /// The MTA to play
    #[arg(long = "as", value_enum, default_value_t = Mta::Postfix, value_name = "MTA")]
    pub mta: Mta,

    /// Longest wait for the filter at any point [default: what the MTA waits, 10 seconds to 5 minutes]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "use a number from 1".to_owned())
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "use a number above 0".to_owned())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    seconds(text).map(|seconds| seconds / 1000).map_err(|_| "use a number of milliseconds above 0".to_owned())
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
        for task in command.get_subcommands() {
            for option in task.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(readme.contains(&format!("`--{option}")), "{} --{option}", task.get_name());
            }
        }
    }

    #[test]
    fn the_manual_explains_every_option_and_exit_status() {
        let page = include_str!("../../man/milter-probe.1");
        let command = Arguments::command();
        for task in command.get_subcommands() {
            let name = task.get_name();
            let (_, explained) =
                page.split_once(&format!("\n.Ss {name}\n")).unwrap_or_else(|| panic!("no part {name}"));
            let explained = explained.split("\n.S").next().unwrap();
            for option in task.get_arguments() {
                let Some(long) = option.get_long() else { continue };
                let short = option.get_short().map(|letter| format!("Fl {letter} , ")).unwrap_or_default();
                let entry = format!(".It {short}Fl -{long}");
                let mut rest = explained.lines().filter_map(|line| line.strip_prefix(&entry));
                assert!(rest.any(|rest| rest.is_empty() || rest.starts_with(' ')), "{name}: {entry}");
            }
        }
        for line in EXIT_STATUS.lines().skip(1) {
            let (status, meaning) = line.trim().split_once("  ").unwrap();
            assert!(page.contains(&format!("\n.It {status}\n{meaning}\n")), "{line}");
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
