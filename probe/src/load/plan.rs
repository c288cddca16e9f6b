//! What a load test does.

use std::time::Duration;

use super::workload::Workload;
use crate::mta::Patience;
use crate::target::Target;

/// How much of what is passed to whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The filter.
    pub target: Target,
    /// What it gets.
    pub workload: Workload,
    /// Sessions at once.
    pub connections: usize,
    /// Messages in a session before another one is opened in its place; with 0 sessions end after the negotiation.
    pub per_session: u64,
    /// Messages in all, sessions where these have no messages; without a limit, `duration` ends the run.
    pub messages: Option<u64>,
    /// How long new messages are begun, after the warm-up.
    pub duration: Option<Duration>,
    /// Time at the start that is not counted.
    pub warmup: Duration,
    /// Messages a second; otherwise one follows the other.
    pub rate: Option<f64>,
    /// How long each SMTP client thinks before each of its commands.
    pub pause: Duration,
    /// How long the MTA waits for the filter.
    pub patience: Patience,
    /// Threads that play the MTA.
    pub threads: usize,
}

impl Plan {
    /// One connection, one message.
    pub fn new(target: Target, workload: Workload) -> Self {
        let patience = workload.mta.patience();
        Plan {
            target,
            workload,
            connections: 1,
            per_session: 1,
            messages: Some(1),
            duration: None,
            warmup: Duration::ZERO,
            rate: None,
            pause: Duration::ZERO,
            patience,
            threads: 1,
        }
    }
}
