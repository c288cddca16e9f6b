//! What the model says about a whole conversation.

use std::collections::BTreeSet;

use super::{
    conversation::{Conversation, Delivery},
    defect::Defect,
    model::{Model, Nature},
    plan::Plan,
    stage::Performance,
};

/// What a library of one nature should do.
#[derive(Debug)]
pub(super) struct Prediction {
    pub(super) connections: Vec<Expected>,
    /// Callbacks and calls.
    pub(super) events: Vec<String>,
    /// What the two natures differ in here.
    pub(super) differences: BTreeSet<Defect>,
    /// Nobody knows what the reference does here.
    pub(super) undefined: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Expected {
    /// After each cut, how many octets have come from the filter by then; `None` if they are not awaited.
    pub(super) awaited: Vec<Option<usize>>,
    /// All that comes from the filter.
    pub(super) output: Vec<u8>,
    /// The MTA closes both directions.
    pub(super) closed: bool,
}

/// What both libraries should do when the MTAs do the same.
pub(super) struct Predictions {
    pub(super) reference: Prediction,
    pub(super) ours: Prediction,
}

impl Predictions {
    pub(super) fn new(plan: &Plan, conversation: &Conversation) -> Predictions {
        // What is under way when a connection is closed may be lost (defect 19), or the close be noticed in the middle
        // of it.
        let close = [Nature::Reference, Nature::Documented]
            .map(|nature| Prediction::new(nature, plan, conversation, true))
            .iter()
            .all(|prediction| prediction.connections.last().is_some_and(|last| last.closed));
        Predictions {
            reference: Prediction::new(Nature::Reference, plan, conversation, close),
            ours: Prediction::new(Nature::Documented, plan, conversation, close),
        }
    }
}

impl Prediction {
    /// `close` if the last connection may be closed in both directions.
    fn new(nature: Nature, plan: &Plan, conversation: &Conversation, close: bool) -> Prediction {
        let mut model = Model::new(nature, plan);
        let last = conversation.connections.len().saturating_sub(1);
        let mut connections = Vec::new();
        for (at, connection) in conversation.connections.iter().enumerate() {
            model.connect();
            let octets = connection.commands.concat();
            let in_step = connection.delivery == Delivery::InStep;
            let mut awaited = Vec::new();
            let mut start = 0;
            let mut answered = false;
            for cut in connection.cuts() {
                let before = model.output().len();
                model.feed(&octets[start..cut]);
                start = cut;
                awaited.push(in_step.then_some(model.output().len()));
                answered = model.output().len() > before;
            }
            let closed = close && connection.close && at == last && in_step && answered && !model.is_over();
            model.end(closed);
            connections.push(Expected { awaited, output: model.output().to_vec(), closed });
        }
        Prediction {
            connections,
            events: model.events().to_vec(),
            differences: model.differences(),
            undefined: model.is_undefined(),
        }
    }

    /// As it would look when played.
    pub(super) fn performance(&self) -> Performance {
        Performance {
            heard: self.connections.iter().map(|expected| (expected.output.clone(), !expected.closed)).collect(),
            events: self.events.clone(),
            well: true,
        }
    }
}
