//! How a sample is taken.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ctests::TempDir;
use milter_probe::load::{self, Crowd, Ground, Plan, Summary, Workload};
use milter_probe::{Mta, Session, Target};
use milter_protocol::CommandCode;

use crate::contestant::Contestant;
use crate::filter::{Filter, Socket};
use crate::machine::{self, Pinning, Processors};
use crate::measure::Measure;

/// What is done with a filter to take a sample.
#[derive(Clone, Debug)]
pub enum Trial {
    /// Traffic for some time.
    Load {
        /// What the filter does.
        mode: &'static str,
        /// Where it listens.
        socket: Socket,
        /// The traffic.
        shape: Shape,
        /// Who runs where.
        pinning: Pinning,
    },
    /// So many sessions that have passed HELO and then do nothing, but for a message on each of some.
    Idle(usize),
    /// Messages whose ends sleep.
    Slow {
        /// Sessions at once.
        connections: usize,
        /// Messages in each.
        messages: u64,
    },
    /// System calls of a message.
    Calls {
        /// What the filter does.
        mode: &'static str,
        /// Who sends it.
        mta: Mta,
        /// How often they are counted. Whatever else the machine does can only add to them, so the least counts.
        counts: usize,
    },
    /// SIGTERM with so many idle sessions.
    Stop(usize),
    /// Exec, connect, negotiate.
    Start,
}

/// The traffic of a load.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Who sends it.
    pub mta: Mta,
    /// Sessions at once.
    pub connections: usize,
    /// Messages in a session.
    pub per_session: u64,
    /// Octets of a body.
    pub body: usize,
    /// How long a client thinks before each of its commands.
    pub pause: Duration,
    /// How long messages are begun.
    pub duration: Duration,
}

/// Messages in a session that is not about sessions.
pub const MANY: u64 = 100;

/// Body of an ordinary message, in octets.
pub const SMALL: usize = 2048;

impl Shape {
    fn plan(self, target: &Target) -> Plan {
        let mut workload = Workload::made_up(self.mta, 1, self.body);
        // What MTAs know of most clients today.
        for definition in ["tls_version=TLSv1.3", "cipher=TLS_AES_256_GCM_SHA384", "cipher_bits=256"] {
            workload.macros.push(definition.parse().expect("a macro"));
        }
        Plan {
            connections: self.connections,
            per_session: self.per_session,
            messages: None,
            duration: Some(self.duration),
            warmup: self.duration / 5,
            pause: self.pause,
            ..Plan::new(target.clone(), workload)
        }
    }
}

impl Trial {
    /// Whether a contestant takes part.
    pub fn suits(&self, contestant: &Contestant) -> bool {
        match self {
            Trial::Load { mode, .. } | Trial::Calls { mode, .. } => contestant.plays(mode),
            Trial::Slow { .. } => contestant.plays("slow"),
            // What returns from smfi_main is a library.
            Trial::Stop(_) => contestant.library.is_some(),
            // Nobody wants so many processes.
            Trial::Idle(connections) => contestant.name != "fork" || *connections <= 2000,
            Trial::Start => true,
        }
    }

    /// Takes a sample of a contestant. `moment` is from 0 to 1 and another one in each round, for what depends on when
    /// something is done.
    ///
    /// # Errors
    ///
    /// When the filter fails, with what it failed at.
    pub fn sample(
        &self,
        contestant: &Contestant,
        moment: f64,
        processors: &Processors,
    ) -> Result<Vec<(Measure, f64)>, String> {
        match self {
            Trial::Load { mode, socket, shape, pinning } => {
                loaded(contestant, mode, *socket, *shape, *pinning, processors)
            }
            Trial::Idle(connections) => idle(contestant, *connections),
            Trial::Slow { connections, messages } => slow(contestant, *connections, *messages),
            Trial::Calls { mode, mta, counts } => {
                let counts =
                    (0..*counts).map(|_| system_calls(contestant, mode, *mta)).collect::<Result<Vec<_>, _>>()?;
                Ok(vec![(Measure::CallsPerMessage, counts.into_iter().fold(f64::INFINITY, f64::min))])
            }
            Trial::Stop(connections) => stop(contestant, *connections, moment),
            Trial::Start => start(contestant),
        }
    }
}

fn run(plan: &Plan, watch: &mut dyn FnMut(load::Progress)) -> Result<Summary, String> {
    let summary = load::run(plan, watch).map_err(|failure| failure.to_string())?;
    match summary.tally.failures.first() {
        Some((failure, count)) => Err(format!("{count} times {failure}")),
        None => Ok(summary),
    }
}

fn loaded(
    contestant: &Contestant,
    mode: &str,
    socket: Socket,
    shape: Shape,
    pinning: Pinning,
    processors: &Processors,
) -> Result<Vec<(Measure, f64)>, String> {
    let filter = processors.on_filter_side(pinning, || Filter::listening(contestant, mode, socket))?;
    let plan = shape.plan(&filter.target);
    let (own_cpu, cpu) = (machine::own_cpu(), filter.cpu());
    let mut resident = 0;
    let summary = processors.on_load_side(pinning, || {
        run(&plan, &mut |progress| {
            // Once, when all is under way: to look at hundreds of processes takes its time.
            if resident == 0 && progress.elapsed > (plan.warmup + shape.duration) / 2 {
                resident = filter.footprint().resident;
            }
        })
    })?;
    let (own_cpu, cpu) = ((machine::own_cpu() - own_cpu).as_secs_f64(), (filter.cpu() - cpu).as_secs_f64());
    let memory = filter.footprint().resident.max(resident) as f64 / 1024.0;
    let switches = filter.kill() as f64;
    let tally = &summary.tally;
    let (messages, sessions) = (tally.all_messages as f64, tally.all_sessions as f64);
    if tally.messages + tally.sessions == 0 {
        return Err("the machine was too busy for a single message".to_owned());
    }
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let octets = (tally.octets_sent + tally.octets_received) as f64;
    let seconds = (summary.counted + plan.warmup).as_secs_f64();
    let rcpt = tally.command_latencies.get(&CommandCode::Rcpt);
    let mut samples = vec![
        (Measure::Messages, summary.message_rate()),
        (Measure::MessagesPerCoreSecond, messages / (cpu + own_cpu)),
        (Measure::CpuPerMessage, cpu / messages * 1e6),
        (Measure::GeneratorCpu, own_cpu / messages * 1e6),
        (Measure::SwitchesPerMessage, switches / messages),
        (Measure::MessageP50, micros(tally.message_latencies.percentile(50.0))),
        (Measure::MessageP99, micros(tally.message_latencies.percentile(99.0))),
        (Measure::Throughput, octets / seconds / f64::from(1 << 20)),
        (Measure::Connections, summary.session_rate()),
        (Measure::CpuPerConnection, cpu / sessions * 1e6),
        (Measure::Memory, memory),
    ];
    samples.extend(rcpt.map(|rcpt| (Measure::RcptP99, micros(rcpt.percentile(99.0)))));
    Ok(samples)
}

/// Sessions that have passed HELO and then do nothing, but for a message on each of some.
fn idle(contestant: &Contestant, connections: usize) -> Result<Vec<(Measure, f64)>, String> {
    const WOKEN: usize = 200;
    let filter = Filter::listening(contestant, "noop", Socket::Unix)?;
    let before = filter.footprint();
    let mut plan = Shape {
        mta: Mta::Sendmail,
        connections,
        per_session: MANY,
        body: SMALL,
        pause: Duration::ZERO,
        duration: Duration::ZERO,
    }
    .plan(&filter.target);
    plan.duration = None;
    let ground = Ground::new(&plan).map_err(|failure| failure.to_string())?;
    let start = Instant::now();
    let mut crowd = Crowd::gather(&ground).map_err(|failure| failure.to_string())?;
    let open = start.elapsed();
    thread::sleep(Duration::from_millis(300));
    let after = filter.footprint();
    let start = Instant::now();
    crowd.deliver(WOKEN).map_err(|failure| failure.to_string())?;
    let woken = start.elapsed();
    Ok(vec![
        (Measure::MemoryPerConnection, after.resident.saturating_sub(before.resident) as f64 / connections as f64),
        (Measure::Threads, after.threads as f64),
        (Measure::WakeUp, woken.as_secs_f64() * 1e6 / WOKEN as f64),
        (Measure::OpenTime, open.as_secs_f64()),
    ])
}

/// Messages at whose end each callback sleeps, over so many sessions at once.
fn slow(contestant: &Contestant, connections: usize, messages: u64) -> Result<Vec<(Measure, f64)>, String> {
    const SLEEP: Duration = Duration::from_millis(20);
    let filter = Filter::listening(contestant, &format!("slow={}", SLEEP.as_micros()), Socket::Unix)?;
    let plan = Plan {
        connections,
        per_session: messages,
        messages: Some(messages * connections as u64),
        ..Plan::new(filter.target.clone(), Workload::made_up(Mta::Sendmail, 1, SMALL))
    };
    let summary = run(&plan, &mut |_| {})?;
    let ideal = SLEEP.as_secs_f64() * messages as f64;
    Ok(vec![(Measure::TimeOverIdeal, summary.counted.as_secs_f64() / ideal)])
}

/// From SIGTERM to the return of `smfi_main`, with idle sessions, at another moment in each round.
fn stop(contestant: &Contestant, connections: usize, moment: f64) -> Result<Vec<(Measure, f64)>, String> {
    /// The reference looks around every so often.
    const PERIOD: f64 = 5.0;
    let mut filter = Filter::listening(contestant, "noop", Socket::Unix)?;
    let plan = Plan { connections, ..Plan::new(filter.target.clone(), Workload::made_up(Mta::Sendmail, 1, SMALL)) };
    let ground = Ground::new(&plan).map_err(|failure| failure.to_string())?;
    let crowd = Crowd::gather(&ground).map_err(|failure| failure.to_string())?;
    thread::sleep(Duration::from_secs_f64(moment * PERIOD).saturating_sub(filter.started.elapsed()));
    let asked = machine::monotonic();
    filter.ask_to_stop();
    let returned = filter.main_returned()?;
    drop(crowd);
    Ok(vec![(Measure::StopTime, (returned - asked) * 1e3)])
}

/// From exec to the first session.
fn start(contestant: &Contestant) -> Result<Vec<(Measure, f64)>, String> {
    let mut filter = Filter::start(contestant, "noop", Socket::Unix, &[]);
    filter.await_listening(Duration::from_micros(100))?;
    let mta = Mta::Sendmail;
    let negotiated = filter
        .target
        .connect(mta.patience().connect)
        .and_then(|stream| Session::negotiate(stream, mta, mta.patience()))
        .map_err(|failure| failure.to_string())?;
    let time = filter.started.elapsed();
    drop(negotiated);
    Ok(vec![(Measure::StartTime, time.as_secs_f64() * 1e3)])
}

/// System calls that a message costs a filter with one session, counted by strace: the difference between many
/// messages and few.
///
/// # Errors
///
/// When there is no strace, or the filter fails.
pub fn system_calls(contestant: &Contestant, mode: &str, mta: Mta) -> Result<f64, String> {
    const FEW: u64 = 5;
    const MANY: u64 = 65;
    let difference = traced(contestant, mode, mta, MANY)? - traced(contestant, mode, mta, FEW)?;
    Ok(difference / (MANY - FEW) as f64)
}

fn traced(contestant: &Contestant, mode: &str, mta: Mta, messages: u64) -> Result<f64, String> {
    let strace = ctests::find("strace").ok_or("strace is not installed")?;
    let directory = TempDir::new();
    let counts = directory.join("counts");
    let wrapper: Vec<OsString> =
        vec![strace.into(), "-f".into(), "-c".into(), "-o".into(), counts.clone().into_os_string()];
    let mut filter = Filter::start(contestant, mode, Socket::Unix, &wrapper);
    filter.await_listening(Duration::from_millis(20))?;
    let plan = Plan {
        per_session: messages,
        messages: Some(messages),
        ..Plan::new(filter.target.clone(), Workload::made_up(mta, 1, SMALL))
    };
    run(&plan, &mut |_| {})?;
    filter.kill_wrapped()?;
    count(&counts)
}

/// The calls in a summary that strace has written.
fn count(path: &Path) -> Result<f64, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("strace wrote no counts: {error}"))?;
    // Share, seconds, microseconds a call, calls, errors if any, name.
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let calls = rows.filter(|words| words.len() >= 5 && words.last() != Some(&"total"));
    let calls: u64 = calls.filter_map(|words| words[3].parse::<u64>().ok()).sum();
    if calls == 0 { Err("strace counted nothing".to_owned()) } else { Ok(calls as f64) }
}
