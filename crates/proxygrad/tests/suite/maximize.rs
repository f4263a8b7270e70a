//! Activation maximization as a library user sees it.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Reference, Target};
use proxygrad::maximize::{Callback, Limits, NoCallback, Outcome, Point, Preset, Request, Resolved, Warning, maximize};
use proxygrad::network::{Activation, Array, ChannelOrder, ImageStatistics, Model, Network, Op, Preprocessing};

use crate::networks::{array, classifier, rng};

pub fn engine() -> Cpu {
    Cpu::new(&CpuSettings::default()).unwrap()
}

pub fn model(network: Network, preprocessing: Preprocessing) -> Model {
    let (network, classes, statistics) = (Arc::new(network), Vec::new(), ImageStatistics::default());
    let (id, digest, calibration) = ("test".into(), String::new(), None);
    Model { id, digest, network, preprocessing, classes, statistics, calibration }
}

/// Grey pixels shown to the network as values from -1 to 1.
pub fn symmetric() -> Preprocessing {
    Preprocessing { channels: ChannelOrder::Grey, range: 1.0, mean: vec![0.5], std: vec![0.5] }
}

/// A request that names no preset is for the maximum here: each of its steps is one forward and one backward pass.
pub fn resolve(model: &Model, request: &str) -> Resolved {
    let mut request: Request = serde_json::from_str(request).unwrap();
    request.preset.get_or_insert(Preset::Maximum);
    request.resolve(model, &Limits::default()).unwrap()
}

pub fn run(model: &Model, request: &str) -> Vec<Outcome> {
    let resolved = resolve(model, request);
    let outcomes = maximize(&engine(), model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
    outcomes.into_iter().map(Option::unwrap).collect()
}

/// `relu(x)` on a 15x15 image of values from -1 to 1.
pub fn toy() -> Model {
    let mut network = Network::new(1, 15, 15);
    network.push("relu", Op::Activation(Activation::Relu), &[Network::INPUT]).unwrap();
    model(network, symmetric())
}

/// A three-channel classifier that reads blue, green, red.
pub fn colour_classifier() -> Model {
    let mut rng = rng(21);
    let mut network = Network::new(3, 12, 10);
    let conv = crate::networks::conv(&mut rng, 3, 8, [3, 3], 1, crate::networks::same(3));
    let conv = network.push("conv", conv, &[Network::INPUT]).unwrap();
    let relu = network.push("relu", Op::Activation(Activation::Relu), &[conv]).unwrap();
    let mean = Op::Reduce { kind: proxygrad::network::Reduce::Mean, axes: vec![1, 2], keep: false };
    let pool = network.push("pool", mean, &[relu]).unwrap();
    let dense = Op::Dense { weight: array(&mut rng, &[6, 8]), bias: None };
    let logits = network.push("logits", dense, &[pool]).unwrap();
    network.push("probabilities", Op::Softmax { axis: 0 }, &[logits]).unwrap();
    let preprocessing = Preprocessing {
        channels: ChannelOrder::Bgr,
        range: 255.0,
        mean: vec![104.0, 117.0, 123.0],
        std: vec![60.0, 70.0, 80.0],
    };
    model(network, preprocessing)
}

#[test]
fn on_the_toy_function_plain_stalls_and_proxygrad_reaches_the_optimum() {
    let model = toy();
    for seed in 0..5 {
        let score = |gate: &str| {
            let request = format!(
                r#"{{"model": "test", "objective": "relu:0", "gate": {gate}, "start": {{"kind": "uniform"}},
                     "optimizer": {{"kind": "l2-ascent", "lr": 0.5}}, "seed": {seed}}}"#
            );
            run(&model, &request)[0].findings.score
        };
        let plain = score(r#""plain""#);
        assert!((0.40..0.60).contains(&plain), "seed {seed}: plain reached {plain}");
        for gate in [
            r#"{"kind": "decoupled", "slope": 0.1, "anneal": 0}"#,
            r#"{"kind": "true-proxy", "slope": 0.1, "anneal": 0}"#,
            r#""decoupled""#,
        ] {
            let proxy = score(gate);
            assert!(proxy > 0.999, "seed {seed}: {gate} reached only {proxy}");
        }
    }
}

#[test]
fn the_score_is_that_of_the_delivered_png() {
    let model = colour_classifier();
    let request = |more: &str| {
        format!(
            r#"{{"model": "test", "objectives": ["logits:2", "relu:3@max", {{"sum": ["logits:1", {{"layer": "logits", "channel": 4, "weight": -1}}]}}],
                 "steps": 30, "transforms": ["jitter:2", "rotate:10"]{more}}}"#
        )
    };
    let plain = run(&model, &request(""));
    let coarse = run(&model, &request(r#", "coarse": {"share": 0.9, "scale": 0.5}"#));
    let network = &model.network;
    let targets = ["logits", "relu"].map(|layer| network.find(layer).unwrap());
    let mut plan =
        Reference::new(Device::Cpu, DType::F64).plan(network, &Target::whole(&targets), network.input_shape()).unwrap();
    for (i, outcome) in plain.iter().enumerate().chain(coarse.iter().enumerate()) {
        let png = image::load_from_memory(&outcome.png).unwrap().to_rgb8();
        assert_eq!(png.dimensions(), (10, 12), "width and height");
        let mut input = vec![0f64; 3 * 12 * 10];
        for (x, y, pixel) in png.enumerate_pixels() {
            for (c, (mean, std)) in [(104.0, 60.0), (117.0, 70.0), (123.0, 80.0)].into_iter().enumerate() {
                let level = f64::from(pixel.0[2 - c]);
                input[c * 120 + y as usize * 10 + x as usize] = (level - mean) / std;
            }
        }
        let input = Tensor::from_vec(input, (1, 3, 12, 10), &Device::Cpu).unwrap();
        let outputs = plan.forward(&input, Forward::Original).unwrap();
        let logits: Vec<f64> = outputs[0].flatten_all().unwrap().to_vec1().unwrap();
        let relu: Vec<f64> = outputs[1].get(0).unwrap().get(3).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let expected = match i {
            0 => logits[2],
            1 => relu.into_iter().fold(f64::MIN, f64::max),
            _ => logits[1] - logits[4],
        };
        let error = (f64::from(outcome.findings.score) - expected).abs() / expected.abs();
        assert!(error < 1e-5, "stimulus {i}: {} but the PNG gives {expected}", outcome.findings.score);
    }
}

#[test]
fn reduced_precision_leaves_scores_exact() {
    let Ok(reduced) = proxygrad::engine::open("cpu+bf16", &CpuSettings::default()) else {
        return assert!(!bf16_products(), "this processor multiplies bf16");
    };
    let model = colour_classifier();
    // The first score of a run is that of its start, with views by a pass of its own, without them by the first step's.
    for transforms in [r#"["jitter:2"]"#, "[]"] {
        let request = format!(
            r#"{{"model": "test", "objectives": ["logits:2", "logits:5"], "steps": 9, "transforms": {transforms}}}"#
        );
        let resolved = resolve(&model, &request);
        let on = |engine: &dyn Engine| {
            let outcomes = maximize(engine, &model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
            outcomes.into_iter().map(|outcome| outcome.unwrap().findings).collect::<Vec<_>>()
        };
        for (found, exact) in on(&*reduced).iter().zip(on(&engine())) {
            assert_eq!(found.initial_score, exact.initial_score, "{transforms}");
            assert!(found.score > found.initial_score, "{transforms}");
        }
    }
}

/// Whether the processor has AVX512-BF16.
fn bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[test]
fn a_stimulus_does_not_depend_on_its_batch() {
    let model = colour_classifier();
    let request = |objectives: &str, seed: u64| {
        let text = format!(
            r#"{{"model": "test", "objectives": {objectives}, "steps": 20, "seed": {seed}, "score_every": 3,
                 "transforms": ["pad:3", "jitter:2", "scale:0.9,1.1", "rotate:10@0.5", "noise:0.1@0.5", "blur:0.5@0.3",
                                "colour:0.2", "crop:0.5,1@0.5", "flip"],
                 "regularizers": ["tv:0.1", "l1:0.02", "l2:0.1", "blur:0.5,4"]}}"#
        );
        resolve(&model, &text)
    };
    let all = r#"["logits:0","logits:1","logits:2","logits:3","logits:4","logits:5","logits:0","logits:1"]"#;
    let resolved = request(all, 5);
    let together = maximize(&engine(), &model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
    for (i, task) in resolved.tasks().into_iter().enumerate() {
        let alone = maximize(&engine(), &model, &[task], &resolved.settings, &mut NoCallback).unwrap();
        assert_eq!(alone[0], together[i], "stimulus {i}");
    }
    assert_ne!(together[0], together[6], "the index in the request changes the start");
    let other = request(all, 6);
    let other = maximize(&engine(), &model, &other.tasks(), &other.settings, &mut NoCallback).unwrap();
    assert_ne!(together[0], other[0], "the seed changes the start");
}

#[test]
fn the_best_iterate_is_returned_not_the_last() {
    // Steps far too long: the score jumps about.
    let request =
        r#"{"model": "test", "objective": "logits:2", "steps": 40, "optimizer": {"kind": "l2-ascent", "lr": 9}}"#;
    let outcome = &run(&colour_classifier(), request)[0];
    let best = outcome.findings.trajectory.iter().max_by(|a, b| a.score.total_cmp(&b.score)).unwrap();
    assert_eq!(outcome.findings.trajectory.len(), 41, "every step is scored, and the end");
    assert_eq!(outcome.findings.best_step, best.step);
    assert!(
        (outcome.findings.score - best.score).abs() < 0.02 * best.score.abs(),
        "{} is not {best:?}",
        outcome.findings.score
    );
    assert!(best.score > outcome.findings.initial_score);
    assert_eq!(outcome.findings.initial_score, outcome.findings.trajectory[0].score);
    assert_eq!(outcome.findings.final_score, outcome.findings.trajectory[40].score);
}

#[test]
fn passes_are_counted() {
    let passes = |extra: &str| {
        let request = format!(r#"{{"model": "test", "objective": "logits:2", "steps": 10{extra}}}"#);
        run(&colour_classifier(), &request)[0].findings.passes
    };
    assert_eq!(passes(""), 10 * 2 + 2, "forward and backward a step; the last image and the PNG");
    assert_eq!(passes(r#", "transforms": ["jitter:1"], "score_every": 5"#), 10 * 2 + 2 + 2, "steps 0 and 5 as well");
    let gate = r#", "gate": {"kind": "true-proxy", "anneal": 0, "polish": 0}"#;
    assert_eq!(passes(gate), 10 * 3 + 2, "the original is run only for the score");
}

#[test]
fn all_optimizers_climb() {
    let kinds = ["l2-ascent", "spectral-ascent", "momentum", "adam", "nadam"];
    for (optimizer, decay) in kinds.into_iter().flat_map(|kind| [(kind, "none"), (kind, "cosine")]) {
        let request = format!(
            r#"{{"model": "test", "objective": "logits:3", "steps": 50,
                 "optimizer": {{"kind": "{optimizer}", "decay": "{decay}"}}}}"#
        );
        let outcome = &run(&colour_classifier(), &request)[0];
        assert!(
            outcome.findings.score > outcome.findings.initial_score + 0.3,
            "{optimizer}, decay {decay}: {outcome:?}"
        );
    }
}

#[test]
fn a_preset_shows_in_the_settings_and_gives_way_to_the_request() {
    let model = colour_classifier();
    let settings = |fields: &str| {
        let request = format!(r#"{{"model": "test", "objective": "logits:3", {fields}}}"#);
        serde_json::to_value(resolve(&model, &request).settings).unwrap()
    };
    let lucid = settings(r#""preset": "lucid""#);
    assert_eq!(lucid["preset"], "lucid");
    assert_eq!(lucid["gate"]["kind"], "redirect");
    assert_eq!(lucid["optimizer"]["kind"], "adam");
    assert_eq!(lucid["transforms"][0], "pad:12");
    let own = settings(r#""preset": "lucid", "steps": 9, "optimizer": "nadam", "transforms": []"#);
    assert_eq!((&own["gate"], &own["steps"]), (&lucid["gate"], &serde_json::json!(9)));
    assert_eq!(own["optimizer"]["kind"], "nadam");
    assert_eq!(own["transforms"], serde_json::json!([]));
    let request: Request = serde_json::from_str(r#"{"model": "test", "objective": "logits:3"}"#).unwrap();
    let default = serde_json::to_value(request.resolve(&model, &Limits::default()).unwrap().settings).unwrap();
    assert_eq!(default, settings(r#""preset": "readable""#), "the default is a readable picture");
    for preset in ["readable", "maximum", "lucid", "maco", "proxygrad-paper", "fast", "best"] {
        let request = format!(r#"{{"model": "test", "objective": "logits:3", "preset": "{preset}"}}"#);
        let outcome = run(&model, &request).remove(0);
        let found = &outcome.findings;
        assert!(found.score > found.initial_score, "{preset}: {} from {}", found.score, found.initial_score);
    }
}

#[test]
fn settings_that_were_stored_before_there_were_decay_and_regularizers_are_read() {
    let settings = resolve(&toy(), r#"{"model": "test", "objective": "relu:0", "optimizer": "l2-ascent"}"#).settings;
    let mut stored = serde_json::to_value(&settings).unwrap();
    assert!(stored["optimizer"].as_object_mut().unwrap().remove("decay").is_some());
    assert!(stored.as_object_mut().unwrap().remove("regularizers").is_some());
    assert_eq!(serde_json::from_value::<proxygrad::maximize::Settings>(stored).unwrap(), settings);
}

#[test]
fn regularizers_calm_the_image_and_leave_the_score_alone() {
    let model = colour_classifier();
    let run = |regularizers: &str| {
        let request = format!(
            r#"{{"model": "test", "objective": "logits:3", "steps": 60, "start": {{"kind": "grey", "noise": 0.2}},
                 "optimizer": {{"kind": "l2-ascent", "decay": "cosine"}}, "regularizers": {regularizers}}}"#
        );
        run(&model, &request).remove(0)
    };
    let pixels = |outcome: &Outcome| -> Vec<f64> {
        let png = image::load_from_memory(&outcome.png).unwrap().to_rgb8();
        png.into_raw().into_iter().map(|level| f64::from(level) / 255.0).collect()
    };
    // Distance from grey, its square, and squared differences to the right.
    let measures = |outcome: &Outcome| {
        let x = pixels(outcome);
        let mean = |f: &dyn Fn(usize) -> f64| (0..x.len() - 3).map(f).sum::<f64>() / (x.len() - 3) as f64;
        [mean(&|i| (x[i] - 0.5).abs()), mean(&|i| (x[i] - 0.5).powi(2)), mean(&|i| (x[i + 3] - x[i]).powi(2))]
    };
    let free = run("[]");
    for (regularizer, measure) in [("l1:1", 0), ("l2:3", 1), ("tv:2", 2), ("blur:1,2", 2)] {
        let calm = run(&format!(r#"["{regularizer}"]"#));
        let (calmer, free_measure) = (measures(&calm)[measure], measures(&free)[measure]);
        assert!(calmer < 0.8 * free_measure, "{regularizer}: {calmer}, without {free_measure}");
        let (calm, free) = (&calm.findings, &free.findings);
        assert!(calm.score < free.score && calm.score > calm.initial_score, "{regularizer}: {}", calm.score);
        assert_eq!(calm.initial_score, free.initial_score, "{regularizer} is no part of the score");
    }
}

#[test]
fn a_unit_whose_score_never_moves_is_called_dead_under_every_gate() {
    // relu(x - 2) with x at most 1: nothing is ever positive.
    let mut network = Network::new(1, 6, 6);
    let shift = Op::Affine { scale: Array::vector(vec![1.0]), shift: Array::vector(vec![-2.0]) };
    let shift = network.push("shift", shift, &[Network::INPUT]).unwrap();
    network.push("relu", Op::Activation(Activation::Relu), &[shift]).unwrap();
    let model = model(network, symmetric());
    let warnings = |gate: &str| {
        let request = format!(
            r#"{{"model": "test", "objective": "relu:0", "steps": 5, "gate": "{gate}", "regularizers": ["l2:1"]}}"#
        );
        run(&model, &request)[0].findings.warnings.clone()
    };
    for gate in ["plain", "decoupled", "true-proxy", "redirect", "soft", "identity"] {
        assert!(warnings(gate).contains(&Warning::DeadUnit), "{gate}");
    }
}

#[test]
fn softmax_targets_and_saturated_pixels_are_told() {
    let outcome = &run(&colour_classifier(), r#"{"model": "test", "objective": "probabilities:1", "steps": 3}"#)[0];
    assert!(outcome.findings.warnings.contains(&Warning::SoftmaxTarget));
    let outcome = &run(&toy(), r#"{"model": "test", "objective": "relu:0", "start": {"kind": "uniform"}}"#)[0];
    assert_eq!(outcome.findings.warnings, [Warning::SaturatedPixels]);
}

#[test]
fn a_callback_can_cancel_one_stimulus_without_affecting_the_others() {
    struct Drops {
        steps: u32,
        scores: Vec<(usize, u32)>,
    }
    impl Callback for Drops {
        fn should_stop(&mut self, stimulus: usize) -> bool {
            stimulus == 1 && self.steps == 3
        }
        fn on_step(&mut self, stimulus: usize, steps: u32) {
            if stimulus == 1 {
                self.steps = steps;
            }
        }
        fn on_score(&mut self, stimulus: usize, point: Point) {
            self.scores.push((stimulus, point.step));
        }
    }
    let model = colour_classifier();
    let request = r#"{"model": "test", "objectives": ["logits:0", "logits:1", "logits:2"], "steps": 12}"#;
    let resolved = resolve(&model, request);
    let mut drops = Drops { steps: 0, scores: Vec::new() };
    let outcomes = maximize(&engine(), &model, &resolved.tasks(), &resolved.settings, &mut drops).unwrap();
    assert!(outcomes[1].is_none());
    assert_eq!(drops.scores.iter().filter(|(stimulus, _)| *stimulus == 1).count(), 3, "dropped before its fourth step");
    let undisturbed = run(&model, request);
    assert_eq!(outcomes[0].as_ref(), Some(&undisturbed[0]));
    assert_eq!(outcomes[2].as_ref(), Some(&undisturbed[2]));
}

#[test]
fn a_larger_image_needs_a_network_without_a_fixed_size() {
    let model = colour_classifier();
    let outcome = &run(&model, r#"{"model": "test", "objective": "relu:0", "size": [20, 31], "steps": 2}"#)[0];
    assert_eq!(image::load_from_memory(&outcome.png).unwrap().to_rgb8().dimensions(), (31, 20));
}

#[test]
fn a_plain_classifier_resolves_with_every_default_filled_in() {
    let network = classifier(3, &Activation::Relu);
    let preprocessing = Preprocessing { mean: vec![0.0; 2], std: vec![1.0; 2], ..symmetric() };
    let two_channels = model(network, preprocessing);
    let resolved = resolve(&two_channels, r#"{"model": "test", "objective": "logits:0"}"#);
    let error = maximize(&engine(), &two_channels, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap_err();
    assert_eq!(error.to_string(), "images have 1 or 3 channels, but the model's input has 2");
}
