//! The MTA's side of the milter protocol as a command-line tool.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use milter_probe::arguments::{Arguments, Task};
use milter_probe::palette::{BAD, Palette};
use milter_probe::ping::Health;
use milter_probe::{inspect, load, ping, replay, send};
use milter_protocol::escape::EscapedLines;

fn main() -> ExitCode {
    let Arguments { task } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // What cannot be understood says nothing about the filter.
        Err(error) if error.use_stderr() && std::env::args_os().nth(1).is_some_and(|task| task == "ping") => {
            let _ = error.print();
            return Health::Unknown.into();
        }
        Err(error) => error.exit(),
    };
    let ended = match &task {
        Task::Send(options) => send::run(options),
        Task::Load(options) => load::command(options),
        Task::Ping(options) => Ok(ping::run(options)),
        Task::Inspect(options) => inspect::run(options),
        Task::Replay(options) => replay::run(options),
        Task::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "milter-probe", &mut script);
            Ok(if io::stdout().write_all(&script).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    };
    ended.unwrap_or_else(|error| {
        let text = error.to_string();
        let name = Palette::for_errors().paint(BAD, "milter-probe:");
        eprintln!("{name} {}", EscapedLines(text.as_bytes()));
        ExitCode::from(error.exit_status())
    })
}
