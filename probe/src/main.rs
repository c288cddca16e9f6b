//! The MTA's side of the milter protocol as a command-line tool.

use std::process::ExitCode;

use clap::Parser;
use milter_probe::arguments::{Arguments, Task};
use milter_probe::palette::{BAD, Palette};
use milter_probe::{load, send};

fn main() -> ExitCode {
    let Arguments { task } = Arguments::parse();
    let ended = match &task {
        Task::Send(options) => send::run(options),
        Task::Load(options) => load::command(options),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("{} {error}", Palette::for_errors().paint(BAD, "milter-probe:"));
        ExitCode::from(error.exit_status())
    })
}
