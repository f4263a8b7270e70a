//! Maximum of a unit of a trained network: one row of `maxima.csv`.

use super::plan::MaximaPlan;
use crate::report::csv;
use crate::study::folder::Record;
use crate::study::row::{read, rises};
use crate::study::training::row::TrainingKey;

/// Key of a maximum, unique within a study.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaximumKey {
    /// The run whose network it is.
    pub run: TrainingKey,
    /// Name of the gate.
    pub gate: String,
    /// The unit as text.
    pub unit: String,
}

/// The maximum of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct MaximumRow {
    /// Its key.
    pub key: MaximumKey,
    /// Largest value of the unit on the test images: its natural maximum.
    pub natural: f32,
    /// Value on the image before the first step; NaN if not finite.
    pub initial: f32,
    /// Value on the stimulus; NaN if not finite.
    pub maximum: f32,
}

/// Header of `maxima.csv`.
const HEAD: [&str; 9] = ["data", "network", "arm", "seed", "gate", "unit", "natural", "initial", "maximum"];

impl MaximumRow {
    /// Whether no test image activates the unit.
    pub(super) fn is_dead(&self) -> bool {
        self.natural <= 0.0
    }

    /// The maximum as a multiple of the natural maximum; `None` if that is not positive, or one of them not finite.
    pub(super) fn ratio(&self) -> Option<f64> {
        let ratio = f64::from(self.maximum) / f64::from(self.natural);
        (self.natural > 0.0 && ratio.is_finite()).then_some(ratio)
    }

    /// Whether the stimulus scores higher than the start.
    pub(super) fn rose(&self) -> bool {
        rises(self.initial, self.maximum)
    }
}

impl Record for MaximumRow {
    const PLAN: &str = "maxima.json";
    const TABLE: &str = "maxima.csv";

    type Plan = MaximaPlan;
    type Key = MaximumKey;
    type Columns = ();

    fn head(_: &MaximaPlan) -> String {
        csv::line(HEAD)
    }

    fn columns(head: &str) -> Option<()> {
        (head == csv::line(HEAD).trim_end()).then_some(())
    }

    fn key(&self) -> MaximumKey {
        self.key.clone()
    }

    fn to_line(&self) -> String {
        let MaximumKey { run, gate, unit } = self.key.clone();
        let [natural, initial, maximum] = [self.natural, self.initial, self.maximum].map(|value| value.to_string());
        csv::line([run.data, run.network, run.arm, run.seed.to_string(), gate, unit, natural, initial, maximum])
    }

    fn from_line(line: &str, (): &()) -> Result<Self, String> {
        let [data, network, arm, seed, gate, unit, natural, initial, maximum] = csv::exact_cells(line)?;
        let run = TrainingKey { data, network, arm, seed: read("seed", &seed)? };
        Ok(Self {
            key: MaximumKey { run, gate, unit },
            natural: read("natural", &natural)?,
            initial: read("initial", &initial)?,
            maximum: read("maximum", &maximum)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_row_is_what_its_line_says() {
        let run = TrainingKey { data: "a,b".into(), network: "n".into(), arm: "decoupled:1@0.4".into(), seed: 7 };
        let key = MaximumKey { run, gate: "slope:0.1".into(), unit: "relu:3@center".into() };
        let row = MaximumRow { key, natural: 0.1 + 0.2, initial: -1e-7, maximum: 12.5 };
        let read = |row: &MaximumRow| MaximumRow::from_line(row.to_line().trim_end(), &()).unwrap();
        assert_eq!(read(&row), row);
        assert!(read(&MaximumRow { maximum: f32::NAN, ..row }).maximum.is_nan());
        assert!(MaximumRow::from_line("a,b", &()).unwrap_err().contains("2 cells"));
        assert!(MaximumRow::from_line("a,b,c,1,plain,r:1,x,0,0", &()).unwrap_err().contains("natural"));
    }

    #[test]
    fn a_maximum_is_compared_with_the_natural_one() {
        let run = TrainingKey { data: "d".into(), network: "n".into(), arm: "a".into(), seed: 0 };
        let key = MaximumKey { run, gate: "plain".into(), unit: "relu:3".into() };
        let row = |natural, initial, maximum| MaximumRow { key: key.clone(), natural, initial, maximum };
        assert_eq!(row(2.0, 1.0, 5.0).ratio(), Some(2.5));
        assert!(row(2.0, 1.0, 5.0).rose() && !row(2.0, 0.0, 0.0).rose() && !row(2.0, 5.0, 5.001).rose());
        assert!(row(0.0, 0.0, 5.0).is_dead() && row(0.0, 0.0, 5.0).ratio().is_none());
        assert!(row(2.0, 1.0, f32::NAN).ratio().is_none() && !row(2.0, 1.0, f32::NAN).rose());
    }
}
