//! Taking turns, and showing how far it has come.

use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::contestant::Contestant;
use crate::machine::{self, Machine, Processors};
use crate::results::{Results, Row};
use crate::scenario::Scenario;

/// Measures every scenario with every contestant; the reference is the first of them. `keep` gets what there is after
/// each scenario.
///
/// # Errors
///
/// When what there is cannot be kept.
pub fn measure(
    scenarios: &[Scenario],
    contestants: &[Contestant],
    machine: Machine,
    quick: bool,
    keep: &mut dyn FnMut(&Results) -> io::Result<()>,
) -> io::Result<Results> {
    let processors = Processors::allowed();
    let mut results = Results {
        machine,
        quick,
        contestants: contestants.iter().map(|contestant| contestant.name.clone()).collect(),
        rows: Vec::new(),
        remarks: Vec::new(),
    };
    let total = scenarios.iter().map(|scenario| cost(scenario, contestants)).sum();
    let bar = Bar::new(total);
    for (number, scenario) in scenarios.iter().enumerate() {
        bar.begin(&scenario.name, number, scenarios.len());
        let mut rows: Vec<Row> = Vec::new();
        for &measure in scenario.measures {
            let samples = vec![vec![None; scenario.rounds]; contestants.len()];
            rows.push(Row { scenario: scenario.name.clone(), measure, connections: scenario.connections, samples });
        }
        for round in 0..scenario.rounds {
            let moment = (round as f64 + 0.5) / scenario.rounds as f64;
            for place in 0..contestants.len() {
                // Each comes first in its turn, so that nobody profits from what the one before has left behind.
                let turn = if round % 2 == 0 { place } else { contestants.len() - 1 - place };
                if !scenario.trial.suits(&contestants[turn]) {
                    continue;
                }
                match scenario.trial.sample(&contestants[turn], moment, &processors) {
                    Ok(sample) => {
                        for row in &mut rows {
                            let value = sample.iter().find(|(measure, _)| *measure == row.measure);
                            row.samples[turn][round] = value.map(|(_, value)| *value);
                        }
                    }
                    Err(reason) => {
                        let remark = format!("{}, {}: {reason}", scenario.name, contestants[turn].name);
                        if !results.remarks.contains(&remark) {
                            results.remarks.push(remark);
                        }
                    }
                }
                bar.advance(scenario.seconds);
            }
        }
        results.rows.append(&mut rows);
        results.machine.load.1 = machine::load_average();
        keep(&results)?;
    }
    Ok(results)
}

/// How long a scenario takes, in seconds, roughly.
fn cost(scenario: &Scenario, contestants: &[Contestant]) -> f64 {
    let taking_part = contestants.iter().filter(|contestant| scenario.trial.suits(contestant)).count();
    scenario.seconds * (scenario.rounds * taking_part) as f64
}

/// How far it has come: a bar on terminals, else a line for each scenario.
struct Bar {
    bar: ProgressBar,
    total: f64,
    start: Instant,
}

impl Bar {
    fn new(total: f64) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}").expect("the template is valid");
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::new(millis(total)),
            false => ProgressBar::hidden().with_finish(indicatif::ProgressFinish::Abandon),
        };
        bar.set_length(millis(total));
        Bar { bar: bar.with_style(style), total, start: Instant::now() }
    }

    fn begin(&self, name: &str, number: usize, count: usize) {
        let left = self.left();
        self.bar.set_message(format!("{left}: {name}"));
        if self.bar.is_hidden() {
            eprintln!("{} of {count}, {left}: {name}", number + 1);
        }
    }

    fn advance(&self, seconds: f64) {
        self.bar.inc(millis(seconds));
    }

    /// The time that is left, by the pace so far.
    fn left(&self) -> String {
        let done = self.bar.position() as f64 / 1e3;
        let pace = if done > 1.0 { self.start.elapsed().as_secs_f64() / done } else { 1.0 };
        let left = (self.total - done).max(0.0) * pace;
        format!("{}:{:02} left", left as u64 / 60, left as u64 % 60)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}
