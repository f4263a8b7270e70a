//! Diagnostics as a library user sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Gate, Reference};
use proxygrad::maximize::{Callback, Diagnostics, Findings, NaturalMissing, NoCallback, Outcome, maximize};
use proxygrad::network::calibration::{Calibration, LayerRecord, Statistics, UnitRecord};
use proxygrad::network::{Activation, Array, ChannelOrder, Conv, Model, Network, Op, Preprocessing, Reduce, Window};

use crate::maximize::{resolve, run};
use crate::networks::{array, rng, same};

fn model(network: Network) -> Model {
    let channels = network.input_shape()[0];
    let order = if channels == 1 { ChannelOrder::Grey } else { ChannelOrder::Bgr };
    let (mean, std) = (vec![0.5; channels], vec![0.25; channels]);
    let preprocessing = Preprocessing { channels: order, range: 1.0, mean, std };
    let (id, digest, network) = ("test".into(), String::new(), Arc::new(network));
    let statistics = proxygrad::network::ImageStatistics::default();
    Model { id, digest, network, preprocessing, classes: Vec::new(), statistics, calibration: None }
}

/// `scale * x` of a grey 8x8 image, in one channel; its mean is a linear score.
fn linear(scale: f32) -> Model {
    let mut network = Network::new(1, 8, 8);
    let weight = Array::new([1, 1, 1, 1], vec![scale]).unwrap();
    let conv = Conv { weight, bias: None, window: Window::new([1, 1]), groups: 1 };
    network.push("linear", Op::Conv(conv), &[Network::INPUT]).unwrap();
    model(network)
}

/// A small network with ReLUs.
fn small() -> Model {
    let mut rng = rng(7);
    let mut network = Network::new(3, 14, 11);
    let conv = crate::networks::conv(&mut rng, 3, 8, [3, 3], 1, same(3));
    let conv = network.push("conv", conv, &[Network::INPUT]).unwrap();
    let relu = network.push("relu", Op::Activation(Activation::Relu), &[conv]).unwrap();
    let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false };
    let pool = network.push("pool", mean, &[relu]).unwrap();
    network.push("logits", Op::Dense { weight: array(&mut rng, &[5, 8]), bias: None }, &[pool]).unwrap();
    model(network)
}

fn diagnostics(outcome: &Outcome) -> &Diagnostics {
    outcome.findings.diagnostics.as_ref().unwrap()
}

fn close(found: Option<f32>, expected: f64, within: f64) {
    let found = f64::from(found.unwrap());
    assert!((found - expected).abs() <= within * expected.abs().max(1e-6), "{found}, not {expected}");
}

/// The PNG's pixels `[C,H,W]` in [0, 1].
fn pixels(outcome: &Outcome, channels: usize) -> Vec<f64> {
    let image = image::load_from_memory(&outcome.png).unwrap();
    let levels = if channels == 1 { image.to_luma8().into_raw() } else { image.to_rgb8().into_raw() };
    (0..channels).flat_map(|c| levels.iter().skip(c).step_by(channels)).map(|&v| f64::from(v) / 255.0).collect()
}

#[test]
fn a_linear_score_is_certified_as_known_by_hand() {
    // One tiny step from grey: x is about 0.5 everywhere, and every pixel wants to rise.
    let request = r#"{"model": "test", "objective": "linear:0", "steps": 1, "start": {"kind": "grey", "noise": 0},
                      "optimizer": {"kind": "l2-ascent", "lr": 0.001}, "diagnostics": true}"#;
    let outcome = &run(&linear(2.0), request)[0];
    let x = pixels(outcome, 1)[0];
    // The score is the mean of 2 (p - 0.5) / 0.25, so every pixel has the slope 8 / 64.
    let (slope, score) = (8.0 / 64.0, 8.0 * (x - 0.5));
    assert!((f64::from(outcome.findings.score) - score).abs() < 1e-6);
    let Diagnostics { stationarity, gain_50, robust, .. } = diagnostics(outcome);
    close(stationarity.projected_gradient, slope * 8.0, 1e-5);
    close(stationarity.free_share, 1.0, 1e-5);
    close(stationarity.step_gain, 0.005 * 8.0 / score.abs(), 1e-4);
    close(stationarity.gain_bound, 8.0 * (1.0 - x) / score.abs(), 1e-4);
    // Steps of root mean square 0.005 (1 + cos) / 2 add up to 25.5 of them.
    close(gain_50.absolute, 8.0 * 0.005 * 25.5, 1e-4);
    assert_eq!(gain_50.best_step, 50);
    // Views of one colour are that colour.
    close(robust.mean, score, 1e-3);
    assert_eq!(diagnostics(outcome).high_frequency_share, None, "an image of one colour has no spectrum");
    assert_eq!(diagnostics(outcome).passes, 2 * 50 + 1 + 64);
}

#[test]
fn the_optimum_of_a_linear_score_is_stationary() {
    let request = r#"{"model": "test", "objective": "linear:0", "steps": 64, "optimizer": {"kind": "l2-ascent", "lr": 1},
                      "diagnostics": true}"#;
    let outcome = &run(&linear(1.0), request)[0];
    let Diagnostics { stationarity, gain_50, robust, .. } = diagnostics(outcome);
    let numbers = [stationarity.projected_gradient, stationarity.free_share, stationarity.step_gain];
    assert_eq!(numbers, [Some(0.0); 3]);
    assert_eq!((stationarity.gain_bound, gain_50.absolute, gain_50.best_step), (Some(0.0), Some(0.0), 0));
    close(robust.min_share, 1.0, 1e-4);
}

#[test]
fn the_gradient_is_the_true_one_of_the_delivered_image() {
    let model = small();
    let request = r#"{"model": "test", "objective": "logits:2", "steps": 6, "diagnostics": true}"#;
    let outcome = &run(&model, request)[0];
    let x = pixels(outcome, 3);
    let network = &model.network;
    let logits = network.find("logits").unwrap();
    let mut plan =
        Reference::new(Device::Cpu, DType::F64).plan(network, &[logits.into()], network.input_shape()).unwrap();
    let input: Vec<f64> = (0..3).flat_map(|c| &x[(2 - c) * 154..][..154]).map(|p| (p - 0.5) / 0.25).collect();
    plan.forward(&Tensor::from_vec(input, (1, 3, 14, 11), &Device::Cpu).unwrap(), Forward::Original).unwrap();
    let mut seed = vec![0f64; 5];
    seed[2] = 1.0;
    let seed = Tensor::from_vec(seed, (1, 5), &Device::Cpu).unwrap();
    let gradient: Vec<f64> = plan.backward(&[seed], Gate::Plain).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    // Back to the order of the image's channels, by the pixel.
    let gradient: Vec<f64> = (0..3).flat_map(|c| &gradient[(2 - c) * 154..][..154]).map(|g| g / 0.25).collect();
    let moved = x.iter().zip(&gradient).map(|(x, g)| (x - (x + g).clamp(0.0, 1.0)).powi(2)).sum::<f64>().sqrt();
    close(diagnostics(outcome).stationarity.projected_gradient, moved, 1e-4);
    let bound: f64 = x.iter().zip(&gradient).map(|(x, g)| (g * (1.0 - x)).max(-g * x)).sum();
    close(diagnostics(outcome).stationarity.gain_bound, bound / f64::from(outcome.findings.score).abs(), 1e-4);
    let gain = diagnostics(outcome).gain_50.absolute.unwrap();
    assert!(gain > 0.0, "six steps are not enough");
}

#[test]
fn diagnostics_do_not_depend_on_the_batch_and_change_nothing_else() {
    let model = small();
    let request = |extra: &str| {
        format!(
            r#"{{"model": "test", "objectives": ["logits:0", "relu:3@max", "logits:4", "relu@energy"], "steps": 8,
                 "transforms": ["jitter:2"], "seed": 3{extra}}}"#
        )
    };
    let engine = Cpu::new(&CpuSettings::default()).unwrap();
    let resolved = resolve(&model, &request(r#", "diagnostics": true"#));
    let together = run(&model, &request(r#", "diagnostics": true"#));
    for (i, task) in resolved.tasks().into_iter().enumerate() {
        let alone = maximize(&engine, &model, &[task], &resolved.settings, &mut NoCallback).unwrap();
        assert_eq!(alone[0].as_ref(), Some(&together[i]), "stimulus {i}");
    }
    let without = run(&model, &request(""));
    for (with, without) in together.into_iter().zip(without) {
        assert!(without.findings.diagnostics.is_none());
        let findings = Findings { diagnostics: None, ..with.findings };
        assert_eq!(Outcome { findings, ..with }, without);
    }
}

#[test]
fn the_same_views_are_shown_whatever_the_seed() {
    let of = |seed: u64| {
        // Without noise, both seeds find the same image.
        let request = format!(
            r#"{{"model": "test", "objective": "logits:1", "steps": 9, "seed": {seed},
                 "start": {{"kind": "grey", "noise": 0}}, "diagnostics": true}}"#
        );
        run(&small(), &request).remove(0)
    };
    let (one, other) = (of(1), of(2));
    assert_eq!(one, other);
    let robust = &diagnostics(&one).robust;
    let (min, p10, mean) = (robust.min.unwrap(), robust.p10.unwrap(), robust.mean.unwrap());
    assert!(min <= p10 && p10 < mean && min < mean, "{robust:?}");
}

#[test]
fn diagnostics_stop_once_unwanted() {
    struct Leaves(u32);
    impl Callback for Leaves {
        fn should_stop(&mut self, _: usize) -> bool {
            self.0 += 1;
            self.0 == 20
        }
    }
    let model = small();
    let resolved = resolve(&model, r#"{"model": "test", "objective": "logits:1", "steps": 2, "diagnostics": true}"#);
    let engine = Cpu::new(&CpuSettings::default()).unwrap();
    let mut leaves = Leaves(0);
    let outcomes = maximize(&engine, &model, &resolved.tasks(), &resolved.settings, &mut leaves).unwrap();
    assert_eq!((outcomes, leaves.0), (vec![None], 20));
}

#[test]
fn a_dead_unit_has_diagnostics_too() {
    let mut network = Network::new(1, 6, 6);
    let shift = Op::Affine { scale: Array::vector(vec![1.0]), shift: Array::vector(vec![-9.0]) };
    let shift = network.push("shift", shift, &[Network::INPUT]).unwrap();
    network.push("relu", Op::Activation(Activation::Relu), &[shift]).unwrap();
    let request = r#"{"model": "test", "objective": "relu:0", "steps": 3, "gate": "plain", "diagnostics": true}"#;
    let outcome = &run(&model(network), request)[0];
    let all = diagnostics(outcome);
    assert_eq!((all.stationarity.projected_gradient, all.stationarity.gain_bound), (Some(0.0), Some(0.0)));
    assert_eq!((all.gain_50.absolute, all.robust.mean, all.robust.mean_share), (Some(0.0), Some(0.0), None));
    let json = serde_json::to_string(all).unwrap();
    assert_eq!(&serde_json::from_str::<Diagnostics>(&json).unwrap(), all);
}

#[test]
fn scores_are_compared_with_what_natural_images_reach() {
    let of = |max: f32| Statistics { min: -max, max, mean: 0.0, std: 1.0 };
    let unit = UnitRecord { mean: of(0.5), center: of(2.0), max: of(4.0), top: Vec::new() };
    let layer = |units: usize| LayerRecord { units: vec![unit.clone(); units], energy: of(3.0) };
    let layers = BTreeMap::from([("relu".to_owned(), layer(8)), ("logits".to_owned(), layer(5))]);
    let calibration =
        Calibration { digest: String::new(), size: [14, 11], images: 9, kept: Vec::new(), layers, folder: None };
    let calibrated = Model { calibration: Some(Arc::new(calibration)), ..small() };
    let natural = |model: &Model, objective: &str, size: &str| {
        let request =
            format!(r#"{{"model": "test", "objective": {objective}, "steps": 2, "diagnostics": true{size}}}"#);
        let outcome = run(model, &request).remove(0);
        let all = diagnostics(&outcome);
        if let Some(natural) = all.natural_maximum.filter(|natural| *natural > 0.0) {
            close(all.percent_of_natural, f64::from(100.0 * outcome.findings.score / natural), 1e-5);
        } else {
            assert_eq!(all.percent_of_natural, None);
        }
        (all.natural_maximum, all.natural_missing)
    };
    for (objective, maximum) in [
        (r#""relu:3""#, 0.5),
        (r#""relu:3@center""#, 2.0),
        (r#""relu:3@max""#, 4.0),
        (r#""logits:2""#, 0.5),
        (r#""relu@energy""#, 3.0),
        (r#"{"sum": [{"layer": "relu", "channel": 1, "weight": 3}]}"#, 1.5),
        (r#"{"sum": [{"layer": "relu", "channel": 1, "weight": -2}]}"#, 1.0),
    ] {
        assert_eq!(natural(&calibrated, objective, ""), (Some(maximum), None), "{objective}");
    }
    for (objective, missing) in [
        (r#""relu:3@1,2""#, NaturalMissing::Selection),
        (r#""relu:3@top0.5""#, NaturalMissing::Selection),
        (r#""conv:3""#, NaturalMissing::LayerLeftOut),
        (r#"{"sum": ["logits:1", "logits:2"]}"#, NaturalMissing::Sum),
    ] {
        assert_eq!(natural(&calibrated, objective, ""), (None, Some(missing)), "{objective}");
    }
    let larger = natural(&calibrated, r#""relu:3""#, r#", "size": [16, 16]"#);
    assert_eq!(larger, (None, Some(NaturalMissing::OtherSize)));
    assert_eq!(natural(&small(), r#""relu:3""#, ""), (None, Some(NaturalMissing::NotCalibrated)));
}

#[test]
fn documents_stored_before_diagnostics_existed_are_read() {
    let model = small();
    let request = r#"{"model": "test", "objective": "logits:1", "steps": 1, "diagnostics": true}"#;
    let resolved = resolve(&model, request);
    let mut findings = serde_json::to_value(&run(&model, request)[0].findings).unwrap();
    let mut settings = serde_json::to_value(&resolved.settings).unwrap();
    for document in [&mut findings, &mut settings] {
        assert!(document.as_object_mut().unwrap().remove("diagnostics").is_some());
    }
    assert!(serde_json::from_value::<Findings>(findings).unwrap().diagnostics.is_none());
    assert!(!serde_json::from_value::<proxygrad::maximize::Settings>(settings).unwrap().diagnostics);
}

#[test]
fn stored_documents_may_have_the_old_names() {
    let model = small();
    let request = r#"{"model": "test", "objective": "logits:1", "steps": 1, "diagnostics": true}"#;
    let resolved = resolve(&model, request);
    let findings = serde_json::to_value(&run(&model, request)[0].findings).unwrap();
    let mut settings = serde_json::to_value(&resolved.settings).unwrap();
    let known = serde_json::json!({"sha256": "00", "width": 8, "height": 8});
    settings["start"] = serde_json::json!({"kind": "image", "image": known, "noise": 0.0, "max_rms_distance": 0.125});
    let old = |document: &serde_json::Value| {
        let text = document.to_string();
        text.replace(r#""diagnostics""#, r#""certificates""#).replace(r#""max_rms_distance""#, r#""leash""#)
    };
    assert_eq!(
        serde_json::from_str::<Findings>(&old(&findings)).unwrap(),
        serde_json::from_value::<Findings>(findings).unwrap()
    );
    let read: proxygrad::maximize::Settings = serde_json::from_str(&old(&settings)).unwrap();
    assert_eq!(
        serde_json::to_value(&read).unwrap()["start"]["max_rms_distance"],
        settings["start"]["max_rms_distance"]
    );
    assert!(read.diagnostics);
    let refused = serde_json::from_str::<proxygrad::maximize::Request>(&old(&serde_json::from_str(request).unwrap()));
    assert!(refused.unwrap_err().to_string().contains("`diagnostics`"));
}
