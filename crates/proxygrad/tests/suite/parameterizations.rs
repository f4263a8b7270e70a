//! Parameterizations as a library user sees them.

use std::sync::Arc;

use image::DynamicImage;
use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::maximize::{Limits, NoCallback, Outcome, Request, Settings, maximize};
use proxygrad::network::{
    Activation, Array, ChannelOrder, ColourMatrix, ImageStatistics, Model, Network, Op, Preprocessing, Reduce, Spectrum,
};

use crate::maximize::{resolve, run};
use crate::networks::{array, conv, rng, same};

/// A classifier of images that are `channels` deep, on an odd and an even side.
fn classifier(channels: usize, statistics: ImageStatistics) -> Model {
    let mut rng = rng(31);
    let mut network = Network::new(channels, 15, 12);
    let layer = conv(&mut rng, channels, 8, [3, 3], 1, same(3));
    let layer = network.push("conv", layer, &[Network::INPUT]).unwrap();
    let relu = network.push("relu", Op::Activation(Activation::Relu), &[layer]).unwrap();
    let pool = network.push("pool", Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false }, &[relu]).unwrap();
    network.push("logits", Op::Dense { weight: array(&mut rng, &[6, 8]), bias: None }, &[pool]).unwrap();
    let order = if channels == 1 { ChannelOrder::Grey } else { ChannelOrder::Bgr };
    let preprocessing =
        Preprocessing { channels: order, range: 1.0, mean: vec![0.45; channels], std: vec![0.25; channels] };
    let (network, classes) = (Arc::new(network), Vec::new());
    let (id, digest, calibration) = ("test".into(), String::new(), None);
    Model { id, digest, network, preprocessing, classes, statistics, calibration }
}

fn decoded(outcome: &Outcome) -> DynamicImage {
    image::load_from_memory(&outcome.png).unwrap()
}

const KINDS: [&str; 3] = ["pixel", "fourier", "maco"];

#[test]
fn every_parameterization_climbs_with_either_optimizer() {
    for channels in [1, 3] {
        let model = classifier(channels, ImageStatistics::default());
        for kind in KINDS {
            for optimizer in ["l2-ascent", "adam"] {
                let request = format!(
                    r#"{{"model": "test", "objective": "logits:3", "steps": 60, "parameterization": "{kind}",
                         "optimizer": "{optimizer}"}}"#
                );
                let outcome = &run(&model, &request)[0];
                let gain = outcome.findings.score - outcome.findings.initial_score;
                assert!(gain > 0.2 && outcome.findings.best_step > 30, "{kind}, {optimizer}, {channels}: {outcome:?}");
            }
        }
    }
}

#[test]
fn a_stimulus_does_not_depend_on_its_batch() {
    let model = classifier(3, ImageStatistics::default());
    for kind in KINDS {
        let request = format!(
            r#"{{"model": "test", "objectives": ["logits:0", "logits:1", "logits:2", "logits:0"], "steps": 12, "seed": 5,
                 "parameterization": "{kind}", "optimizer": "adam", "transforms": ["jitter:2"], "alpha": true}}"#
        );
        let resolved = resolve(&model, &request);
        let engine = Cpu::new(&CpuSettings::default()).unwrap();
        let together = maximize(&engine, &model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
        for (i, task) in resolved.tasks().into_iter().enumerate() {
            let alone = maximize(&engine, &model, &[task], &resolved.settings, &mut NoCallback).unwrap();
            assert_eq!(alone[0], together[i], "{kind}, stimulus {i}");
        }
        assert_ne!(together[0], together[3], "the index in the request changes the start");
    }
}

#[test]
fn transparency_changes_neither_colours_nor_score() {
    for channels in [1, 3] {
        let model = classifier(channels, ImageStatistics::default());
        for kind in KINDS {
            let outcome = |alpha: bool| {
                let request = format!(
                    r#"{{"model": "test", "objective": "relu:2@center", "steps": 20, "parameterization": "{kind}",
                         "alpha": {alpha}}}"#
                );
                run(&model, &request).remove(0)
            };
            let (plain, seen) = (outcome(false), outcome(true));
            assert_eq!(plain.findings.score, seen.findings.score, "{kind}");
            let (plain, seen) = (decoded(&plain), decoded(&seen));
            assert_eq!((plain.color().has_alpha(), seen.color().has_alpha()), (false, true), "{kind}");
            assert_eq!(seen.color().has_color(), channels == 3);
            assert_eq!(plain.to_rgb8(), seen.to_rgb8(), "{kind}");
            let seen = seen.to_rgba8();
            // The unit at the centre looks at 3x3 pixels.
            for (x, y, pixel) in seen.enumerate_pixels() {
                let near = x.abs_diff(6) <= 1 && y.abs_diff(7) <= 1;
                assert!(near || pixel.0[3] == 0, "{kind} at {x}, {y}");
            }
            assert_eq!(seen.pixels().map(|pixel| pixel.0[3]).max(), Some(255), "{kind}");
        }
    }
}

#[test]
fn what_the_model_states_decides_the_colours() {
    let score = |statistics: ImageStatistics, kind: &str| {
        let request =
            format!(r#"{{"model": "test", "objective": "logits:3", "steps": 10, "parameterization": "{kind}"}}"#);
        run(&classifier(3, statistics), &request)[0].findings.score
    };
    let red = ColourMatrix::new(vec![vec![1.0, 0.0, 0.0], vec![0.0, 0.1, 0.0], vec![0.0, 0.0, 0.1]]);
    let colour = ImageStatistics { colour: Some(red.clone()), spectrum: None };
    assert_ne!(score(ImageStatistics::default(), "fourier"), score(colour, "fourier"));

    let mut magnitude = vec![0f32; 3 * 8 * 5];
    (0..3).for_each(|channel| magnitude[channel * 40 + 2] = 1.0);
    let waves = Spectrum::new(Array::new([3, 8, 5], magnitude).unwrap(), red).unwrap();
    let model = classifier(3, ImageStatistics { colour: None, spectrum: Some(Arc::new(waves)) });
    let request = r#"{"model": "test", "objective": "logits:3", "steps": 5, "parameterization": "maco"}"#;
    let outcome = &run(&model, request)[0];
    // Waves along rows: neighbours in a row differ far more than neighbours in a column.
    let image = decoded(outcome).to_rgb8();
    let step = |dx: u32, dy: u32| {
        let inside = |x: u32, y: u32| x + dx < 12 && y + dy < 15;
        let pixels = image.enumerate_pixels().filter(|(x, y, _)| inside(*x, *y));
        pixels.map(|(x, y, pixel)| u32::from(pixel.0[0].abs_diff(image.get_pixel(x + dx, y + dy).0[0]))).sum::<u32>()
    };
    assert!(step(1, 0) > 4 * step(0, 1), "{} and {}", step(1, 0), step(0, 1));
}

#[test]
fn settings_of_older_jobs_are_those_of_pixels() {
    let model = classifier(3, ImageStatistics::default());
    let settings = resolve(&model, r#"{"model": "test", "objective": "logits:3"}"#).settings;
    let mut stored = serde_json::to_value(&settings).unwrap();
    for field in ["parameterization", "alpha"] {
        stored.as_object_mut().unwrap().remove(field).unwrap();
    }
    assert_eq!(serde_json::from_value::<Settings>(stored).unwrap(), settings);
}

#[test]
fn a_start_with_little_contrast_is_none_for_fixed_magnitudes() {
    let model = classifier(3, ImageStatistics::default());
    let request = |start: &str| {
        let request = format!(
            r#"{{"model": "test", "objective": "logits:3", "parameterization": "maco", "start": {{"kind": "{start}"}}}}"#
        );
        serde_json::from_str::<Request>(&request).unwrap().resolve(&model, &Limits::default())
    };
    assert_eq!(request("grey").unwrap_err().field, "start");
    assert!(request("uniform").is_ok());
}
