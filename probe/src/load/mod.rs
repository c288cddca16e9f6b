//! The sub-command `load`: many sessions at once, and how the filter does.

mod conversation;
mod crowd;
mod driver;
mod endpoint;
mod plan;
mod run;
mod script;
mod summary;
mod tally;
mod workload;
mod world;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use milter_protocol::escape::EscapedJson;

pub use self::crowd::{Crowd, Ground};
pub use self::plan::Plan;
pub use self::run::{Progress, run};
pub use self::summary::Summary;
pub use self::tally::{Latencies, Tally};
pub use self::workload::Workload;
use crate::arguments::Load;
use crate::envelope::Envelope;
use crate::mail::Mail;
use crate::mta::Patience;
use crate::palette::Palette;
use crate::send::{self, Error};

/// How long a run lasts that is told neither a duration nor a number of messages.
const DURATION: Duration = Duration::from_secs(10);

/// Runs the sub-command.
pub fn command(options: &Load) -> Result<ExitCode, Error> {
    let plan = plan(options)?;
    let bar = Bar::new(&plan);
    let summary = run(&plan, &mut |progress| bar.show(progress))
        .map_err(|failure| Error::Filter(plan.target.clone(), failure))?;
    drop(bar);
    let mut stdout = io::stdout().lock();
    let written = if options.json {
        writeln!(stdout, "{}", EscapedJson(&format!("{:#}", summary.json())))
    } else {
        summary.write(&mut stdout, Palette::for_stream(&io::stdout()))
    };
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::File("standard output".into(), error)),
        _ => Ok(ExitCode::from(summary.exit_status())),
    }
}

fn plan(options: &Load) -> Result<Plan, Error> {
    let workload = match &options.message {
        None => Workload::made_up(options.mta, options.recipients, options.body),
        Some(path) => {
            let text = send::read(path)?;
            Workload::of(options.mta, Mail::parse(&text), Envelope::suggested_by(&text))
        }
    };
    let workload = Workload { macros: options.macros.clone(), ..workload };
    let endless = options.duration.is_none() && options.messages.is_none();
    Ok(Plan {
        connections: options.connections,
        per_session: options.per_session,
        messages: options.messages,
        duration: if endless { Some(DURATION) } else { options.duration },
        warmup: options.warmup.unwrap_or_default(),
        rate: options.rate,
        pause: options.pause.unwrap_or_default(),
        patience: options.timeout.map_or(options.mta.patience(), Patience::uniform),
        threads: options.threads,
        ..Plan::new(options.socket.clone(), workload)
    })
}

/// A progress bar on standard error; invisible unless that is a terminal.
struct Bar {
    bar: ProgressBar,
    /// Milliseconds or messages.
    by_time: bool,
}

impl Bar {
    fn new(plan: &Plan) -> Self {
        let (template, len) = match (plan.messages, plan.duration) {
            (Some(messages), _) => ("{bar:40} {pos}/{len} {msg}", messages),
            (None, duration) => {
                let total = plan.warmup + duration.unwrap_or_default();
                ("{bar:40} {elapsed} of {prefix} s, {msg}", u64::try_from(total.as_millis()).unwrap_or(u64::MAX))
            }
        };
        let style = ProgressStyle::with_template(template).expect("the template is valid");
        let bar = if io::stderr().is_terminal() { ProgressBar::new(len) } else { ProgressBar::hidden() };
        let seconds = Duration::from_millis(len).as_secs_f32();
        Bar { bar: bar.with_style(style).with_prefix(format!("{seconds:.0}")), by_time: plan.messages.is_none() }
    }

    fn show(&self, progress: Progress) {
        let position = match self.by_time {
            true => u64::try_from(progress.elapsed.as_millis()).unwrap_or(u64::MAX),
            false => progress.done,
        };
        self.bar.set_position(position);
        self.bar.set_message(format!("{:.0}/s", progress.done as f64 / progress.elapsed.as_secs_f64()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Octets, as `500`, `64k` or `10M`.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let size = digits.parse::<usize>().ok().and_then(|size| size.checked_mul(factor));
    size.filter(|&size| size <= 1 << 30).ok_or_else(|| "use a number of octets up to 1024M, as in 500, 64k, 10M".into())
}
