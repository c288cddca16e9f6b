//! What is measured.

use std::time::Duration;

use milter_probe::Mta;

use crate::filter::Socket;
use crate::machine::Pinning;
use crate::measure::Measure;
use crate::trial::{MANY, SMALL, Shape, Trial};

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
    /// How a sample is taken.
    pub trial: Trial,
}

const MTAS: [(Mta, &str); 2] = [(Mta::Sendmail, "sendmail"), (Mta::Postfix, "postfix")];

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
    const SMALL_MESSAGES: &[Measure] = &[
        M::MessagesPerCoreSecond,
        M::CpuPerMessage,
        M::GeneratorCpu,
        M::SwitchesPerMessage,
        M::Messages,
        M::MessageP50,
        M::MessageP99,
    ];
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
            trial: Trial::Idle(connections),
        });
    }

    let messages = rounds(25, 8) as u64;
    all.push(Scenario {
        name: "e 64 x 20 ms".to_owned(),
        connections: 64,
        rounds: rounds(5, 3),
        seconds: messages as f64 * 0.05,
        measures: &[M::TimeOverIdeal],
        trial: Trial::Slow { connections: 64, messages },
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
            trial: Trial::Calls { mode, mta, counts: rounds(3, 1) },
        });
    }

    all.push(Scenario {
        name: "h stop".to_owned(),
        connections: 50,
        rounds: rounds(5, 2),
        seconds: 5.0,
        measures: &[M::StopTime],
        trial: Trial::Stop(50),
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
