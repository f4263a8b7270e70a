//! Values and gradients of objectives.

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};

use super::bound::BoundObjective;
use super::document::Objective;
use super::scoring::{Scored, Scoring};
use crate::maximize::ops::Placement;

fn terms(unit: &str) -> BoundObjective {
    BoundObjective::new(&unit.parse().unwrap(), |_| Some(0))
}

/// One image's score of `terms` on `output` `[C,H,W]`, and its seed.
fn scored(terms: &BoundObjective, output: &Tensor) -> (f32, Tensor) {
    let scoring = Scoring::new(&[terms], &[output.dims()], &Placement::host_f64()).unwrap();
    let outputs = [output.unsqueeze(0).unwrap()];
    let Scored { scores, seeds } = scoring.scores_and_seeds(&outputs).unwrap();
    let bits = |scores: Tensor| scores.to_vec1::<f32>().unwrap()[0].to_bits();
    let score = bits(scores);
    assert_eq!(bits(scoring.scores(&outputs).unwrap()), score);
    (f32::from_bits(score), seeds[0].get(0).unwrap())
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
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
        let (score, _) = scored(&terms(unit), &output());
        assert!((f64::from(score) - expected).abs() < 1e-6, "{unit}: {score}, not {expected}");
    }
}

#[test]
fn a_share_keeps_as_many_values_as_its_decimals_say() {
    let values: Vec<f64> = (0..400).map(f64::from).collect();
    let output = Tensor::from_vec(values, (1, 20, 20), &Device::Cpu).unwrap();
    for (share, kept) in [("0.1", 40), ("0.07", 28), ("0.2", 80), ("0.25", 100), ("0.101", 41), ("1", 400)] {
        let (score, _) = scored(&terms(&format!("a:0@top{share}")), &output);
        let mean = (400 - kept..400).map(f64::from).sum::<f64>() / f64::from(kept);
        assert_eq!(f64::from(score), mean, "{share}");
    }
}

#[test]
fn seeds_are_the_slope_of_the_score() {
    let sum: Objective = serde_json::from_str(
        r#"{"sum": ["a:0@top0.5", {"layer": "a", "direction": [0.5, -2.0], "weight": -1.5},
                    {"layer": "a", "reduce": "energy", "weight": 0.25}]}"#,
    )
    .unwrap();
    let objectives = ["a:0", "a:1@center", "a:0@max", "a:1@1,2", "a@energy"].map(terms);
    for terms in objectives.into_iter().chain([BoundObjective::new(&sum, |_| Some(0))]) {
        let at_rest = values(&output());
        let seed = values(&scored(&terms, &output()).1);
        for i in 0..at_rest.len() {
            let at = |step: f64| {
                let mut moved = at_rest.clone();
                moved[i] += step;
                f64::from(scored(&terms, &Tensor::from_vec(moved, (2, 2, 3), &Device::Cpu).unwrap()).0)
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((seed[i] - slope).abs() < 1e-4, "{terms:?} at {i}: {}, not {slope}", seed[i]);
        }
    }
}

#[test]
fn objectives_of_a_batch_do_not_mix() {
    let mixed: Objective = serde_json::from_str(
        r#"{"sum": ["a:1@max", "a:0", {"layer": "a", "direction": [0.5, -2.0], "reduce": "max"},
                        {"layer": "a", "direction": [0.5, -2.0], "cosine_power": 2, "reduce": "max"}, "a@energy", "a:0@0,1"]}"#,
    )
    .unwrap();
    let mixed = BoundObjective::new(&mixed, |_| Some(0));
    let objectives = [terms("a@energy"), terms("a:0@top0.5"), mixed, terms("a:1"), terms("a:0@max")];
    let outputs: Vec<Tensor> = (0..5).map(|i| output().affine(1.0 + f64::from(i), -0.3).unwrap()).collect();
    let all: Vec<&BoundObjective> = objectives.iter().collect();
    let scoring = Scoring::new(&all, &[&[2, 2, 3]], &Placement::host_f64()).unwrap();
    let together = scoring.scores_and_seeds(&[Tensor::stack(&outputs, 0).unwrap()]).unwrap();
    let scores = together.scores.to_vec1::<f32>().unwrap();
    for (i, (terms, output)) in objectives.iter().zip(&outputs).enumerate() {
        let (score, seed) = scored(terms, output);
        assert_eq!(score.to_bits(), scores[i].to_bits(), "score {i}");
        assert_eq!(values(&seed), values(&together.seeds[0].get(i).unwrap()), "seed {i}");
    }
}

#[test]
fn a_value_that_is_not_a_number_makes_a_score_that_is_not_one() {
    let mut broken = values(&output());
    broken[2] = f64::NAN;
    let broken = Tensor::from_vec(broken, (2, 2, 3), &Device::Cpu).unwrap();
    for unit in ["a:0", "a:0@max", "a:0@top0.5", "a:0@0,2", "a@energy"] {
        assert!(scored(&terms(unit), &broken).0.is_nan(), "{unit}");
    }
    assert!(scored(&terms("a:1@max"), &broken).0.is_finite());
}
