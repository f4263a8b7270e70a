//! Several gates and starts that compete for the steps of one run.

use proxygrad::maximize::{Callback, GateKind, GateRequest, Halving, Limits, NoCallback, Request, maximize};
use proxygrad::network::{Activation, Array, Network, Op};

use crate::maximize::{colour_classifier, engine, model, resolve, run, symmetric, toy};

/// A search on a model's `objectives` (JSON) with these further fields.
fn request(objectives: &str, more: &str) -> String {
    format!(r#"{{"model": "test", "objectives": {objectives}, {more}}}"#)
}

#[test]
fn the_better_gate_wins_and_every_step_is_accounted_for() {
    let search = r#""start": {"kind": "uniform"}, "steps": 60, "optimizer": {"kind": "l2-ascent", "lr": 1.0},
                    "search": {"arms": ["plain", {"kind": "decoupled", "slope": 0.3, "anneal": 0}, "redirect"], "rungs": [8, 4]}"#;
    for outcome in run(&toy(), &request(r#"["relu:0", "relu:0"]"#, search)) {
        let found = &outcome.findings;
        assert!(found.score > 0.99, "{}", found.score);
        let arms: Vec<_> = found.arms.iter().map(|arm| (arm.gate.kind, arm.steps, arm.won)).collect();
        let winner = arms.last().unwrap();
        // Three candidates for 8 steps, two for 4 more, and one for the 28 that are left.
        assert_eq!(*winner, (GateKind::Decoupled, 40, true), "{arms:?}");
        let mut losers: Vec<u32> = arms[..2].iter().map(|(_, steps, _)| *steps).collect();
        losers.sort_unstable();
        assert_eq!(losers, [8, 12], "{arms:?}");
        assert_eq!(found.passes, found.arms.iter().map(|arm| arm.passes).sum::<u32>());
        assert_eq!(found.passes, 2 * 60 + 2, "all candidates together take what one run takes");
        assert_eq!(found.trajectory.last().unwrap().step, 60, "steps count on over all candidates");
        let in_order = |points: &[proxygrad::maximize::Point]| points.windows(2).all(|p| p[0].step < p[1].step);
        assert!(in_order(&found.trajectory));
    }
}

#[test]
fn every_stimulus_has_its_own_winner_whatever_its_batch() {
    let search = r#""steps": 40, "gate": "auto", "search": {"arms": ["redirect", "soft", "identity"], "restarts": 2, "rungs": [2, 2, 2]}, "transforms": ["jitter:2"], "score_every": 4"#;
    let model = colour_classifier();
    let objectives = r#"["logits:0", "logits:1", "logits:2", "logits:3", "relu:1@max", "relu:5"]"#;
    let resolved = resolve(&model, &request(objectives, search));
    let together = maximize(&engine(), &model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
    for (i, task) in resolved.tasks().into_iter().enumerate() {
        let alone = maximize(&engine(), &model, &[task], &resolved.settings, &mut NoCallback).unwrap();
        assert_eq!(alone[0], together[i], "stimulus {i}");
    }
    let winners = together.iter().flatten().map(|outcome| {
        let winner = outcome.findings.arms.last().unwrap();
        (serde_json::to_string(&winner.gate).unwrap(), winner.restart)
    });
    let distinct: std::collections::BTreeSet<_> = winners.collect();
    assert!(distinct.len() > 1, "all stimuli have the same winner, so that nothing was put to the test");
}

#[test]
fn every_step_is_reported_once_over_all_candidates_of_a_stimulus() {
    struct Steps([Vec<u32>; 2]);
    impl Callback for Steps {
        fn on_step(&mut self, stimulus: usize, steps: u32) {
            self.0[stimulus].push(steps);
        }
    }
    let search = r#""steps": 40, "search": {"arms": ["plain", "soft", "redirect"], "restarts": 2, "rungs": [2, 2]}"#;
    let model = colour_classifier();
    for more in [r#""steps": 7"#, search] {
        let resolved = resolve(&model, &request(r#"["logits:0", "logits:1"]"#, more));
        let mut reported = Steps(Default::default());
        maximize(&engine(), &model, &resolved.tasks(), &resolved.settings, &mut reported).unwrap();
        for steps in reported.0 {
            assert_eq!(steps, (1..=resolved.settings.steps).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_search_without_rivals_is_the_run_itself() {
    let model = colour_classifier();
    let gate = r#""gate": {"kind": "decoupled", "slope": 0.2}, "steps": 12"#;
    let alone = &run(&model, &request(r#"["logits:1"]"#, gate))[0];
    let searched = &run(&model, &request(r#"["logits:1"]"#, &format!(r#"{gate}, "search": {{}}"#)))[0];
    assert_eq!(alone.png, searched.png);
    assert_eq!(alone.findings.trajectory, searched.findings.trajectory);
    assert_eq!(alone.findings.passes, searched.findings.passes);
}

#[test]
fn another_start_can_win() {
    let model = colour_classifier();
    let alone = r#""gate": "plain", "steps": 16, "start": {"kind": "uniform"}"#;
    let several =
        r#""gate": "plain", "steps": 56, "start": {"kind": "uniform"}, "search": {"restarts": 6, "rungs": [8]}"#;
    let objectives = r#"["logits:0", "logits:1", "logits:2", "logits:3"]"#;
    let (alone, several) = (run(&model, &request(objectives, alone)), run(&model, &request(objectives, several)));
    assert!(several.iter().any(|outcome| outcome.findings.arms.last().unwrap().restart > 0));
    for (alone, several) in alone.iter().zip(&several) {
        let (alone, several) = (alone.findings.score, several.findings.score);
        assert!(several >= alone - 0.02 * alone.abs(), "the best of six starts, {several}, is worse than one, {alone}");
    }
}

/// What `auto` falls back to, behind a gate that wakes only one of two stimuli.
#[test]
fn a_stimulus_that_sleeps_half_of_its_run_begins_anew_with_the_rescue() {
    // relu(x - 0.5) of values near 0: no plain gradient.
    let mut network = Network::new(1, 6, 6);
    let shift = Op::Affine { scale: Array::vector(vec![1.0]), shift: Array::vector(vec![-0.5]) };
    let shift = network.push("shift", shift, &[Network::INPUT]).unwrap();
    network.push("relu", Op::Activation(Activation::Relu), &[shift]).unwrap();
    let model = model(network, symmetric());
    for transforms in ["[]", r#"["flip"]"#] {
        let optimizer = r#"{"kind": "l2-ascent", "lr": 1.0}"#;
        let more = format!(r#""gate": "auto", "steps": 40, "optimizer": {optimizer}, "transforms": {transforms}"#);
        let resolved = resolve(&model, &request(r#"["relu:0", "shift:0", "relu:0@center"]"#, &more));
        let search = resolved.settings.search.clone().unwrap();
        assert_eq!(search.rescue.as_ref().map(|gate| gate.kind), Some(GateKind::Redirect), "of auto");
        let mut settings = resolved.settings.clone();
        settings.search = Some(Halving { arms: vec![GateRequest::from(GateKind::Plain).resolve().unwrap()], ..search });
        let together = maximize(&engine(), &model, &resolved.tasks(), &settings, &mut NoCallback).unwrap();
        for (i, expected) in [true, false, true].into_iter().enumerate() {
            let found = &together[i].as_ref().unwrap().findings;
            let arms: Vec<_> = found.arms.iter().map(|arm| (arm.gate.kind, arm.steps, arm.won)).collect();
            let (plain, rescue) = (GateKind::Plain, GateKind::Redirect);
            let rescued = [(plain, 20, false), (rescue, 20, true)];
            assert_eq!(arms, if expected { rescued.to_vec() } else { vec![(plain, 40, true)] }, "stimulus {i}");
            assert!(found.score > found.initial_score + 0.1, "{i}: {}", found.score);
            assert_eq!(found.passes, found.arms.iter().map(|arm| arm.passes).sum::<u32>());
            let steps: Vec<u32> = found.trajectory.iter().map(|point| point.step).collect();
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]) && steps.last() == Some(&40), "{steps:?}");
            let alone = maximize(&engine(), &model, &resolved.tasks()[i..=i], &settings, &mut NoCallback).unwrap();
            assert_eq!(alone[0], together[i], "stimulus {i}");
        }
    }
}

#[test]
fn searches_that_cannot_be_are_refused_by_name() {
    let model = colour_classifier();
    for (search, field) in [
        (r#""search": {"restarts": 0}"#, "search.restarts"),
        (r#""search": {"restarts": 17}"#, "search.restarts"),
        (r#""search": {"arms": []}"#, "search.arms"),
        (r#""search": {"arms": ["plain", "auto"]}"#, "search.arms[1]"),
        (r#""search": {"arms": ["plain", {"kind": "decoupled", "slope": 2}]}"#, "search.arms[1].slope"),
        (r#""search": {"restarts": 3, "rungs": []}"#, "search.rungs"),
        (r#""search": {"restarts": 2, "rungs": [0]}"#, "search.rungs"),
        (r#""search": {"restarts": 2, "rungs": [10]}, "steps": 20"#, "search.rungs"),
    ] {
        let request: Request = serde_json::from_str(&request(r#"["logits:0"]"#, search)).unwrap();
        let invalid = request.resolve(&model, &Limits::default()).unwrap_err();
        assert_eq!(invalid.field, field, "{search}: {invalid}");
    }
}
