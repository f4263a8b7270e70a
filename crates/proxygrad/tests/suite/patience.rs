//! Early stopping of a run, as a library user sees it.

use std::collections::BTreeSet;

use image::AnimationDecoder;
use image::codecs::png::PngDecoder;
use proxygrad::maximize::{Callback, GateKind, GateRequest, Halving, Limits, NoCallback, Outcome, Point, Request};
use proxygrad::maximize::{Resolved, maximize};
use proxygrad::network::{Activation, Array, Model, Network, Op};
use serde_json::{Value, json};

use crate::maximize::{colour_classifier, engine, model, symmetric};

/// A plain ascent whose step does not depend on the number of steps, changed by these fields.
fn resolve(model: &Model, fields: &Value) -> Resolved {
    let mut request = json!({"model": "test", "preset": "maximum", "objectives": ["logits:0", "logits:1", "logits:2"],
        "gate": "plain", "optimizer": {"kind": "l2-ascent", "lr": 0.5}, "start": {"kind": "uniform"}, "steps": 200});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value::<Request>(request).unwrap().resolve(model, &Limits::default()).unwrap()
}

fn outcomes(model: &Model, resolved: &Resolved, callback: &mut dyn Callback) -> Vec<Outcome> {
    let outcomes = maximize(&engine(), model, &resolved.tasks(), &resolved.settings, callback).unwrap();
    outcomes.into_iter().map(Option::unwrap).collect()
}

fn run(model: &Model, fields: &Value) -> Vec<Outcome> {
    outcomes(model, &resolve(model, fields), &mut NoCallback)
}

fn with(fields: &Value, more: Value) -> Value {
    let mut fields = fields.clone();
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fields
}

/// relu(x - 0.5) of values near 0: no score, and no plain gradient.
fn sleeping() -> Model {
    let mut network = Network::new(1, 6, 6);
    let shift = Op::Affine { scale: Array::vector(vec![1.0]), shift: Array::vector(vec![-0.5]) };
    let shift = network.push("shift", shift, &[Network::INPUT]).unwrap();
    network.push("relu", Op::Activation(Activation::Relu), &[shift]).unwrap();
    model(network, symmetric())
}

#[test]
fn a_run_that_stops_is_the_run_of_as_many_steps() {
    let model = colour_classifier();
    for fields in [
        json!({}),
        json!({"alpha": true, "regularizers": ["tv:0.1"]}),
        json!({"transforms": ["jitter:1"], "score_every": 3}),
        json!({"parameterization": "fourier", "optimizer": {"kind": "adam", "lr": 0.1}, "start": {"kind": "grey"}}),
    ] {
        let stopped = run(&model, &with(&fields, json!({"patience": 6})));
        let lengths: BTreeSet<u32> = stopped.iter().map(|outcome| outcome.findings.steps).collect();
        assert!(lengths.len() > 1, "nothing was put to the test: {lengths:?}, {fields}");
        for (i, outcome) in stopped.iter().enumerate() {
            let as_long = &run(&model, &with(&fields, json!({"steps": outcome.findings.steps})))[i];
            assert_eq!(outcome, as_long, "stimulus {i}, {fields}");
        }
    }
}

#[test]
fn schedules_keep_their_length_and_the_stop_is_where_the_scores_say() {
    let model = colour_classifier();
    for (fixed, every, fields) in [
        (100, 1, json!({"gate": {"kind": "decoupled", "anneal": 0.5, "polish": 0.25}, "optimizer": "momentum"})),
        (
            0,
            1,
            json!({"gate": {"kind": "soft", "anneal": 0, "polish": 0}, "optimizer": {"kind": "adam", "decay": "cosine"}}),
        ),
        (
            150,
            4,
            json!({"gate": {"kind": "soft", "anneal": 0.75, "polish": 0.25}, "transforms": ["flip"], "score_every": 4}),
        ),
    ] {
        let (whole, mut stops) = (run(&model, &fields), 0);
        for patience in [1, 5, 12] {
            let stopped = run(&model, &with(&fields, json!({"patience": patience})));
            for (whole, stopped) in whole.iter().zip(&stopped) {
                let (whole, found) = (&whole.findings.trajectory, &stopped.findings);
                let best = |until: u32| {
                    let scores = whole.iter().filter(|point| point.step <= until).map(|point| point.score);
                    scores.fold(f32::MIN, f32::max)
                };
                let rises = |step: u32| best(step) - best(step - patience) >= 0.01 * best(step - patience).abs();
                // After the gate has faded.
                let settled = (fixed + patience..200).filter(|step| step % every == 0).find(|&step| !rises(step));
                assert_eq!(
                    found.steps,
                    settled.map_or(200, |step| step + 1),
                    "a step after the score that has settled"
                );
                stops += usize::from(settled.is_some());
                let (last, before) = found.trajectory.split_last().unwrap();
                assert_eq!((last.step, before), (found.steps, &whole[..before.len()]));
                let reached = found.trajectory.iter().map(|point| point.score).fold(f32::MIN, f32::max);
                let best_point = Point { step: found.best_step, score: reached };
                assert!(found.trajectory.contains(&best_point), "{best_point:?} of {:?}", found.trajectory);
                assert!((found.score - reached).abs() < 0.02 * reached.abs(), "{} of {reached}", found.score);
            }
        }
        assert!(stops > 4, "nothing was put to the test: {fields}");
    }
}

#[test]
fn a_stimulus_that_stops_leaves_the_others_of_its_batch_alone() {
    let model = colour_classifier();
    let objectives = json!(["logits:0", "logits:1", "logits:2", "logits:3", "relu:1@max", "relu:5"]);
    let views = json!({"transforms": ["jitter:2", "rotate:10@0.5"], "score_every": 2, "optimizer": "adam"});
    for fields in [
        json!({"alpha": true, "animation": {"frames": 30}, "optimizer": "momentum", "gate": "decoupled"}),
        json!({"optimizer": {"kind": "nadam", "lr": 0.1}, "parameterization": "fourier"}),
        with(&views, json!({"coarse": {"share": 0.1, "scale": 0.5}, "parameterization": "fourier"})),
        with(&views, json!({"search": {"arms": ["plain", "soft"], "restarts": 2, "rungs": [3, 3]}})),
    ] {
        let fields = with(&fields, json!({"objectives": objectives, "patience": 8, "steps": 120}));
        let resolved = resolve(&model, &fields);
        let together = outcomes(&model, &resolved, &mut NoCallback);
        let lengths: BTreeSet<u32> = together.iter().map(|outcome| outcome.findings.steps).collect();
        assert!(lengths.len() > 1, "nothing was put to the test: {lengths:?}, {fields}");
        for (i, task) in resolved.tasks().into_iter().enumerate() {
            let alone = maximize(&engine(), &model, &[task], &resolved.settings, &mut NoCallback).unwrap();
            assert_eq!(alone[0].as_ref(), Some(&together[i]), "stimulus {i}, {fields}");
        }
    }
}

#[test]
fn patience_begins_after_the_coarse_stage() {
    let dead = json!({"objectives": ["relu:0"], "start": {"kind": "grey"}, "steps": 100, "patience": 7});
    let steps = |more: Value| run(&sleeping(), &with(&dead, more))[0].findings.steps;
    assert_eq!(steps(json!({})), 7 + 1, "a score that never changes");
    assert_eq!(steps(json!({"coarse": {"share": 0.4}})), 40 + 7 + 1);
    assert_eq!(
        steps(json!({"coarse": {"share": 0.4, "scale": 0.5}, "transforms": ["flip"], "score_every": 5})),
        50 + 1
    );
    assert_eq!(steps(json!({"coarse": {"share": 0.95}})), 100, "the end comes first");
    assert_eq!(steps(json!({"patience": 4096})), 100);
}

#[test]
fn patience_is_for_the_winner_of_a_search() {
    let model = colour_classifier();
    let search =
        json!({"search": {"arms": ["plain", "decoupled", "redirect"], "rungs": [20, 10]}, "steps": 300, "patience": 4});
    for outcome in run(&model, &search) {
        let found = &outcome.findings;
        let steps: Vec<u32> = found.arms.iter().map(|arm| arm.steps).collect();
        assert_eq!((steps.len(), steps[..2].iter().sum::<u32>()), (3, 20 + 30), "{steps:?}");
        assert!((30 + 4..200).contains(&steps[2]), "after the rungs, and before the end: {steps:?}");
        assert_eq!(steps.iter().sum::<u32>(), found.steps);
        assert_eq!(found.trajectory.last().unwrap().step, found.steps);
        assert_eq!(found.passes, found.arms.iter().map(|arm| arm.passes).sum::<u32>());
    }
}

#[test]
fn a_sleeping_stimulus_is_rescued_before_patience_begins() {
    let fields = json!({"objectives": ["relu:0", "shift:0"], "start": {"kind": "grey"}, "gate": "auto", "steps": 60,
        "optimizer": {"kind": "l2-ascent", "lr": 0.3}, "patience": 9});
    let mut resolved = resolve(&sleeping(), &fields);
    let search = resolved.settings.search.take().unwrap();
    let arms = vec![GateRequest::from(GateKind::Plain).resolve().unwrap()];
    resolved.settings.search = Some(Halving { arms, ..search });
    let found = outcomes(&sleeping(), &resolved, &mut NoCallback);
    let arms: Vec<_> = found[0].findings.arms.iter().map(|arm| (arm.gate.kind, arm.steps)).collect();
    assert_eq!(arms[0], (GateKind::Plain, 30), "no score for 30 steps");
    assert!(arms[1].0 == GateKind::Redirect && (9..30).contains(&arms[1].1), "{arms:?}");
    assert!(found[0].findings.score > 0.1);
    assert!((30 + 9..60).contains(&found[1].findings.steps), "half of the steps for a rescue that it did not need");
}

#[test]
fn a_diverse_group_stops_together() {
    let model = colour_classifier();
    let fields = json!({"diversity": {"layer": "relu", "copies": 3, "weight": 0.2}, "patience": 6});
    let together = run(&model, &fields);
    let steps: Vec<u32> = together.iter().map(|outcome| outcome.findings.steps).collect();
    let groups: Vec<&[u32]> = steps.chunks(3).collect();
    assert!(groups.iter().all(|group| group.iter().all(|steps| *steps == group[0])), "{steps:?}");
    assert!(groups[0][0] != groups[1][0] && steps.iter().all(|&steps| steps < 200), "{steps:?}");
    let own = |more: Value| run(&model, &with(&fields, more));
    let separately: Vec<u32> = own(json!({"diversity": null, "objectives": ["logits:0", "logits:0", "logits:0"]}))
        .iter()
        .map(|outcome| outcome.findings.steps)
        .collect();
    assert!(separately.iter().any(|steps| *steps != separately[0]), "alone they would not: {separately:?}");
    let resolved = resolve(&model, &fields);
    for (group, tasks) in resolved.tasks().chunks(3).enumerate() {
        let alone = maximize(&engine(), &model, tasks, &resolved.settings, &mut NoCallback).unwrap();
        let alone: Vec<Outcome> = alone.into_iter().map(Option::unwrap).collect();
        assert_eq!(alone, together[3 * group..][..3]);
    }
}

#[test]
fn a_callback_hears_of_every_step_and_of_the_end() {
    #[derive(Default)]
    struct Told {
        steps: [u32; 3],
        asked_after_the_end: bool,
        ended: Vec<usize>,
        last_score: [u32; 3],
    }
    impl Callback for Told {
        fn should_stop(&mut self, stimulus: usize) -> bool {
            self.asked_after_the_end |= self.ended.contains(&stimulus);
            stimulus == 1 && self.steps[1] == 3
        }
        fn on_step(&mut self, stimulus: usize, steps: u32) {
            self.steps[stimulus] += 1;
            assert_eq!(self.steps[stimulus], steps);
        }
        fn on_score(&mut self, stimulus: usize, point: Point) {
            self.last_score[stimulus] = point.step;
        }
        fn on_end(&mut self, stimulus: usize) {
            self.ended.push(stimulus);
        }
    }
    let model = colour_classifier();
    let resolved = resolve(&model, &json!({"patience": 6}));
    let mut told = Told::default();
    let found = maximize(&engine(), &model, &resolved.tasks(), &resolved.settings, &mut told).unwrap();
    let steps = |stimulus: usize| found[stimulus].as_ref().unwrap().findings.steps;
    assert_eq!(told.steps, [steps(0), 3, steps(2)]);
    assert_eq!(told.last_score, [steps(0), 2, steps(2)], "the last image is scored, unless it was cancelled");
    let order = if steps(0) < steps(2) { [0, 2] } else { [2, 0] };
    assert_eq!((told.ended, told.asked_after_the_end), (order.to_vec(), false));
}

#[test]
fn an_animation_ends_with_the_stimulus() {
    let model = colour_classifier();
    let fields = json!({"animation": {"frames": 101}, "patience": 6});
    let outcome = &run(&model, &fields)[0];
    let animation = PngDecoder::new(std::io::Cursor::new(outcome.animation.as_ref().unwrap())).unwrap();
    let frames = animation.apng().unwrap().into_frames().collect_frames().unwrap();
    // Every second of the 200 steps from 0, as far as they were made, and the stimulus.
    assert_eq!(frames.len() as u32, outcome.findings.steps.div_ceil(2) + 1);
    let stimulus = image::load_from_memory(&outcome.png).unwrap().to_rgba8();
    assert_eq!(frames.last().unwrap().buffer(), &stimulus);
}

#[test]
fn patience_is_a_number_of_steps() {
    let model = colour_classifier();
    let limits = Limits { steps: 50, ..Limits::default() };
    for patience in [0, 51] {
        let request = json!({"model": "test", "objective": "logits:0", "patience": patience});
        let error = serde_json::from_value::<Request>(request).unwrap().resolve(&model, &limits).unwrap_err();
        assert_eq!((error.field.as_str(), error.expected.as_str()), ("patience", "a whole number from 1 to 50"));
        assert_eq!(error.value, patience.to_string());
    }
    for wrong in [json!(-1), json!(2.5), json!("8")] {
        let request = json!({"model": "test", "objective": "logits:0", "patience": wrong});
        assert!(serde_json::from_value::<Request>(request).is_err(), "{wrong}");
    }
    assert_eq!(resolve(&model, &json!({})).settings.patience, None);
    assert_eq!(resolve(&model, &json!({"patience": 4096})).settings.patience, Some(4096));
}
