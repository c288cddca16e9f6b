//! Conversations made up from seeds, played with both libraries and with a model of each.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use ctests::{
    Setting,
    generator::{self, Summary},
};

const SEED: u64 = 1;
const COUNT: u64 = 5000;

fn number(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) if !text.is_empty() => {
            text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a decimal number is needed"))
        }
        _ => default,
    }
}

/// Past the capture of the test runner.
fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[test]
fn generated_conversations_go_as_documented() {
    let seed = number("LIBMILTER_GENERATED_SEED", SEED);
    let count = number("LIBMILTER_GENERATED_COUNT", COUNT);
    let reference = Setting::reference("generated");
    tell(&format!("generated: seeds from {seed}, {count} conversations\n"));
    let (interval, start, end) = if io::stderr().is_terminal() { (1, "\r", "") } else { (60, "", "\n") };
    let summary = generator::run(seed, count, Setting::threaded(), reference, |seconds, done| {
        if seconds % interval == 0 {
            tell(&format!("{start}generated: {done} of {count}, {} a second{end}", done / seconds));
        }
    });
    report("generated", start, &summary);
    assert_eq!(summary.count(), count);
}

#[test]
fn every_combination_goes_as_documented() {
    let summary = generator::run_matrix(Setting::reference("matrix"));
    report("matrix", "", &summary);
}

/// Tells what came of a run, in which nothing must be unexplained.
fn report(name: &str, start: &str, summary: &Summary) {
    tell(&format!(
        "{start}{name}: {} conversations with {} sessions: {} the same, {} different as documented, {} with ours alone, \
         {} unexplained\n",
        summary.count(),
        summary.sessions,
        summary.same,
        summary.explained,
        summary.ours_alone,
        summary.unexplained.len()
    ));
    for (difference, count) in &summary.differences {
        tell(&format!("{name}: {count:8} with {difference}\n"));
    }
    assert!(summary.unexplained.is_empty(), "\n{}", summary.unexplained.join("\n"));
}
