//! An objective's value on a layer's output, and its gradient there.

use candle_core::{DType, Result, Tensor};

use super::objective::Objective;
use crate::network::{Reduction, Selection};

/// One term of an objective, aimed at one of a plan's targets.
#[derive(Debug, Clone)]
struct Aim {
    /// Position of the layer among the plan's targets.
    target: usize,
    selection: Selection,
    weight: f64,
}

/// An objective, aimed at the targets of a plan.
#[derive(Debug, Clone)]
pub(super) struct Scorer {
    aims: Vec<Aim>,
}

/// Value of an objective on one sample and, per target, its gradient there (absent where the objective does not look).
pub(super) struct Scored {
    pub(super) score: f32,
    pub(super) seeds: Vec<Option<Tensor>>,
}

impl Scorer {
    /// `target_of` gives a layer's position among the targets.
    pub(super) fn new(objective: &Objective, target_of: impl Fn(&str) -> Option<usize>) -> Self {
        let aim = |term: &super::Term| {
            let selection = term.unit.selection.clone();
            Some(Aim { target: target_of(&term.unit.layer)?, selection, weight: f64::from(term.weight) })
        };
        Self { aims: objective.terms.iter().filter_map(aim).collect() }
    }

    /// The value alone, for one sample's outputs `[C,H,W]` or `[K]`, one per target.
    pub(super) fn score(&self, outputs: &[Tensor]) -> Result<f32> {
        let mut sum = 0.0;
        for aim in &self.aims {
            sum += aim.weight * aim.reduce(&outputs[aim.target])?.0;
        }
        Ok(sum as f32)
    }

    /// The value and its gradient.
    pub(super) fn score_and_seed(&self, outputs: &[Tensor]) -> Result<Scored> {
        let mut seeds: Vec<Option<Tensor>> = vec![None; outputs.len()];
        let mut sum = 0.0;
        for aim in &self.aims {
            let output = &outputs[aim.target];
            let (value, slopes) = aim.reduce(output)?;
            sum += aim.weight * value;
            let seed = aim.seed(output, slopes)?;
            let slot = &mut seeds[aim.target];
            *slot = Some(match slot.take() {
                Some(other) => (other + seed)?,
                None => seed,
            });
        }
        Ok(Scored { score: sum as f32, seeds })
    }
}

/// Derivatives of a reduction with respect to the positions of its map.
type Slopes = Vec<f64>;

impl Aim {
    /// The selection's value and its derivatives. Sums run in f64: a mean over a large map stays exact to f32.
    fn reduce(&self, output: &Tensor) -> Result<(f64, Slopes)> {
        let size = match output.dims() {
            &[_, height, width] => [height, width],
            _ => [1, 1],
        };
        let one_position = |map: Vec<f64>, position: usize| {
            let mut slopes = vec![0.0; map.len()];
            slopes[position] = 1.0;
            (map[position], slopes)
        };
        match &self.selection {
            Selection::Neuron { channel, position: [y, x] } => {
                Ok(one_position(channel_map(output, *channel)?, y * size[1] + x))
            }
            Selection::Channel { channel, reduction } => Ok(reduce(channel_map(output, *channel)?, *reduction, size)),
            Selection::Direction { weights, reduction } => {
                let channels = weights.len();
                let weights = Tensor::from_slice(weights, (1, channels), output.device())?.to_dtype(output.dtype())?;
                let map = weights.matmul(&output.contiguous()?.reshape((channels, ()))?)?;
                Ok(reduce(to_f64(&map)?, *reduction, size))
            }
            Selection::Energy => {
                let values = to_f64(output)?;
                let energy = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
                Ok((energy, Vec::new()))
            }
        }
    }

    /// The weighted gradient, shaped as the output.
    fn seed(&self, output: &Tensor, slopes: Slopes) -> Result<Tensor> {
        let channels = output.dim(0)?;
        let map = |slopes: Slopes| {
            let slopes: Vec<f32> = slopes.into_iter().map(|slope| (slope * self.weight) as f32).collect();
            let positions = slopes.len();
            Tensor::from_vec(slopes, (1, positions), output.device())?.to_dtype(output.dtype())
        };
        match &self.selection {
            Selection::Channel { channel, .. } | Selection::Neuron { channel, .. } => {
                let map = map(slopes)?.pad_with_zeros(0, *channel, channels - channel - 1)?;
                map.reshape(output.dims())
            }
            Selection::Direction { weights, .. } => {
                let weights = Tensor::from_slice(weights, (channels, 1), output.device())?.to_dtype(output.dtype())?;
                weights.matmul(&map(slopes)?)?.reshape(output.dims())
            }
            Selection::Energy => output.affine(2.0 * self.weight / output.elem_count() as f64, 0.0),
        }
    }
}

fn to_f64(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

fn channel_map(output: &Tensor, channel: usize) -> Result<Vec<f64>> {
    to_f64(&output.narrow(0, channel, 1)?)
}

/// A map's value and derivatives under a reduction; `[height, width]` is its size.
fn reduce(map: Vec<f64>, reduction: Reduction, [height, width]: [usize; 2]) -> (f64, Slopes) {
    let count = map.len();
    let mut slopes = vec![0.0; count];
    let chosen = match reduction {
        Reduction::Mean => (0..count).collect(),
        Reduction::Center => vec![height / 2 * width + width / 2],
        Reduction::Max => largest(&map, 1),
        Reduction::TopFraction(share) => {
            // Slightly less, so that a share such as 0.1, which f32 rounds up, keeps 40 of 400 values and not 41.
            let kept = (f64::from(share) * count as f64 * (1.0 - 1e-6)).ceil() as usize;
            largest(&map, kept.clamp(1, count))
        }
    };
    let share = 1.0 / chosen.len() as f64;
    let mut value = 0.0;
    for position in chosen {
        slopes[position] = share;
        value += share * map[position];
    }
    (value, slopes)
}

/// Positions of the `count` largest values; of equal values the first.
fn largest(map: &[f64], count: usize) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..map.len()).collect();
    positions.sort_by(|&a, &b| map[b].total_cmp(&map[a]).then(a.cmp(&b)));
    positions.truncate(count);
    positions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;

    use super::*;

    fn scorer(unit: &str) -> Scorer {
        Scorer::new(&unit.parse().unwrap(), |_| Some(0))
    }

    fn output() -> Tensor {
        Tensor::new(&[[[1f64, -2.0, 3.0], [4.0, 9.0, 0.5]], [[7.0, 1.0, 1.0], [1.0, 1.0, 2.5]]], &Device::Cpu).unwrap()
    }

    #[test]
    fn reductions_of_a_channel() {
        for (unit, expected) in [
            ("a:0", 15.5 / 6.0),
            ("a:0@center", 9.0),
            ("a:0@max", 9.0),
            ("a:0@top0.5", 16.0 / 3.0),
            ("a:0@0,1", -2.0),
            ("a:1@top0.01", 7.0),
            ("a@energy", (1.0 + 4.0 + 9.0 + 16.0 + 81.0 + 0.25 + 49.0 + 4.0 + 6.25) / 12.0),
        ] {
            let score = scorer(unit).score(&[output()]).unwrap();
            assert!((f64::from(score) - expected).abs() < 1e-6, "{unit}: {score}, not {expected}");
        }
    }

    #[test]
    fn a_share_keeps_as_many_values_as_its_decimals_say() {
        let values: Vec<f64> = (0..400).map(f64::from).collect();
        let output = Tensor::from_vec(values, (1, 20, 20), &Device::Cpu).unwrap();
        for (share, kept) in [("0.1", 40), ("0.07", 28), ("0.2", 80), ("0.25", 100), ("0.101", 41), ("1", 400)] {
            let score = scorer(&format!("a:0@top{share}")).score(std::slice::from_ref(&output)).unwrap();
            let mean = (400 - kept..400).map(f64::from).sum::<f64>() / f64::from(kept);
            assert_eq!(f64::from(score), mean, "{share}");
        }
    }

    #[test]
    fn seeds_are_the_slope_of_the_score() {
        let sum: super::super::Objective = serde_json::from_str(
            r#"{"sum": ["a:0@top0.5", {"layer": "a", "direction": [0.5, -2.0], "weight": -1.5},
                        {"layer": "a", "reduce": "energy", "weight": 0.25}]}"#,
        )
        .unwrap();
        let scorers = ["a:0", "a:1@center", "a:0@max", "a:1@1,2", "a@energy"].map(scorer);
        for scorer in scorers.into_iter().chain([Scorer::new(&sum, |_| Some(0))]) {
            let values = to_f64(&output()).unwrap();
            let seed = to_f64(scorer.score_and_seed(&[output()]).unwrap().seeds[0].as_ref().unwrap()).unwrap();
            for i in 0..values.len() {
                let at = |step: f64| {
                    let mut moved = values.clone();
                    moved[i] += step;
                    let moved = Tensor::from_vec(moved, (2, 2, 3), &Device::Cpu).unwrap();
                    f64::from(scorer.score(&[moved]).unwrap())
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!((seed[i] - slope).abs() < 1e-4, "{scorer:?} at {i}: {}, not {slope}", seed[i]);
            }
        }
    }
}
