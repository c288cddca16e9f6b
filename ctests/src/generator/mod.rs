//! Generated conversations: filters and MTAs made up from a seed, played with the reference and with ours.
//!
//! A trial is a plan for the recorder and what MTAs say to it. A small model of the library predicts what each of
//! the two libraries does, to the octet, and names the known difference wherever the two predictions part. Nothing else
//! excuses a difference.

mod callee;
mod conversation;
mod defect;
mod dialogue;
mod matrix;
mod model;
mod mutation;
mod negotiation;
mod payload;
mod plan;
mod prediction;
mod random;
mod reduction;
mod stage;
mod state;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub use defect::Defect;

use self::{
    conversation::Conversation,
    plan::Plan,
    prediction::{Prediction, Predictions},
    random::Random,
    reduction::reduce,
    stage::{Performance, Stage},
};
use crate::Setting;

/// A filter and what MTAs say to it.
#[derive(Clone, Debug)]
struct Trial {
    plan: Plan,
    conversation: Conversation,
}

impl Trial {
    /// Always the same for the same seed.
    fn random(seed: u64) -> Trial {
        let mut random = Random::new(seed);
        let mut trial = Trial::well_behaved(&mut random);
        mutation::mutate(&mut random, &mut trial.conversation);
        trial
    }

    /// Whatever the filter does, the MTAs follow the protocol.
    fn well_behaved(random: &mut Random) -> Trial {
        let plan = Plan::random(random);
        let conversation = Conversation::random(random, &plan);
        Trial { plan, conversation }
    }
}

/// Where a trial went.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Both libraries did the same.
    Same,
    /// They did what is documented of each.
    Explained(Vec<Defect>),
    /// Ours did what is documented; the reference was not asked.
    Ours,
    /// At least one did something else.
    Unexplained { ours: bool, reference: bool },
}

/// The stages of both libraries.
struct Stages {
    ours: Stage,
    reference: Option<Stage>,
}

impl Stages {
    fn new(ours: Setting, reference: Option<Setting>) -> Stages {
        Stages { ours: Stage::new(ours), reference: reference.map(Stage::new) }
    }

    /// How long an answer may take before it counts as silence.
    fn set_patience(&mut self, patience: Duration) {
        self.ours.patience = patience;
        if let Some(reference) = &mut self.reference {
            reference.patience = patience;
        }
    }

    fn play(&mut self, trial: &Trial) -> Outcome {
        let predictions = Predictions::new(&trial.plan, &trial.conversation);
        let (ours, reference) = self.perform(trial, &predictions);
        let as_said = |prediction: &Prediction, performance: &Performance| prediction.performance() == *performance;
        let outcome = Outcome::Unexplained {
            ours: !as_said(&predictions.ours, &ours),
            reference: reference.as_ref().is_some_and(|reference| !as_said(&predictions.reference, reference)),
        };
        match reference {
            _ if outcome != (Outcome::Unexplained { ours: false, reference: false }) => outcome,
            None => Outcome::Ours,
            Some(reference) if reference == ours => Outcome::Same,
            // A difference without a name is a fault of the model.
            Some(_) if predictions.reference.differences.is_empty() => outcome,
            Some(_) => Outcome::Explained(predictions.reference.differences.into_iter().collect()),
        }
    }

    fn perform(&mut self, trial: &Trial, predictions: &Predictions) -> (Performance, Option<Performance>) {
        let plan = trial.plan.to_string();
        let ours = self.ours.play(&plan, &trial.conversation, &predictions.ours);
        let reference = self
            .reference
            .as_mut()
            .filter(|_| !predictions.reference.undefined)
            .map(|stage| stage.play(&plan, &trial.conversation, &predictions.reference));
        (ours, reference)
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// Sessions in all conversations.
    pub sessions: u64,
    /// Both libraries did the same.
    pub same: u64,
    /// They differed as documented.
    pub explained: u64,
    /// How many of those each difference had to do with.
    pub differences: BTreeMap<Defect, u64>,
    /// Ours did what is documented; the reference was not asked, because nobody knows what it does or it is missing.
    pub ours_alone: u64,
    /// For each unexplained difference the smallest case found, as a dialogue.
    pub unexplained: Vec<String>,
}

impl Summary {
    /// Conversations played.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.same + self.explained + self.ours_alone + self.unexplained.len() as u64
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Same => self.same += 1,
            Outcome::Explained(differences) => {
                self.explained += 1;
                for difference in differences {
                    *self.differences.entry(difference).or_default() += 1;
                }
            }
            Outcome::Ours => self.ours_alone += 1,
            Outcome::Unexplained { .. } => unreachable!("kept as a case"),
        }
    }
}

/// A run is given up after so many unexplained differences.
const ENOUGH: usize = 5;

/// A trial, its name, and whether the second setting of ours plays it.
type Item = (Trial, String, bool);

/// Plays the conversations of `count` seeds from `first` on, on all processors; even seeds with the first setting of ours,
/// odd ones with the second. Calls `progress` with the number of seconds and conversations now and then.
///
/// # Panics
///
/// When a recorder does not start.
pub fn run(
    first: u64,
    count: u64,
    ours: [Setting; 2],
    reference: Option<Setting>,
    progress: impl Fn(u64, u64) + Sync,
) -> Summary {
    let item = |at| {
        let seed = first.wrapping_add(at);
        (Trial::random(seed), format!("seed-{seed}"), seed % 2 == 1)
    };
    play(count, item, ours, reference, progress)
}

/// Plays every conversation of the matrix with ours in both models.
///
/// # Panics
///
/// When a recorder does not start.
pub fn run_matrix(reference: Option<Setting>) -> Summary {
    let trials = matrix::trials();
    let item = |at: u64| (trials[(at / 2) as usize].clone(), format!("matrix-{at}"), at % 2 == 1);
    play(2 * trials.len() as u64, item, Setting::threaded(), reference, |_, _| {})
}

fn play(
    count: u64,
    item: impl Fn(u64) -> Item + Sync,
    ours: [Setting; 2],
    reference: Option<Setting>,
    progress: impl Fn(u64, u64) + Sync,
) -> Summary {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Summary::default());
    let began = Instant::now();
    let told = AtomicU64::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut stages = ours.map(|ours| Stages::new(ours, reference));
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            let (trial, name, second) = item(at);
            let stages = &mut stages[usize::from(second)];
            let sessions = trial.conversation.connections.len() as u64;
            let outcome = stages.play(&trial);
            let unexplained = if let Outcome::Unexplained { .. } = outcome {
                let smallest = reduce(stages, trial, &outcome);
                Some(dialogue::write(stages, &name, &smallest))
            } else {
                None
            };
            let mut total = total.lock().expect("no worker has failed");
            total.sessions += sessions;
            match unexplained {
                Some(case) => total.unexplained.push(case),
                None => total.add(outcome),
            }
            if total.unexplained.len() >= ENOUGH {
                next.store(count, Ordering::Relaxed);
            }
            let seconds = began.elapsed().as_secs();
            if told.fetch_max(seconds, Ordering::Relaxed) < seconds {
                progress(seconds, total.count());
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    total.into_inner().expect("no worker has failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all() {
        for seed in 0..200 {
            let [first, second] = [(); 2].map(|()| format!("{:?}", Trial::random(seed)));
            assert_eq!(first, second);
        }
    }

    #[test]
    fn the_model_differs_only_where_it_says_why() {
        let mut agreed = 0;
        for seed in 0..1000 {
            let Trial { plan, conversation } = Trial::random(seed);
            let Predictions { reference, ours } = Predictions::new(&plan, &conversation);
            if reference.differences.is_empty() && !reference.undefined {
                assert_eq!(reference.performance(), ours.performance(), "seed {seed}");
                agreed += 1;
            }
        }
        assert!((300..800).contains(&agreed), "{agreed} without difference: the mixture has changed");
    }

    #[test]
    fn well_behaved_mtas_are_never_out_of_order() {
        for seed in 0..1000 {
            let Trial { plan, conversation } = Trial::well_behaved(&mut Random::new(seed));
            let ours = Predictions::new(&plan, &conversation).ours;
            assert!(!ours.differences.contains(&Defect(7)), "seed {seed}");
        }
    }

    #[test]
    fn what_nobody_said_is_noticed_and_told_as_a_dialogue() {
        let mut stages = Stages::new(Setting::ours(), None);
        for seed in 0..40 {
            let trial = Trial::random(seed);
            let mut predictions = Predictions::new(&trial.plan, &trial.conversation);
            let (performance, _) = stages.perform(&trial, &predictions);
            assert_eq!(performance, predictions.ours.performance(), "seed {seed}");
            predictions.ours.events.push("close".into());
            assert_ne!(performance, predictions.ours.performance(), "seed {seed}");
            let text = dialogue::write(&mut stages, &format!("seed-{seed}"), &trial);
            let cases = crate::dialogue::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(cases.len(), 1, "{text}");
        }
    }
}
