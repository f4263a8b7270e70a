//! Calibration with natural images.

use candle_core::{DType, Device, Tensor};
use proxygrad::calibrate::{Options, calibrate, images_in};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Reference, Target};
use proxygrad::maximize::{Limits, NaturalMissing, NoCallback, Request, maximize};
use proxygrad::network::calibration::{Calibration, cut};
use proxygrad::network::catalog::{Models, ModelsConfig};

use crate::calibration_fixture::{calibrated, pictures};

const MODEL: &str = "fashion-resnet8";

fn engine() -> Cpu {
    Cpu::new(&CpuSettings::default()).unwrap()
}

#[test]
fn a_calibration_holds_the_scores_of_its_images() {
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &["logits", "layer1/Relu_1"], 3);
    let calibration = model.calibration.as_deref().unwrap();
    assert_eq!(calibration.layers.keys().collect::<Vec<_>>(), ["layer1/Relu_1", "logits"]);
    // The kept images are shown to another engine.
    let network = &model.network;
    let targets = ["layer1/Relu_1", "logits"].map(|layer| network.find(layer).unwrap());
    let mut plan =
        Reference::new(Device::Cpu, DType::F64).plan(network, &Target::whole(&targets), network.input_shape()).unwrap();
    let kept = data.path().join("models").join(MODEL).join(Calibration::FOLDER);
    let (scale, shift) = model.preprocessing.affine()[0];
    let mut outputs = Vec::new();
    for i in 0..calibration.kept.len() {
        let png = image::open(kept.join(Calibration::image_file(i))).unwrap().to_luma8();
        assert_eq!(png.dimensions(), (28, 28));
        let input: Vec<f64> = png.into_raw().into_iter().map(|v| f64::from(v) / 255.0 * scale + shift).collect();
        let input = Tensor::from_vec(input, (1, 1, 28, 28), &Device::Cpu).unwrap();
        let values = plan.forward(&input, Forward::Original).unwrap();
        outputs.push(values.iter().map(|o| o.flatten_all().unwrap().to_vec1::<f64>().unwrap()).collect::<Vec<_>>());
    }
    for (l, layer) in ["layer1/Relu_1", "logits"].into_iter().enumerate() {
        let record = &calibration.layers[layer];
        let positions = outputs[0][l].len() / record.units.len();
        for (u, unit) in record.units.iter().enumerate() {
            assert_eq!(unit.top.len(), 3);
            assert!(unit.top.is_sorted_by(|a, b| a.score >= b.score));
            let map = |image: usize| &outputs[image][l][u * positions..][..positions];
            for top in &unit.top {
                let value = map(top.image)[top.position_index];
                assert!(
                    (f64::from(top.score) - value).abs() < 1e-3 * value.abs().max(1e-2),
                    "{layer}:{u}: {top:?} {value}"
                );
                let largest = map(top.image).iter().copied().fold(f64::MIN, f64::max);
                assert!((largest - value).abs() < 1e-4 * value.abs().max(1e-2));
            }
            assert_eq!(unit.max.max, unit.top[0].score, "{layer}:{u}");
            // All images are kept here, unless none of their units needs them.
            if calibration.kept.len() == calibration.images {
                let means = (0..calibration.images).map(|i| map(i).iter().sum::<f64>() / positions as f64);
                let largest = means.fold(f64::MIN, f64::max);
                assert!((f64::from(unit.mean.max) - largest).abs() < 1e-3 * largest.abs().max(1e-2), "{layer}:{u}");
            }
        }
    }
    let unit = &calibration.layers["layer1/Relu_1"].units[3].top[0];
    let patch = calibration.patch(network, "layer1/Relu_1", unit);
    assert!(patch.rows.end <= 28 && patch.rows.len() < 28 && patch.columns.len() < 28, "{patch:?}");
    let png = std::fs::read(kept.join(Calibration::image_file(unit.image))).unwrap();
    let cut = image::load_from_memory(&cut(&png, &patch).unwrap()).unwrap();
    assert_eq!((cut.height() as usize, cut.width() as usize), (patch.rows.len(), patch.columns.len()));
}

#[test]
fn batches_and_threads_change_nothing() {
    let data = tempfile::tempdir().unwrap();
    pictures(data.path());
    let model = Models::new(ModelsConfig::new(data.path())).unwrap().load(MODEL).unwrap();
    let files = images_in(data.path()).unwrap();
    let of = |threads: usize, files: &[std::path::PathBuf]| {
        let engine = Cpu::new(&CpuSettings { threads: threads.try_into().ok(), ..CpuSettings::default() }).unwrap();
        calibrate(&engine, &model, data.path(), files, &Options::default(), &mut |_| {}).unwrap().calibration
    };
    let all = of(1, &files);
    assert_eq!(all, of(2, &files));
    assert_eq!(all.layers.len(), model.network.layers().count(), "all layers unless some are named");
    // One image alone: its maxima are among those of all.
    let one = of(2, &files[..1]);
    let (unit, among) = (&one.layers["logits"].units[0], &all.layers["logits"].units[0]);
    assert_eq!((unit.mean.max, unit.mean.std), (unit.top[0].score, 0.0));
    assert!(among.top.iter().any(|top| all.kept[top.image] == one.kept[0] && top.score == unit.top[0].score));
}

#[test]
fn a_maximum_is_reported_in_percent_of_the_natural_one() {
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &["logits"], 1);
    let request: Request = serde_json::from_str(
        r#"{"model": "fashion-resnet8", "objectives": ["logits:8", "layer1/Relu_1:2"], "steps": 8, "diagnostics": true}"#,
    )
    .unwrap();
    let resolved = request.resolve(&model, &Limits::default()).unwrap();
    let found = maximize(&engine(), &model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
    let [one, other] = [0, 1].map(|i| found[i].clone().unwrap());
    let diagnostics = one.findings.diagnostics.unwrap();
    let natural = model.calibration.as_ref().unwrap().layers["logits"].units[8].mean.max;
    assert_eq!(diagnostics.natural_maximum, Some(natural));
    assert_eq!(diagnostics.percent_of_natural.is_some(), natural > 0.0);
    assert_eq!(other.findings.diagnostics.unwrap().natural_missing, Some(NaturalMissing::LayerLeftOut));
}

#[test]
fn a_calibration_of_other_weights_is_ignored() {
    let data = tempfile::tempdir().unwrap();
    calibrated(data.path(), &["logits"], 1);
    let index = data.path().join("models").join(MODEL).join(Calibration::FOLDER).join(Calibration::INDEX);
    let text = std::fs::read_to_string(&index).unwrap();
    let model = || Models::new(ModelsConfig::new(data.path())).unwrap().load(MODEL).unwrap();
    let digest = model().digest.clone();
    std::fs::write(&index, text.replace(&digest, &"0".repeat(64))).unwrap();
    assert!(model().calibration.is_none());
    std::fs::write(&index, "{").unwrap();
    assert!(model().calibration.is_none(), "damaged");
    std::fs::write(&index, text).unwrap();
    assert!(model().calibration.is_some());
}

#[test]
fn bad_input_is_named() {
    let data = tempfile::tempdir().unwrap();
    pictures(data.path());
    let model = Models::new(ModelsConfig::new(data.path())).unwrap().load(MODEL).unwrap();
    let files = images_in(data.path()).unwrap();
    let broken: Vec<_> = files.iter().filter(|file| file.ends_with("broken.jpg")).cloned().collect();
    let refusal = |layers: &[&str], top: usize, files: &[std::path::PathBuf]| {
        let options = Options { layers: layers.iter().map(ToString::to_string).collect(), top };
        calibrate(&engine(), &model, data.path(), files, &options, &mut |_| {}).unwrap_err().to_string()
    };
    assert!(refusal(&["logits", "layer9"], 9, &files).starts_with("layers: layer9 is not valid"));
    assert!(refusal(&[], 0, &files).starts_with("top: 0"));
    assert!(refusal(&[], 101, &files).starts_with("top: 101"));
    assert!(refusal(&["logits"], 9, &broken).contains("at least one readable"));
    assert!(refusal(&["logits"], 9, &[]).contains("at least one readable"));
}
