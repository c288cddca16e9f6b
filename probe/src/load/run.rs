//! A load test from start to end, on one thread or several.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::endpoint::Endpoint;
use super::plan::Plan;
use super::summary::Summary;
use super::tally::Tally;
use super::world::{Course, World};
use crate::failure::Failure;

/// How often whoever watches is told.
const WATCH: Duration = Duration::from_millis(100);

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Messages with a verdict; sessions where these have no messages.
    pub done: u64,
}

/// Carries a plan out. `watch` is told ten times a second how far it has come.
///
/// Failures of single sessions are part of the summary; an error is one that keeps the run from beginning.
pub fn run(plan: &Plan, watch: &mut dyn FnMut(Progress)) -> Result<Summary, Failure> {
    let cannot_connect = |error| Failure::Connect { reason: plan.target.explain(&error) };
    let endpoint = Endpoint::of(&plan.target).map_err(cannot_connect)?;
    let start = Instant::now();
    let course = Course::new(plan, start);
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let mut tally = Tally::default();
    let ended = thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for thread in 0..threads {
            let (sender, course, endpoint) = (sender.clone(), &course, &endpoint);
            let connections = plan.connections / threads + usize::from(thread < plan.connections % threads);
            // Nobody receives once another thread has failed.
            scope.spawn(move || drop(sender.send(drive(plan, course, endpoint, connections))));
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(WATCH) {
                Ok(part) => tally.merge(part?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            watch(Progress { elapsed: start.elapsed(), done: course.done() });
        }
    });
    ended.map_err(cannot_connect)?;
    let counted = Instant::now().saturating_duration_since(course.counted_from);
    match tally.failures.first() {
        Some((failure, _)) if tally.all_sessions == 0 => Err(failure.clone()),
        _ => Ok(Summary { plan: plan.clone(), counted, tally, gave_up: course.has_given_up() }),
    }
}

fn drive(plan: &Plan, course: &Course, endpoint: &Endpoint, connections: usize) -> io::Result<Tally> {
    let mut driver = Driver::new(connections, endpoint, World::new(plan, course, false))?;
    (0..connections).for_each(|slot| driver.start(slot));
    driver.run()?;
    Ok(driver.world.tally)
}
