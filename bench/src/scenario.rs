//! What is measured, and how one sample is taken.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ctests::TempDir;
use milter_probe::load::{self, Crowd, Ground, Plan, Summary, Workload};
use milter_probe::{Mta, Session, Target};
use milter_protocol::CommandCode;
use serde::{Deserialize, Serialize};

use crate::contestant::Contestant;
use crate::filter::{Filter, Socket};
use crate::machine::{self, Pinning, Processors};

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// Messages a second.
    Messages,
    /// Messages for each second of processor time, that of the load generator included.
    MessagesPerCoreSecond,
    /// Processor time of the filter for a message, in microseconds.
    CpuPerMessage,
    /// Context switches of the filter for a message.
    SwitchesPerMessage,
    /// System calls of the filter for a message.
    CallsPerMessage,
    /// Half of the messages take less, in microseconds.
    MessageP50,
    /// One message in a hundred takes more, in microseconds.
    MessageP99,
    /// One RCPT in a hundred takes more, in microseconds.
    RcptP99,
    /// MiB a second.
    Throughput,
    /// Connections a second.
    Connections,
    /// Processor time of the filter for a connection, in microseconds.
    CpuPerConnection,
    /// Resident memory of the filter in MiB, at its largest.
    Memory,
    /// Resident memory of the filter for each idle connection, in KiB.
    MemoryPerConnection,
    /// Threads of the filter.
    Threads,
    /// Seconds until all connections are open.
    OpenTime,
    /// Time for one message on a connection that was idle, in microseconds.
    WakeUp,
    /// Time, divided by what it would be if no callback waited for another.
    TimeOverIdeal,
    /// From SIGTERM to the return of `smfi_main`, in milliseconds.
    StopTime,
    /// From exec to the first connection, in milliseconds.
    StartTime,
}

impl Measure {
    /// How tables call it.
    pub fn label(self) -> &'static str {
        match self {
            Measure::Messages => "messages/s",
            Measure::MessagesPerCoreSecond => "messages per core second",
            Measure::CpuPerMessage => "CPU us/message",
            Measure::SwitchesPerMessage => "context switches/message",
            Measure::CallsPerMessage => "system calls/message",
            Measure::MessageP50 => "message p50 us",
            Measure::MessageP99 => "message p99 us",
            Measure::RcptP99 => "RCPT p99 us",
            Measure::Throughput => "MiB/s",
            Measure::Connections => "connections/s",
            Measure::CpuPerConnection => "CPU us/connection",
            Measure::Memory => "memory MiB",
            Measure::MemoryPerConnection => "memory KiB/connection",
            Measure::Threads => "threads",
            Measure::OpenTime => "seconds to open all",
            Measure::WakeUp => "us/message on an idle one",
            Measure::TimeOverIdeal => "time/ideal",
            Measure::StopTime => "ms to stop",
            Measure::StartTime => "ms to accept",
        }
    }
}

/// Something to measure.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called: its letter, then its particulars.
    pub name: String,
    /// Sessions at once.
    pub connections: usize,
    /// Samples of each contestant.
    pub rounds: usize,
    /// How long a sample takes, in seconds, roughly.
    pub seconds: f64,
    /// What is kept.
    pub measures: &'static [Measure],
    trial: Trial,
}

#[derive(Clone, Debug)]
enum Trial {
    Load { mode: &'static str, socket: Socket, shape: Shape, pinning: Pinning },
    Idle,
    Slow { messages: u64 },
    Calls { mode: &'static str, mta: Mta },
    Stop,
    Start,
}

/// The traffic of a load.
#[derive(Clone, Copy, Debug)]
struct Shape {
    mta: Mta,
    connections: usize,
    per_session: u64,
    body: usize,
    pause: Duration,
    duration: Duration,
}

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

const MTAS: [(Mta, &str); 2] = [(Mta::Sendmail, "sendmail"), (Mta::Postfix, "postfix")];

/// Messages in a session that is not about sessions.
const MANY: u64 = 100;

/// Body of an ordinary message, in octets.
const SMALL: usize = 2048;

/// Everything that is measured; less of it, and in less time, when it has to be quick.
pub fn all(quick: bool) -> Vec<Scenario> {
    let seconds = |full: f64, short: f64| Duration::from_secs_f64(if quick { short } else { full });
    let rounds = |full, short| if quick { short } else { full };
    let mut all = Vec::new();
    let shape = Shape {
        mta: Mta::Sendmail,
        connections: 1,
        per_session: MANY,
        body: SMALL,
        pause: Duration::ZERO,
        duration: seconds(0.3, 0.15),
    };
    let load = |name: String, rounds, measures, mode, socket, shape: Shape, pinning| Scenario {
        name,
        connections: shape.connections,
        rounds,
        seconds: shape.duration.as_secs_f64() * 1.2 + 0.15,
        measures,
        trial: Trial::Load { mode, socket, shape, pinning },
    };

    use Measure as M;
    const SMALL_MESSAGES: &[Measure] =
        &[M::MessagesPerCoreSecond, M::CpuPerMessage, M::SwitchesPerMessage, M::Messages, M::MessageP50, M::MessageP99];
    for socket in [Socket::Unix, Socket::Tcp] {
        for connections in [1, 8, 64] {
            for (mta, mta_name) in MTAS {
                let in_short = socket == Socket::Unix || (connections, mta) == (8, Mta::Postfix);
                if quick && !in_short {
                    continue;
                }
                let name = format!("a {} c{connections} {mta_name}", socket.name());
                let shape = Shape { mta, connections, ..shape };
                let samples = rounds(if socket == Socket::Unix { 9 } else { 5 }, 3);
                all.push(load(name, samples, SMALL_MESSAGES, "noop", socket, shape, Pinning::Same));
            }
        }
    }
    if !quick {
        for connections in [1, 8, 64] {
            let name = format!("a unix c{connections} sendmail, a core each");
            let shape = Shape { connections, ..shape };
            all.push(load(name, 9, SMALL_MESSAGES, "noop", Socket::Unix, shape, Pinning::Split));
        }
    }

    for socket in [Socket::Unix, Socket::Tcp] {
        for (mta, mta_name) in MTAS {
            if quick && (socket, mta) == (Socket::Tcp, Mta::Postfix) {
                continue;
            }
            let name = format!("b 10 MB {} {mta_name}", socket.name());
            let shape = Shape { mta, body: 10 << 20, per_session: 20, duration: seconds(0.6, 0.2), ..shape };
            let measures = &[M::CpuPerMessage, M::Throughput, M::Memory];
            all.push(load(name, rounds(5, 3), measures, "noop", socket, shape, Pinning::Same));
        }
    }

    for (name, socket, connections, per_session) in [
        ("c negotiation unix c1", Socket::Unix, 1, 0),
        ("c negotiation unix c8", Socket::Unix, 8, 0),
        ("c negotiation tcp c8", Socket::Tcp, 8, 0),
        ("c one message unix c8", Socket::Unix, 8, 1),
    ] {
        let shape = Shape { connections, per_session, ..shape };
        let measures = &[M::CpuPerConnection, M::Connections];
        all.push(load(name.to_owned(), rounds(5, 3), measures, "noop", socket, shape, Pinning::Same));
    }

    for (connections, samples, estimate) in [(1000, rounds(3, 1), 1.5), (10_000, 1, 8.0)] {
        all.push(Scenario {
            name: format!("d {connections} idle"),
            connections,
            rounds: samples,
            seconds: estimate,
            measures: &[M::MemoryPerConnection, M::Threads, M::WakeUp, M::OpenTime],
            trial: Trial::Idle,
        });
    }

    let messages = rounds(25, 8) as u64;
    all.push(Scenario {
        name: "e 64 x 20 ms".to_owned(),
        connections: 64,
        rounds: rounds(5, 3),
        seconds: messages as f64 * 0.05,
        measures: &[M::TimeOverIdeal],
        trial: Trial::Slow { messages },
    });

    for (mode, socket, mta, mta_name) in [
        ("headers", Socket::Unix, Mta::Sendmail, "sendmail"),
        ("headers", Socket::Tcp, Mta::Sendmail, "sendmail"),
        ("modify", Socket::Unix, Mta::Sendmail, "sendmail"),
        ("modify", Socket::Tcp, Mta::Sendmail, "sendmail"),
        ("nr", Socket::Unix, Mta::Sendmail, "sendmail"),
        ("nr", Socket::Unix, Mta::Postfix, "postfix"),
        ("skipall", Socket::Unix, Mta::Sendmail, "sendmail"),
        ("skipall", Socket::Unix, Mta::Postfix, "postfix"),
    ] {
        let in_short = matches!((mode, socket), ("headers", _) | ("nr", _));
        if quick && !in_short {
            continue;
        }
        let name = format!("f {mode} {} {mta_name}", socket.name());
        let measures = &[M::Messages, M::MessagesPerCoreSecond, M::CpuPerMessage, M::MessageP99];
        all.push(load(name, rounds(5, 3), measures, mode, socket, Shape { mta, ..shape }, Pinning::Same));
    }
    // Callbacks that compute want all processors.
    let shape_of_eight = Shape { connections: 8, ..shape };
    let computing = load(
        "f cpu=100 unix sendmail".to_owned(),
        rounds(5, 3),
        &[M::Messages, M::MessageP99],
        "cpu=100",
        Socket::Unix,
        shape_of_eight,
        Pinning::Free,
    );
    all.push(computing);

    for (mode, mta, mta_name) in [
        ("noop", Mta::Sendmail, "sendmail"),
        ("noop", Mta::Postfix, "postfix"),
        ("nr", Mta::Postfix, "postfix"),
        ("skipall", Mta::Postfix, "postfix"),
        ("headers", Mta::Sendmail, "sendmail"),
    ] {
        if quick && (mode == "skipall" || mode == "headers") {
            continue;
        }
        all.push(Scenario {
            name: format!("g {mode} {mta_name}"),
            connections: 1,
            rounds: 1,
            seconds: 3.0,
            measures: &[M::CallsPerMessage],
            trial: Trial::Calls { mode, mta },
        });
    }

    all.push(Scenario {
        name: "h stop".to_owned(),
        connections: 50,
        rounds: rounds(5, 2),
        seconds: 5.0,
        measures: &[M::StopTime],
        trial: Trial::Stop,
    });
    all.push(Scenario {
        name: "i start".to_owned(),
        connections: 1,
        rounds: rounds(25, 8),
        seconds: 0.03,
        measures: &[M::StartTime],
        trial: Trial::Start,
    });

    for (connections, pause, full, short) in [(50, 20, 0.8, 0.4), (400, 150, 2.0, 1.0)] {
        let pause = Duration::from_millis(pause);
        let shape =
            Shape { mta: Mta::Postfix, connections, per_session: 5, pause, duration: seconds(full, short), ..shape };
        let measures = &[M::CpuPerMessage, M::SwitchesPerMessage, M::RcptP99];
        let name = format!("j {connections} paced");
        all.push(load(name, rounds(5, 3), measures, "noop", Socket::Unix, shape, Pinning::Free));
    }

    let sweep: &[usize] = if quick { &[1, 8, 64, 512] } else { &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] };
    for &connections in sweep {
        // With so many the slowest need more than a moment for a single message.
        let duration = seconds(0.5, 0.25).mul_f64(1.0 + connections as f64 / 512.0);
        let shape = Shape { connections, duration, ..shape };
        let measures = &[M::Messages, M::CpuPerMessage, M::MessageP50, M::MessageP99, M::Memory];
        let name = format!("{SWEEP} {connections}");
        all.push(load(name, rounds(5, 2), measures, "noop", Socket::Unix, shape, Pinning::Same));
    }
    all
}

/// The scenarios that make a curve.
pub const SWEEP: &str = "connections";

impl Scenario {
    /// Whether a contestant takes part.
    pub fn suits(&self, contestant: &Contestant) -> bool {
        match &self.trial {
            Trial::Load { mode, .. } | Trial::Calls { mode, .. } => contestant.plays(mode),
            Trial::Slow { .. } => contestant.plays("slow"),
            // What returns from smfi_main is a library.
            Trial::Stop => contestant.library.is_some(),
            // Nobody wants so many processes.
            Trial::Idle => contestant.name != "fork" || self.connections <= 2000,
            Trial::Start => true,
        }
    }

    /// Takes a sample of a contestant in a round.
    ///
    /// # Errors
    ///
    /// When the filter fails, with what it failed at.
    pub fn sample(
        &self,
        contestant: &Contestant,
        round: usize,
        processors: &Processors,
    ) -> Result<Vec<(Measure, f64)>, String> {
        match &self.trial {
            Trial::Load { mode, socket, shape, pinning } => {
                loaded(contestant, mode, *socket, *shape, *pinning, processors)
            }
            Trial::Idle => idle(contestant, self.connections),
            Trial::Slow { messages } => slow(contestant, self.connections, *messages),
            Trial::Calls { mode, mta } => {
                // Whatever else the machine does can only add to them.
                let counts = (0..3).map(|_| system_calls(contestant, mode, *mta)).collect::<Result<Vec<_>, _>>()?;
                Ok(vec![(Measure::CallsPerMessage, counts.into_iter().fold(f64::INFINITY, f64::min))])
            }
            Trial::Stop => stop(contestant, self.connections, round, self.rounds),
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
    let summary = processors
        .on_load_side(pinning, || run(&plan, &mut |_| resident = resident.max(filter.footprint().resident)))?;
    let (own_cpu, cpu) = ((machine::own_cpu() - own_cpu).as_secs_f64(), (filter.cpu() - cpu).as_secs_f64());
    let memory = filter.footprint().peak.max(resident) as f64 / 1024.0;
    let switches = filter.kill() as f64;
    let tally = &summary.tally;
    let (messages, sessions) = (tally.all_messages as f64, tally.all_sessions as f64);
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let octets = (tally.octets_sent + tally.octets_received) as f64;
    let seconds = (summary.counted + plan.warmup).as_secs_f64();
    let rcpt = tally.command_latencies.get(&CommandCode::Rcpt);
    let mut samples = vec![
        (Measure::Messages, summary.message_rate()),
        (Measure::MessagesPerCoreSecond, messages / (cpu + own_cpu)),
        (Measure::CpuPerMessage, cpu / messages * 1e6),
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
fn stop(
    contestant: &Contestant,
    connections: usize,
    round: usize,
    rounds: usize,
) -> Result<Vec<(Measure, f64)>, String> {
    /// The reference looks around every so often.
    const PERIOD: f64 = 5.0;
    let mut filter = Filter::listening(contestant, "noop", Socket::Unix)?;
    let plan = Plan { connections, ..Plan::new(filter.target.clone(), Workload::made_up(Mta::Sendmail, 1, SMALL)) };
    let ground = Ground::new(&plan).map_err(|failure| failure.to_string())?;
    let crowd = Crowd::gather(&ground).map_err(|failure| failure.to_string())?;
    let phase = (round as f64 + 0.5) / rounds as f64 * PERIOD;
    thread::sleep(Duration::from_secs_f64(phase).saturating_sub(filter.started.elapsed()));
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
    const MANY: u64 = 45;
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
