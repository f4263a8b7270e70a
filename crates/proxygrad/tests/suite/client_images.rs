//! Objectives and starts from images of clients, and stimuli that differ, as a library user sees them.

use base64::Engine as _;
use candle_core::{DType, Device, Tensor};
use image::{ImageBuffer, ImageFormat, Rgb, RgbImage};
use proxygrad::engine::{Engine, Forward, Reference, Target};
use proxygrad::maximize::{Limits, NoCallback, Request, maximize};
use proxygrad::network::Model;
use serde_json::{Value, json};

use crate::maximize::{colour_classifier, engine, resolve, run};

/// A picture of 10x12 pixels.
fn picture(seed: u32) -> RgbImage {
    ImageBuffer::from_fn(10, 12, |x, y| {
        let wave =
            |k: u32| (127.5 + 100.0 * (f64::from(seed + k + 1) * f64::from(x * 3 + y * (k + 2)) * 0.11).sin()) as u8;
        Rgb([wave(0), wave(1), wave(2)])
    })
}

fn encoded(image: &RgbImage) -> String {
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).unwrap();
    base64::prelude::BASE64_STANDARD.encode(file.into_inner())
}

fn png(bytes: &[u8]) -> RgbImage {
    image::load_from_memory(bytes).unwrap().to_rgb8()
}

/// The values of a layer on an image, in f64 and by the plain engine: channels by positions.
fn values(model: &Model, layer: &str, image: &RgbImage) -> Vec<Vec<f64>> {
    let mut input = vec![0f64; 3 * 12 * 10];
    for (x, y, pixel) in image.enumerate_pixels() {
        for (c, (mean, std)) in [(104.0, 60.0), (117.0, 70.0), (123.0, 80.0)].into_iter().enumerate() {
            input[c * 120 + y as usize * 10 + x as usize] = (f64::from(pixel.0[2 - c]) - mean) / std;
        }
    }
    let network = &model.network;
    let target = [network.find(layer).unwrap()];
    let mut plan =
        Reference::new(Device::Cpu, DType::F64).plan(network, &Target::whole(&target), network.input_shape()).unwrap();
    let input = Tensor::from_vec(input, (1, 3, 12, 10), &Device::Cpu).unwrap();
    let output = plan.forward(&input, Forward::Original).unwrap()[0].get(0).unwrap();
    let channels = output.dim(0).unwrap();
    output.reshape((channels, ())).unwrap().to_vec2().unwrap()
}

fn at(values: &[Vec<f64>], position: usize) -> Vec<f64> {
    values.iter().map(|channel| channel[position]).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The mean over positions of `dot max(cos, 0.1)^power`.
fn likeness(a: &[Vec<f64>], r: impl Fn(usize) -> Vec<f64>, power: f64) -> f64 {
    let positions = a[0].len();
    let value = |p: usize| {
        let (a, r) = (at(a, p), r(p));
        let lengths = (dot(&a, &a) * dot(&r, &r)).sqrt();
        let cosine = if lengths == 0.0 { 0.0 } else { dot(&a, &r) / lengths };
        dot(&a, &r) * cosine.max(0.1).powf(power)
    };
    (0..positions).map(value).sum::<f64>() / positions as f64
}

#[test]
fn scores_of_likenesses_are_what_their_formulas_give_on_the_png() {
    let model = colour_classifier();
    let image = picture(1);
    let direction = [0.5, -1.0, 2.0, 0.0, 1.0, 0.25, -0.5, 1.5];
    let request = json!({"model": "test", "steps": 20, "objectives": [
        {"layer": "relu", "inversion": {"image": encoded(&image)}},
        {"layer": "relu", "caricature": {"image": encoded(&image)}, "cosine_power": 2},
        {"layer": "relu", "direction": direction, "cosine_power": 3},
        {"layer": "logits", "caricature": {"image": encoded(&image)}},
    ]});
    let outcomes = run(&model, &request.to_string());
    let reference = values(&model, "relu", &image);
    for (i, outcome) in outcomes.iter().enumerate() {
        let stimulus = png(&outcome.png);
        let found = values(&model, "relu", &stimulus);
        let expected = match i {
            0 => {
                let (a, r) = (found.concat(), reference.concat());
                -a.iter().zip(&r).map(|(a, r)| (a - r).powi(2)).sum::<f64>() / dot(&r, &r)
            }
            1 => likeness(&found, |p| at(&reference, p), 2.0),
            2 => likeness(&found, |_| direction.to_vec(), 3.0),
            _ => {
                let reference = values(&model, "logits", &image);
                likeness(&values(&model, "logits", &stimulus), |p| at(&reference, p), 1.0)
            }
        };
        let error = (f64::from(outcome.findings.score) - expected).abs() / expected.abs();
        assert!(error < 1e-4, "objective {i}: {}, not {expected}", outcome.findings.score);
        assert!(outcome.findings.score > outcome.findings.initial_score, "objective {i}");
    }
    let passes = |i: usize| outcomes[i].findings.passes;
    assert_eq!((passes(0), passes(2)), (20 * 2 + 3, 20 * 2 + 2), "the image is one pass more");
}

#[test]
fn an_image_is_its_own_inversion() {
    let model = colour_classifier();
    let image = encoded(&picture(2));
    let request = json!({"model": "test", "steps": 1, "start": {"kind": "image", "image": image},
                         "objective": {"layer": "relu", "inversion": {"image": image}}});
    let outcome = &run(&model, &request.to_string())[0];
    assert_eq!((outcome.findings.score, outcome.findings.best_step), (0.0, 0));
    assert_eq!(png(&outcome.png), picture(2));
}

#[test]
fn stimuli_with_images_do_not_depend_on_their_batch() {
    let model = colour_classifier();
    let of = |seed: u32, kind: &str| json!({"layer": "relu", kind: {"image": encoded(&picture(seed))}});
    let request = json!({"model": "test", "steps": 12, "transforms": ["jitter:1"], "objectives": [
        of(1, "inversion"), of(2, "caricature"), "relu:3", {"sum": [of(3, "caricature"), of(1, "inversion"), "logits:2"]},
        of(2, "inversion"),
    ]});
    let resolved = resolve(&model, &request.to_string());
    let together = maximize(&engine(), &model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
    for (i, task) in resolved.tasks().into_iter().enumerate() {
        let alone = maximize(&engine(), &model, &[task], &resolved.settings, &mut NoCallback).unwrap();
        assert_eq!(alone[0], together[i], "stimulus {i}");
    }
}

/// Root-mean-square distance of pixel values in [0, 1].
fn distance(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares = a.as_raw().iter().zip(b.as_raw()).map(|(&a, &b)| ((f64::from(a) - f64::from(b)) / 255.0).powi(2));
    (squares.sum::<f64>() / a.as_raw().len() as f64).sqrt()
}

#[test]
fn the_stimulus_stays_within_max_rms_distance() {
    let model = colour_classifier();
    let image = picture(4);
    for optimizer in ["l2-ascent", "adam"] {
        let stimulus = |radius: Value| {
            let request = json!({"model": "test", "steps": 60, "objective": "logits:3", "optimizer": optimizer,
                                 "start": {"kind": "image", "image": encoded(&image), "max_rms_distance": radius}});
            run(&model, &request.to_string()).remove(0)
        };
        let (free, bound) = (stimulus(Value::Null), stimulus(json!(0.05)));
        assert!(distance(&png(&free.png), &image) > 0.08, "{optimizer}");
        let bound_distance = distance(&png(&bound.png), &image);
        assert!((0.04..0.05 + 0.5 / 255.0).contains(&bound_distance), "{optimizer}: {bound_distance}");
        assert!(
            bound.findings.score > bound.findings.initial_score + 0.1 && bound.findings.score < free.findings.score,
            "{optimizer}"
        );
        assert_eq!(bound.findings.initial_score, free.findings.initial_score);
    }
}

#[test]
fn noise_on_an_image_is_drawn_for_every_stimulus() {
    let model = colour_classifier();
    let request = json!({"model": "test", "steps": 1, "objectives": ["logits:1", "logits:1"],
                         "start": {"kind": "image", "image": encoded(&picture(1)), "noise": 0.1}});
    let outcomes = run(&model, &request.to_string());
    assert_ne!(outcomes[0].findings.initial_score, outcomes[1].findings.initial_score);
}

/// Mean cosine of the Gram matrices of a layer's values on every pair of images.
fn similarity(model: &Model, layer: &str, images: &[RgbImage]) -> f64 {
    let gram = |image: &RgbImage| -> Vec<f64> {
        let values = values(model, layer, image);
        values.iter().flat_map(|a| values.iter().map(|b| dot(a, b)).collect::<Vec<f64>>()).collect()
    };
    let grams: Vec<Vec<f64>> = images.iter().map(gram).collect();
    let pairs = (0..grams.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let cosines =
        pairs.map(|(i, j)| dot(&grams[i], &grams[j]) / (dot(&grams[i], &grams[i]) * dot(&grams[j], &grams[j])).sqrt());
    let cosines: Vec<f64> = cosines.collect();
    cosines.iter().sum::<f64>() / cosines.len() as f64
}

#[test]
fn a_diverse_group_differs_and_notices_no_foreign_stimulus() {
    let model = colour_classifier();
    let resolved = |weight: f64| {
        let request = json!({"model": "test", "objectives": ["logits:2", "logits:4"], "steps": 40, "seed": 3,
                             "diversity": {"layer": "relu", "copies": 3, "weight": weight}});
        resolve(&model, &request.to_string())
    };
    let (even, diverse) = (resolved(0.0), resolved(20.0));
    assert_eq!(diverse.objectives.len(), 6, "three of each");
    let found = |resolved: &proxygrad::maximize::Resolved, tasks: &[proxygrad::maximize::Task]| {
        let outcomes = maximize(&engine(), &model, tasks, &resolved.settings, &mut NoCallback).unwrap();
        outcomes.into_iter().map(Option::unwrap).collect::<Vec<_>>()
    };
    let (without, with) = (found(&even, &even.tasks()), found(&diverse, &diverse.tasks()));
    for group in [0..3, 3..6] {
        let images = |outcomes: &[proxygrad::maximize::Outcome]| -> Vec<RgbImage> {
            outcomes[group.clone()].iter().map(|outcome| png(&outcome.png)).collect()
        };
        let (without, with) =
            (similarity(&model, "relu", &images(&without)), similarity(&model, "relu", &images(&with)));
        assert!(with < without - 0.01, "{with} is not less than {without}");
        let alone = found(&diverse, &diverse.tasks()[group.clone()]);
        assert_eq!(alone, found(&diverse, &diverse.tasks())[group.clone()], "the other group changes nothing");
    }
    for (i, outcome) in with.iter().enumerate() {
        let own = values(&model, "logits", &png(&outcome.png))[if i < 3 { 2 } else { 4 }][0];
        assert!((f64::from(outcome.findings.score) - own).abs() < 1e-4, "the penalty is not in the score");
    }
    // A weight of nothing is as no diversity.
    let plain = resolve(&model, r#"{"model": "test", "objectives": ["logits:2", "logits:2"], "steps": 40, "seed": 3}"#);
    assert_eq!(found(&plain, &plain.tasks())[..2], without[..2]);
}

#[test]
fn a_class_is_named_or_counted() {
    let mut model = colour_classifier();
    model.classes = ["cat", "dog", "Bird", "fish", "Dog", "T-shirt/top"].map(str::to_owned).to_vec();
    let probabilities = model.network.find("probabilities").unwrap();
    std::sync::Arc::get_mut(&mut model.network).unwrap().set_outputs(vec![probabilities]);
    let objective = |objective: Value| {
        let request: Request = serde_json::from_value(json!({"model": "test", "objective": objective})).unwrap();
        let resolved = request.resolve(&model, &Limits::default());
        resolved.map(|resolved| resolved.objectives[0].to_string()).map_err(|invalid| invalid.to_string())
    };
    for (named, counted) in [
        (json!("probabilities:bird"), "probabilities:2"),
        (json!("logits:CAT"), "logits:0"),
        (json!("logits:T-shirt/top@max"), "logits:5@max"),
        (json!({"layer": "logits", "class": "fish"}), "logits:3"),
        (json!({"sum": ["logits:cat", {"layer": "logits", "class": "fish", "weight": -1}]}), "logits:0 - logits:3"),
    ] {
        assert_eq!(objective(named.clone()).as_deref(), Ok(counted), "{named}");
    }
    for (wrong, parts) in [
        (json!("logits:dog"), vec!["objective.class: dog", "classes 1 and 4"]),
        (json!("logits:fisch"), vec!["objective.class", "such as fish"]),
        (json!("relu:cat"), vec!["objective.class", "logits, probabilities"]),
        (json!({"sum": ["logits:cat", "logits:cow"]}), vec!["objective.sum[1].class", "6 classes"]),
    ] {
        let error = objective(wrong.clone()).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{wrong}: {error}");
    }
}
