//! Samples, and what follows from them.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::Measure;

/// The samples of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The machine.
    pub machine: Machine,
    /// Whether the run was a short one.
    pub quick: bool,
    /// Who was compared; the reference comes first.
    pub contestants: Vec<String>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub remarks: Vec<String>,
}

/// One measure in one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The scenario.
    pub scenario: String,
    /// The measure.
    pub measure: Measure,
    /// Sessions at once.
    pub connections: usize,
    /// Samples, by contestant and round; none where it failed.
    pub samples: Vec<Vec<Option<f64>>>,
}

impl Results {
    /// The place of a contestant.
    pub fn contestant(&self, name: &str) -> Option<usize> {
        self.contestants.iter().position(|contestant| contestant == name)
    }

    /// The row of a scenario and a measure.
    pub fn row(&self, scenario: &str, measure: Measure) -> Option<&Row> {
        self.rows.iter().find(|row| row.scenario == scenario && row.measure == measure)
    }
}

impl Row {
    /// What a contestant reached.
    pub fn value(&self, contestant: usize) -> Option<Spread> {
        Spread::of(self.samples[contestant].iter().copied().flatten())
    }

    /// What a contestant reached, divided by what another one reached in the same round.
    pub fn ratio(&self, contestant: usize, other: usize) -> Option<Spread> {
        let pairs = self.samples[contestant].iter().zip(&self.samples[other]);
        Spread::of(pairs.filter_map(|(one, other)| Some((*one)? / (*other).filter(|value| *value > 0.0)?)))
    }
}

/// How samples scatter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// A quarter of them are below.
    pub low: f64,
    /// A quarter of them are above.
    pub high: f64,
}

impl Spread {
    fn of(samples: impl Iterator<Item = f64>) -> Option<Self> {
        let mut samples: Vec<f64> = samples.collect();
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (samples.len() - 1) as f64;
            let (below, above) = (samples[place.floor() as usize], samples[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        (!samples.is_empty()).then(|| Spread { median: at(0.5), low: at(0.25), high: at(0.75) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples() {
        let spread = |samples: &[f64]| Spread::of(samples.iter().copied()).unwrap();
        assert_eq!(spread(&[7.0]), Spread { median: 7.0, low: 7.0, high: 7.0 });
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, low: 1.75, high: 3.25 });
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let row = Row {
            scenario: String::new(),
            measure: Measure::CpuPerMessage,
            connections: 1,
            samples: vec![vec![Some(1.0), Some(10.0), None], vec![Some(0.5), Some(5.0), Some(1.0)]],
        };
        assert_eq!(row.ratio(1, 0).unwrap(), Spread { median: 0.5, low: 0.5, high: 0.5 });
        assert_eq!(row.value(0).unwrap().median, 5.5);
    }
}
