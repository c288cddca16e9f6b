//! Making a trial smaller as long as it shows the same.

use std::time::{Duration, Instant};

use super::{Outcome, Stages, Trial, conversation::Delivery, plan::Callback, stage::PATIENCE};

/// Longer is not worth waiting for.
const LIMIT: Duration = Duration::from_secs(60);

/// Silence is tried out often; on a busy machine a smaller case may be missed for it, but none is made up.
const HURRY: Duration = Duration::from_millis(100);

/// The smallest trial with this outcome that leaving things out leads to.
pub(super) fn reduce(stages: &mut Stages, trial: Trial, outcome: &Outcome) -> Trial {
    stages.set_patience(HURRY);
    let smallest = shrink(stages, trial, outcome);
    stages.set_patience(PATIENCE);
    smallest
}

fn shrink(stages: &mut Stages, mut trial: Trial, outcome: &Outcome) -> Trial {
    let deadline = Instant::now() + LIMIT;
    let mut smaller = true;
    while smaller {
        smaller = false;
        let mut at = 0;
        while let Some(candidate) = candidates(&trial).into_iter().nth(at) {
            if Instant::now() > deadline {
                return trial;
            }
            if stages.play(&candidate) == *outcome {
                trial = candidate;
                smaller = true;
            } else {
                at += 1;
            }
        }
    }
    trial
}

/// Every trial with one thing less, the largest things first.
fn candidates(trial: &Trial) -> Vec<Trial> {
    let mut candidates = Vec::new();
    let mut with = |change: &dyn Fn(&mut Trial)| {
        let mut smaller = trial.clone();
        change(&mut smaller);
        candidates.push(smaller);
    };
    let connections = &trial.conversation.connections;
    for at in (0..connections.len()).filter(|_| connections.len() > 1) {
        with(&|trial| drop(trial.conversation.connections.remove(at)));
    }
    for (at, connection) in connections.iter().enumerate() {
        if connection.delivery != Delivery::InStep {
            with(&|trial| trial.conversation.connections[at].delivery = Delivery::InStep);
        }
        if connection.close {
            with(&|trial| trial.conversation.connections[at].close = false);
        }
        for command in (0..connection.commands.len()).rev() {
            with(&|trial| drop(trial.conversation.connections[at].commands.remove(command)));
        }
    }
    for at in (0..trial.plan.steps.len()).rev() {
        with(&|trial| drop(trial.plan.steps.remove(at)));
    }
    for at in 0..trial.plan.steps.len() {
        if trial.plan.steps[at].nth != 0 {
            with(&|trial| trial.plan.steps[at].nth = 0);
        }
    }
    for plan in Callback::ALL.into_iter().filter_map(|callback| trial.plan.without(callback)).chain(trial.plan.usual())
    {
        with(&|trial| trial.plan = plan.clone());
    }
    candidates
}
