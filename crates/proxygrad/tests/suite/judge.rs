//! Judges, as a library user sees them.

use std::io::Cursor;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use image::imageops::replace;
use image::{GrayImage, ImageFormat, Luma};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Reference, Target};
use proxygrad::judge::{JudgeError, Panel, Stimulus, Verdict, class_of};
use proxygrad::network::calibration::Patch;
use proxygrad::network::{Model, Unit};
use proxygrad::{Maximizer, Objective};

use crate::calibration_fixture::calibrated;

fn engine() -> Cpu {
    Cpu::new(&CpuSettings::default()).unwrap()
}

fn verdicts(judge: Model, model: &Model, unit: &str, png: &[u8]) -> Verdict {
    let mut panel = Panel::new(vec![Arc::new(judge)]).unwrap();
    let unit: Unit = unit.parse().unwrap();
    let stimulus = Stimulus { model, unit: &unit, png };
    let mut found = panel.verdicts(&engine(), &[stimulus], u64::MAX, &mut || false).unwrap().unwrap();
    found.remove(0).remove(0)
}

/// The same network as somebody else's, so that it may judge the classes of its twin.
fn twin(model: &Model) -> Model {
    Model { id: "twin".into(), digest: "of the twin".into(), ..model.clone() }
}

/// Logits of an engine in f64 for a PNG of the network's size.
fn logits(model: &Model, png: &[u8]) -> Vec<f64> {
    let (scale, shift) = model.preprocessing.affine()[0];
    let levels = image::load_from_memory(png).unwrap().to_luma8().into_raw();
    let input: Vec<f64> = levels.into_iter().map(|v| f64::from(v) / 255.0 * scale + shift).collect();
    let input = Tensor::from_vec(input, (1, 1, 28, 28), &Device::Cpu).unwrap();
    let target = Target::whole(&[model.network.logits().unwrap()]);
    let reference = Reference::new(Device::Cpu, DType::F64);
    let mut plan = reference.plan(&model.network, &target, model.network.input_shape()).unwrap();
    plan.forward(&input, Forward::Original).unwrap()[0].flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_verdict_is_the_rank_and_the_softmax_of_the_matching_class() {
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &["layer3/Relu"], 1);
    let reversed = Model { classes: model.classes.iter().rev().cloned().collect(), ..twin(&model) };
    let unnamed = Model { classes: Vec::new(), ..twin(&model) };
    for image in 0..3 {
        let png = model.calibration.as_ref().unwrap().image(image).unwrap();
        let logits = logits(&model, &png);
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        for class in [0, 3, 9] {
            let unit = format!("logits:{class}");
            // By name, the reversed classes of the judge are matched; by index, nameless ones.
            for (judge, index) in [(&reversed, 9 - class), (&unnamed, class), (&twin(&model), class)] {
                let found = verdicts(judge.clone(), &model, &unit, &png);
                let rank = 1 + logits.iter().filter(|&&logit| logit > logits[index]).count();
                assert_eq!((found.rank, found.passes), (Some(rank as u32), 1), "{unit} of image {image}");
                let expected = logits[index].exp() / total;
                assert!((f64::from(found.probability.unwrap()) - expected).abs() < 1e-4, "{found:?}, {expected}");
                assert_eq!(found.affinity, None, "the layer of the logits is not calibrated");
            }
        }
    }
}

#[test]
fn a_network_does_not_judge_its_own_classes() {
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &["layer3/Relu"], 1);
    let png = model.calibration.as_ref().unwrap().image(0).unwrap();
    let found = verdicts((*model).clone(), &model, "logits:1", &png);
    assert_eq!((found.rank, found.probability, found.passes), (None, None, 0));
}

#[test]
fn a_judge_must_know_the_class() {
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &["layer3/Relu"], 1);
    let judge = |change: &dyn Fn(&mut Vec<String>)| {
        let mut judge = twin(&model);
        change(&mut judge.classes);
        class_of(&model, &"logits:1".parse().unwrap(), &judge)
    };
    assert_eq!(judge(&|_| {}), Ok(Some(1)));
    let unknown = judge(&|classes| classes[1] = "Zebra".into()).unwrap_err();
    assert!(unknown.field == "judges" && unknown.expected.contains(&model.classes[1]), "{unknown}");
    let twice = judge(&|classes| classes[2] = classes[1].clone()).unwrap_err();
    assert!(twice.expected.contains("one class called"), "{twice}");
    // A unit that is no class has none.
    assert_eq!(class_of(&model, &"layer3/Relu:1".parse().unwrap(), &twin(&model)), Ok(None));

    let mut network = proxygrad::Network::new(1, 28, 28);
    let op = proxygrad::network::Op::Activation(proxygrad::network::Activation::Relu);
    let map = network.push("map", op, &[proxygrad::Network::INPUT]).unwrap();
    network.set_outputs(vec![map]);
    let no_classifier = Model { network: Arc::new(network), classes: Vec::new(), ..twin(&model) };
    let refusal = Panel::new(vec![Arc::new(no_classifier)]).unwrap_err();
    assert!(refusal.field == "judges[0]" && refusal.expected.contains("classifier"), "{refusal}");
    let same = Panel::new(vec![Arc::clone(&model), Arc::clone(&model)]).unwrap_err();
    assert_eq!(same.field, "judges[1]");
}

#[test]
fn a_natural_patch_at_the_centre_is_most_like_itself() {
    const LAYER: &str = "layer2/Relu";
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &[LAYER], 1);
    let calibration = model.calibration.as_deref().unwrap();
    let centre = Patch::centre(&model.network, LAYER);
    assert!(centre.rows.len() < 28 && centre.columns.len() < 28, "{centre:?}");
    let mut judged = 0;
    for (channel, record) in calibration.layers[LAYER].units.iter().enumerate() {
        let top = &record.top[0];
        let patch = calibration.patch(&model.network, LAYER, top);
        // A patch at the border is smaller.
        if [patch.rows.len(), patch.columns.len()] != [centre.rows.len(), centre.columns.len()] {
            continue;
        }
        let natural = image::load_from_memory(&calibration.image(top.image).unwrap()).unwrap();
        let stimulus = |background: u8, at: &Patch| {
            let mut stimulus = GrayImage::from_pixel(28, 28, Luma([background]));
            replace(&mut stimulus, &patch.of(&natural).to_luma8(), at.columns.start as i64, at.rows.start as i64);
            let mut png = Cursor::new(Vec::new());
            stimulus.write_to(&mut png, ImageFormat::Png).unwrap();
            png.into_inner()
        };
        let unit = format!("{LAYER}:{channel}@center");
        let own = verdicts(twin(&model), &model, &unit, &stimulus(0, &centre));
        let Some(affinity) = own.affinity else { continue };
        assert_eq!((affinity, own.rank, own.passes), (1.0, None, 1), "what surrounds the patch is not seen");
        assert_eq!(verdicts(twin(&model), &model, &unit, &stimulus(255, &centre)), own);
        let corner = Patch { rows: 0..1, columns: 0..1 };
        let elsewhere = verdicts(twin(&model), &model, &unit, &stimulus(0, &corner));
        assert_ne!(elsewhere, own, "the patch is not at the centre");
        judged += 1;
    }
    assert!(judged > 1, "{judged}");
}

#[test]
fn a_panel_says_the_same_however_it_is_asked() {
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &["layer2/Relu", "layer3/Relu"], 2);
    let pngs: Vec<Vec<u8>> = (0..3).map(|i| model.calibration.as_ref().unwrap().image(i).unwrap()).collect();
    let units: Vec<Unit> = ["layer3/Relu:2", "layer2/Relu:2@center", "logits:4", "layer3/Relu:9", "layer3/Relu:2"]
        .map(|unit| unit.parse().unwrap())
        .into();
    let stimuli: Vec<Stimulus<'_>> =
        units.iter().zip(pngs.iter().cycle()).map(|(unit, png)| Stimulus { model: &model, unit, png }).collect();
    let panel = || Panel::new(vec![Arc::new(twin(&model)), Arc::clone(&model)]).unwrap();
    let engine = engine();
    let together = panel().verdicts(&engine, &stimuli, u64::MAX, &mut || false).unwrap().unwrap();
    let mut one = panel();
    for (stimulus, together) in stimuli.iter().zip(&together) {
        let alone = one.verdicts(&engine, &[*stimulus], u64::MAX, &mut || false).unwrap().unwrap().remove(0);
        assert_eq!(&alone, together);
        let fresh = panel().verdicts(&engine, &[*stimulus], u64::MAX, &mut || false).unwrap().unwrap().remove(0);
        assert_eq!(&fresh, together);
    }
    let names: Vec<&str> = together[0].iter().map(|verdict| verdict.judge.as_str()).collect();
    assert_eq!(names, ["twin", "fashion-resnet8"]);

    // It stops when asked to, and does not begin what does not fit.
    let mut asked = 0;
    let mut stop = || {
        asked += 1;
        asked > 5
    };
    assert_eq!(panel().verdicts(&engine, &stimuli, u64::MAX, &mut stop).unwrap(), None);
    let small = panel().verdicts(&engine, &stimuli, 1000, &mut || false).unwrap_err();
    assert!(matches!(small, JudgeError::Memory { allowed: 1000, .. }), "{small}");
}

#[test]
fn one_run_may_have_judges_too() {
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &["layer2/Relu"], 1);
    let judges = [Arc::new(twin(&model))];
    let engine = engine();
    let run =
        |objective: &str| Maximizer::new(&model).engine(&engine).objective(objective).steps(3).judges(&judges).run();
    let outcome = run("logits:Bag").unwrap();
    let diagnostics = outcome.findings.diagnostics.unwrap();
    let expected = verdicts(twin(&model), &model, "logits:8", &outcome.png);
    assert_eq!((diagnostics.judges, diagnostics.passes), (vec![expected.clone()], 165));
    assert!(expected.rank.is_some() && diagnostics.spectral_excess.is_some());
    let hidden = run("layer2/Relu:3").unwrap().findings.diagnostics.unwrap();
    assert_eq!((hidden.judges[0].rank, hidden.judges[0].passes), (None, 1));

    for (objective, says) in
        [("layer1/Relu:3", "neither a class nor in a calibrated layer"), ("logits:1 + logits:2", "not a single unit")]
    {
        let sum: Objective = match objective.split_once(" + ") {
            None => objective.parse().unwrap(),
            Some((a, b)) => serde_json::from_value(serde_json::json!({"sum": [a, b]})).unwrap(),
        };
        let error = Maximizer::new(&model).objective(sum).judges(&judges).run().unwrap_err().to_string();
        assert!(error.contains("diagnostics.judges[0]") && error.contains(says), "{error}");
    }
    let own = [Arc::clone(&model)];
    let error = Maximizer::new(&model).objective("logits:1").judges(&own).run().unwrap_err().to_string();
    assert!(error.contains("another model"), "{error}");
    let asked = serde_json::json!({"judges": ["twin"]});
    let forgotten = Maximizer::new(&model).objective("logits:1").configure(|request| {
        request.diagnostics = Some(serde_json::from_value(asked).unwrap());
    });
    let error = forgotten.run().unwrap_err().to_string();
    assert!(error.contains("[twin]"), "{error}");
}
