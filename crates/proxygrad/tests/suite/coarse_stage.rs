//! The coarse stage of a run, as a library user sees it.

use proxygrad::maximize::{GateKind, Limits, MemoryEstimate, NoCallback, Outcome, Preset, Request, Resolved, maximize};
use proxygrad::network::Model;
use serde_json::{Value, json};

use crate::maximize::{colour_classifier, engine};

fn request(fields: &Value) -> Request {
    let mut request = json!({"model": "test", "preset": "maximum", "objective": "logits:2", "steps": 12,
        "optimizer": {"kind": "l2-ascent", "lr": 0.5}});
    let request = request.as_object_mut().unwrap();
    request.extend(fields.as_object().unwrap().clone());
    if request.contains_key("objectives") {
        request.remove("objective");
    }
    serde_json::from_value(Value::Object(request.clone())).unwrap()
}

fn resolve(model: &Model, fields: &Value) -> Resolved {
    request(fields).resolve(model, &Limits::default()).unwrap()
}

fn run(model: &Model, fields: &Value) -> Vec<Outcome> {
    let resolved = resolve(model, fields);
    let outcomes = maximize(&engine(), model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
    outcomes.into_iter().map(Option::unwrap).collect()
}

#[test]
fn stages_with_equal_settings_are_one_run() {
    let model = colour_classifier();
    let whole = &run(&model, &json!({}))[0];
    for coarse in [json!({"share": 0}), json!({"share": 0.5}), json!({"share": 0.9, "scale": 1})] {
        let staged = &run(&model, &json!({"coarse": coarse}))[0];
        assert_eq!(staged.png, whole.png, "{coarse}");
        assert_eq!(staged.findings, whole.findings, "{coarse}");
    }
    let other = &run(&model, &json!({"coarse": {"share": 0.5, "lr": 0.1}}))[0];
    assert_ne!(other.png, whole.png, "another step size of the first half changes the image");
}

#[test]
fn stimuli_frames_and_scores_of_a_smaller_stage_are_those_of_the_full_size() {
    let model = colour_classifier();
    let coarse = json!({"share": 0.5, "scale": 0.5, "transforms": ["crop:0.5,1"], "regularizers": ["tv:0.1"]});
    for parameterization in ["pixel", "fourier", "maco"] {
        let fields = json!({"parameterization": parameterization, "coarse": coarse, "alpha": true,
            "animation": {"frames": 4}, "score_every": 2,
            "start": {"kind": "uniform"}});
        let outcome = &run(&model, &fields)[0];
        let image = image::load_from_memory(&outcome.png).unwrap();
        assert_eq!((image.width(), image.height()), (10, 12), "{parameterization}");
        let frames = outcome.animation.as_ref().unwrap();
        assert_eq!(image::load_from_memory(frames).unwrap().width(), 10);
        let steps: Vec<u32> = outcome.findings.trajectory.iter().map(|point| point.step).collect();
        assert_eq!(steps, [0, 2, 4, 6, 7, 8, 9, 10, 11, 12], "the last steps see the images themselves");
        let first = outcome.findings.trajectory[0];
        assert!(outcome.findings.score > first.score, "{parameterization}: {:?}", outcome.findings);
    }
}

#[test]
fn a_stimulus_of_two_stages_does_not_depend_on_its_batch() {
    let model = colour_classifier();
    let coarse = json!({"share": 0.6, "scale": 0.5, "transforms": ["jitter:1"]});
    let fields = |objectives: Value| {
        json!({"parameterization": "fourier", "optimizer": "adam", "objectives": objectives, "coarse": coarse,
            "transforms": ["jitter:2"], "search": {"arms": ["plain", "decoupled"], "rungs": [3]}})
    };
    let together = run(&model, &fields(json!(["logits:1", "relu:3@max", "logits:2"])));
    let resolved = resolve(&model, &fields(json!(["logits:1", "relu:3@max", "logits:2"])));
    for (task, together) in resolved.tasks().into_iter().zip(&together) {
        let alone = maximize(&engine(), &model, &[task], &resolved.settings, &mut NoCallback).unwrap();
        assert_eq!(alone[0].as_ref().unwrap().png, together.png);
        assert_eq!(alone[0].as_ref().unwrap().findings, together.findings);
    }
}

#[test]
fn what_depends_on_the_size_has_a_coarse_stage_of_full_size() {
    let model = colour_classifier();
    let stage = |fields: Value| {
        let mut all = json!({"preset": "readable", "size": [224, 320]});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut request = request(&all);
        request.optimizer = None;
        request.resolve(&model, &Limits::default()).unwrap().settings
    };
    let size = |fields| stage(fields).coarse.map(|coarse| coarse.size);
    assert_eq!(size(json!({})), Some([160, 229]));
    assert_eq!(size(json!({"objective": "relu:1@center"})), Some([160, 229]));
    assert_eq!(size(json!({"objective": "relu:1@3,4"})), Some([224, 320]), "a position of the map");
    assert_eq!(size(json!({"size": [100, 100]})), Some([100, 100]), "too small already");
    assert_eq!(size(json!({"size": [224, 90]})), None, "too small for any");
    assert_eq!(size(json!({"coarse": {"share": 0}})), None);
    for own in [json!({"transforms": []}), json!({"regularizers": ["tv:1"]}), json!({"parameterization": "pixel"})] {
        assert_eq!(size(own.clone()), None, "{own}");
    }
    // Without a coarse stage the preset's step size is that of the whole run.
    let lr = |fields| stage(fields).optimizer.lr;
    assert_eq!([lr(json!({})), lr(json!({"transforms": []})), lr(json!({"coarse": {"share": 0}}))], [0.02, 0.05, 0.05]);
    assert_eq!(stage(json!({})).coarse.unwrap().lr, 0.03);
}

#[test]
fn wrong_coarse_stages_are_rejected_by_field() {
    let model = colour_classifier();
    let many = json!(vec!["flip"; 17]);
    for (coarse, more, field) in [
        (json!({"share": 1}), json!({}), "coarse.share"),
        (json!({"share": -0.1}), json!({}), "coarse.share"),
        (json!({"scale": 0.1}), json!({}), "coarse.scale"),
        (json!({"scale": 1.5}), json!({}), "coarse.scale"),
        (json!({"lr": 0}), json!({}), "coarse.lr"),
        (json!({"transforms": many}), json!({}), "coarse.transforms"),
        (json!({"regularizers": ["blur:1,1"]}), json!({"parameterization": "fourier"}), "coarse.regularizers[0]"),
        (json!({"scale": 0.5}), json!({"objective": "relu:1@3,4"}), "coarse.scale"),
    ] {
        let mut fields = more.clone();
        fields["coarse"] = coarse.clone();
        let error = request(&fields).resolve(&model, &Limits::default()).unwrap_err();
        assert_eq!(error.field, field, "{coarse}: {error}");
    }
    let unknown = serde_json::from_value::<Request>(json!({"model": "test", "coarse": {"size": [3, 3]}}));
    assert!(unknown.unwrap_err().to_string().contains("size"));
}

#[test]
fn the_memory_of_both_stages_is_counted() {
    let model = colour_classifier();
    let bytes = |fields: Value| {
        let resolved = resolve(&model, &fields);
        let memory = proxygrad::engine::Engine::memory_model(&engine());
        MemoryEstimate::new(&memory, &model, &resolved.tasks(), &resolved.settings).unwrap().bytes()
    };
    let size = json!([200, 200]);
    let whole = bytes(json!({"size": size}));
    let staged = bytes(json!({"size": size, "coarse": {"scale": 0.5}}));
    let small = bytes(json!({"size": [100, 100]}));
    assert!(whole < staged && staged < whole + small, "{whole} {staged} {small}");
    assert_eq!(bytes(json!({"size": size, "coarse": {"scale": 1}})), whole);
}

#[test]
fn only_readable_presets_have_a_coarse_stage() {
    let model = colour_classifier();
    for preset in Preset::ALL {
        let request: Request = serde_json::from_value(
            json!({"model": "test", "objective": "logits:0", "preset": preset, "size": [224, 224]}),
        )
        .unwrap();
        let settings = request.resolve(&model, &Limits::default()).unwrap().settings;
        let expected = matches!(preset, Preset::Readable | Preset::Fast);
        assert_eq!(settings.coarse.is_some(), expected, "{preset:?}");
        assert!(settings.coarse.is_none_or(|coarse| coarse.size == [160, 160] && !coarse.transforms.is_empty()));
    }
}

#[test]
fn with_a_coarse_stage_auto_is_one_gate_that_does_not_fade() {
    let model = colour_classifier();
    let arms = |more: Value| {
        let mut all = json!({"model": "test", "objective": "logits:0", "preset": "readable", "size": [224, 224]});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request: Request = serde_json::from_value(all).unwrap();
        let search = request.resolve(&model, &Limits::default()).unwrap().settings.search.unwrap();
        assert!(search.rescue.is_some());
        search.arms.iter().map(|gate| (gate.kind, gate.anneal, gate.polish)).collect::<Vec<_>>()
    };
    let soft = |anneal| (GateKind::Soft, anneal, 0.2);
    assert_eq!(arms(json!({})), [soft(0.0)]);
    assert_eq!(arms(json!({"steps": 512})), [soft(0.0)]);
    assert_eq!(arms(json!({"coarse": {"share": 0}})), [soft(0.8)]);
    assert_eq!(arms(json!({"coarse": {"share": 0}, "steps": 512}))[0], soft(0.8));
    assert_eq!(arms(json!({"coarse": {"share": 0}, "steps": 512})).len(), 2);
}
