//! Run of a study of training: one row of `runs.csv`.

use std::str::FromStr;

use super::plan::TrainingPlan;
use crate::report::csv;
use crate::study::folder::Record;
use crate::study::row::read;
use crate::train::Epoch;

/// Key of a run, unique within a study.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrainingKey {
    /// Name of the dataset.
    pub data: String,
    /// Name of the network.
    pub network: String,
    /// Name of the arm.
    pub arm: String,
    /// Seed of the recipe.
    pub seed: u64,
}

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingRow {
    /// Its key.
    pub key: TrainingKey,
    /// Whether the loss became infinite or no number, which ended the run.
    pub diverged: bool,
    /// Share of the test images that the network classifies correctly at the end; `None` after divergence.
    pub test_accuracy: Option<f64>,
    /// The same of the training images.
    pub train_accuracy: Option<f64>,
    /// Share of dead units at the end, as [`Epoch::dead`].
    pub dead: Option<f64>,
    /// Seconds that the run took.
    pub seconds: f64,
    /// Mean training loss of every epoch.
    pub losses: Vec<f64>,
    /// Test accuracy after every epoch.
    pub accuracies: Vec<f64>,
    /// Share of dead units after every epoch.
    pub dead_shares: Vec<f64>,
}

/// Header of `runs.csv`.
const HEAD: [&str; 12] = [
    "data",
    "network",
    "arm",
    "seed",
    "diverged",
    "test_accuracy",
    "train_accuracy",
    "dead",
    "seconds",
    "losses",
    "accuracies",
    "dead_shares",
];

impl TrainingRow {
    /// The row of a run with these epochs; `train_accuracy` is `None` if it diverged.
    pub(super) fn new(key: TrainingKey, epochs: &[Epoch], train_accuracy: Option<f64>, seconds: f64) -> Self {
        let last = epochs.last().filter(|_| train_accuracy.is_some());
        Self {
            key,
            diverged: train_accuracy.is_none(),
            test_accuracy: last.map(|epoch| epoch.test_accuracy),
            train_accuracy,
            dead: last.map(|epoch| epoch.dead),
            seconds,
            losses: epochs.iter().map(|epoch| epoch.train_loss).collect(),
            accuracies: epochs.iter().map(|epoch| epoch.test_accuracy).collect(),
            dead_shares: epochs.iter().map(|epoch| epoch.dead).collect(),
        }
    }
}

impl Record for TrainingRow {
    type Plan = TrainingPlan;
    type Key = TrainingKey;
    type Columns = ();

    fn head(_: &TrainingPlan) -> String {
        csv::line(HEAD)
    }

    fn columns(head: &str) -> Option<()> {
        (head == csv::line(HEAD).trim_end()).then_some(())
    }

    fn key(&self) -> TrainingKey {
        self.key.clone()
    }

    fn to_line(&self) -> String {
        let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let course = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
        csv::line([
            self.key.data.clone(),
            self.key.network.clone(),
            self.key.arm.clone(),
            self.key.seed.to_string(),
            self.diverged.to_string(),
            optional(self.test_accuracy),
            optional(self.train_accuracy),
            optional(self.dead),
            format!("{:.3}", self.seconds),
            course(&self.losses),
            course(&self.accuracies),
            course(&self.dead_shares),
        ])
    }

    fn from_line(line: &str, (): &()) -> Result<Self, String> {
        let [data, network, arm, seed, diverged, test, train, dead, seconds, losses, accuracies, dead_shares] =
            csv::exact_cells(line)?;
        Ok(Self {
            key: TrainingKey { data, network, arm, seed: read("seed", &seed)? },
            diverged: read("diverged", &diverged)?,
            test_accuracy: optional("test_accuracy", &test)?,
            train_accuracy: optional("train_accuracy", &train)?,
            dead: optional("dead", &dead)?,
            seconds: read("seconds", &seconds)?,
            losses: course("losses", &losses)?,
            accuracies: course("accuracies", &accuracies)?,
            dead_shares: course("dead_shares", &dead_shares)?,
        })
    }
}

fn optional<T: FromStr>(column: &str, cell: &str) -> Result<Option<T>, String> {
    if cell.is_empty() { Ok(None) } else { read(column, cell).map(Some) }
}

fn course(column: &str, cell: &str) -> Result<Vec<f64>, String> {
    cell.split_whitespace().map(|value| read(column, value)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_row_is_what_its_line_says() {
        let key = TrainingKey { data: "a,b".into(), network: "n".into(), arm: "decoupled:1@0.4".into(), seed: 7 };
        let row = TrainingRow {
            key,
            diverged: false,
            test_accuracy: Some(0.1 + 0.2),
            train_accuracy: Some(1.0),
            dead: Some(0.0),
            seconds: 1.5,
            losses: vec![2.25, 1e-7],
            accuracies: vec![0.1],
            dead_shares: vec![],
        };
        let diverged =
            TrainingRow { diverged: true, test_accuracy: None, train_accuracy: None, dead: None, ..row.clone() };
        for row in [row, diverged] {
            assert_eq!(TrainingRow::from_line(row.to_line().trim_end(), &()).unwrap(), row);
        }
        assert!(TrainingRow::from_line("a,b", &()).unwrap_err().contains("2 cells"));
        assert!(TrainingRow::from_line("a,b,c,1,no,,,,1,,,", &()).unwrap_err().contains("diverged"));
    }
}
