//! Every map against its definition, its adjoint and its numeric derivative.
#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;
use std::sync::Arc;

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::maximize::ops::Arithmetic;
use crate::maximize::parameterization::ParameterizationRequest;
use crate::network::{Array, ImageStatistics, Model, Network, Preprocessing};

fn parameterization(json: &str, channels: usize) -> Parameterization {
    let request: ParameterizationRequest = serde_json::from_str(json).unwrap();
    request.resolve(&model(channels, ImageStatistics::default())).unwrap()
}

fn model(channels: usize, statistics: ImageStatistics) -> Model {
    Model {
        id: "test".into(),
        digest: String::new(),
        network: Arc::new(Network::new(channels, 8, 8)),
        preprocessing: Preprocessing::unit_range(1).unwrap(),
        classes: Vec::new(),
        statistics,
        calibration: None,
    }
}

const WAYS: [&str; 4] = [
    r#""fourier""#,
    r#""maco""#,
    r#"{"kind": "fourier", "decay_power": 0.5, "colour": "none"}"#,
    r#"{"kind": "maco", "decay_power": 1.3, "colour": "none", "contrast": 2}"#,
];

fn decoder(way: usize, image: [usize; 3]) -> ImageDecoder {
    let parameterization = parameterization(WAYS[way], image[0]);
    ImageDecoder::new(&parameterization, None, image, &Placement::host_f64()).unwrap()
}

impl ImageDecoder {
    /// The same maps as tensor operations.
    fn by_tensors(&self) -> Self {
        let mapping = match &self.mapping {
            Mapping::Pixel => Mapping::Pixel,
            Mapping::Fourier(spectral, mixing) => Mapping::Fourier(spectral.by_tensors(), mixing.by_tensors()),
            Mapping::Maco(spectral, mixing) => Mapping::Maco(spectral.by_tensors(), mixing.by_tensors()),
        };
        let placement = Placement { arithmetic: Arithmetic::Device, ..self.placement.clone() };
        Self { image: self.image, placement, mapping }
    }

    fn spectral(&self) -> &Spectral {
        match &self.mapping {
            Mapping::Fourier(spectral, _) | Mapping::Maco(spectral, _) => spectral,
            Mapping::Pixel => panic!("pixels have no spectrum"),
        }
    }
}

fn random(rng: &mut impl Rng, shape: [usize; 4]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| 4.0 * rng.random::<f64>() - 2.0).collect();
    Tensor::from_vec(values, &shape[..], &Device::Cpu).unwrap()
}

/// Parameters of two images that are far from their start, and gradients by their pixels.
fn parameters(decoder: &ImageDecoder, rng: &mut impl Rng) -> (Tensor, Tensor) {
    let [channels, height, width] = decoder.image;
    let half = width / 2 + 1;
    let parts = if matches!(decoder.mapping, Mapping::Maco(..)) { channels } else { 2 * channels };
    (random(rng, [2, parts, height, half]), random(rng, [2, channels, height, width]))
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    values(a).iter().zip(values(b)).map(|(a, b)| a * b).sum()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn coefficients_are_waves(seed in 0u64..1000, height in 1usize..8, width in 1usize..8) {
        let (mut rng, half) = (ChaCha8Rng::seed_from_u64(seed), width / 2 + 1);
        let spectral = Spectral::new([1, height, width], vec![1.0; height * half], &Placement::host_f64()).unwrap();
        let x = random(&mut rng, [1, 2, height, half]);
        let (planes, x) = (values(&spectral.synthesize(&x).unwrap()), values(&x));
        for (at, plane) in planes.iter().enumerate() {
            let (r, c) = ((at / width) as f64, (at % width) as f64);
            let wave = |i: usize| {
                let (k, l) = (i / half, i % half);
                let angle = TAU * (k as f64 * r / height as f64 + l as f64 * c / width as f64);
                let both = if l == 0 || 2 * l == width { 1.0 } else { 2.0 };
                both * (x[i] * angle.cos() - x[i + height * half] * angle.sin())
            };
            let sum: f64 = (0..height * half).map(wave).sum();
            prop_assert!((plane - sum).abs() < 1e-9, "{plane}, not {sum}");
        }
    }

    #[test]
    fn the_adjoint_moves_across_the_inner_product(
        way in 0..WAYS.len(), seed in 0u64..1000, height in 1usize..12, width in 1usize..12,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let decoder = decoder(way, [3, height, width]);
        let x = random(&mut rng, [2, 6, height, width / 2 + 1]);
        let g = random(&mut rng, [2, 3, height, width]);
        for spectral in [decoder.spectral(), &decoder.spectral().by_tensors()] {
            let left = dot(&spectral.synthesize(&x).unwrap(), &g);
            let right = dot(&x, &spectral.adjoint(&g).unwrap());
            prop_assert!((left - right).abs() < 1e-9 * (1.0 + left.abs()), "{left} and {right}");
        }
    }

    #[test]
    fn the_gradient_is_the_derivative(
        way in 0..WAYS.len(), seed in 0u64..1000, height in 1usize..8, width in 1usize..8,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let decoder = decoder(way, [3, height, width]);
        let (at, g) = parameters(&decoder, &mut rng);
        let direction = random(&mut rng, at.dims4().unwrap().into());
        let value = |step: f64| {
            let moved = (&at + direction.affine(step, 0.0).unwrap()).unwrap();
            dot(&decoder.decode(&moved).unwrap(), &g)
        };
        let slope = (value(1e-5) - value(-1e-5)) / 2e-5;
        let gradient = decoder.gradient(&at, &decoder.decode(&at).unwrap(), &g).unwrap();
        let along = dot(&gradient, &direction);
        prop_assert!((slope - along).abs() < 1e-5 * (1.0 + slope.abs()), "{slope} and {along}");
    }

    #[test]
    fn loops_and_tensor_operations_agree(
        way in 0..WAYS.len(), seed in 0u64..1000, height in 1usize..12, width in 1usize..12,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let decoder = decoder(way, [3, height, width]);
        let tensors = decoder.by_tensors();
        let (at, g) = parameters(&decoder, &mut rng);
        let pixels = decoder.decode(&at).unwrap();
        prop_assert!(distance(&pixels, &tensors.decode(&at).unwrap()) < 1e-9);
        let (a, b) = (decoder.gradient(&at, &pixels, &g).unwrap(), tensors.gradient(&at, &pixels, &g).unwrap());
        prop_assert!(distance(&a, &b) < 1e-8);
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch(
        way in 0..WAYS.len(), seed in 0u64..1000, height in 1usize..12, width in 1usize..12,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let decoder = decoder(way, [3, height, width]);
        let (at, g) = parameters(&decoder, &mut rng);
        for decoder in [&decoder, &decoder.by_tensors()] {
            let pixels = decoder.decode(&at).unwrap();
            let gradient = decoder.gradient(&at, &pixels, &g).unwrap();
            for i in 0..2 {
                let one = |batch: &Tensor| batch.narrow(0, i, 1).unwrap();
                let alone = decoder.decode(&one(&at)).unwrap();
                prop_assert_eq!(values(&alone), values(&one(&pixels)));
                let alone = decoder.gradient(&one(&at), &alone, &one(&g)).unwrap();
                prop_assert_eq!(values(&alone), values(&one(&gradient)));
            }
        }
    }

    #[test]
    fn coefficients_of_an_image_make_it_again(seed in 0u64..1000, height in 1usize..12, width in 1usize..12) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for (way, channels) in [(0, 3), (2, 3), (2, 1), (2, 5)] {
            let decoder = decoder(way, [channels, height, width]);
            let pixels = random(&mut rng, [1, channels, height, width]).affine(0.249, 0.5).unwrap();
            let again = decoder.decode(&decoder.encode(&pixels.get(0).unwrap()).unwrap().unsqueeze(0).unwrap()).unwrap();
            prop_assert!(distance(&pixels, &again) < 1.1e-3);
        }
    }

    #[test]
    fn phases_of_an_image_of_maco_make_it_again(seed in 0u64..1000, height in 1usize..12, width in 1usize..12) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let decoder = decoder(1, [3, height, width]);
        // Where a coefficient is real, only phases 0 and pi have its magnitude; encoding once makes every one such.
        let round = |pixels: &Tensor| {
            let phases = decoder.encode(&pixels.get(0).unwrap()).unwrap();
            decoder.decode(&phases.unsqueeze(0).unwrap()).unwrap()
        };
        let first = decoder.decode(&parameters(&decoder, &mut rng).0.narrow(0, 0, 1).unwrap()).unwrap();
        let once = round(&first);
        prop_assert!(distance(&round(&once), &once) < 1e-3);
    }
}

/// Magnitudes `[C,H,W/2+1]` of the decorrelated colours of one image.
fn magnitudes(decoder: &ImageDecoder, pixels: &Tensor) -> Vec<f64> {
    let (Mapping::Fourier(_, mixing) | Mapping::Maco(_, mixing)) = &decoder.mapping else { panic!("not for pixels") };
    let [channels, height, width] = decoder.image;
    let ones = vec![1.0; channels * height * (width / 2 + 1)];
    let spectral = Spectral::new(decoder.image, ones, &Placement::host_f64()).unwrap();
    let parts = values(&spectral.invert(&mixing.strip(pixels).unwrap()).unwrap());
    let (real, imaginary) = parts.split_at(parts.len() / 2);
    real.iter().zip(imaginary).map(|(re, im)| re.hypot(*im)).collect()
}

#[test]
fn whatever_the_phases_are_magnitudes_stay_as_they_are() {
    for size in [[9, 11], [8, 12], [7, 10], [6, 5]] {
        let [height, width] = size;
        let half = width / 2 + 1;
        let decoder = decoder(1, [3, height, width]);
        let natural = magnitude::natural(size, 1.0);
        for seed in 0..3 {
            let phases = decoder
                .draw(&Start::Uniform, &ReferenceImages::default(), &mut ChaCha8Rng::seed_from_u64(seed))
                .unwrap();
            let pixels = decoder.decode(&phases.unsqueeze(0).unwrap()).unwrap();
            let found = magnitudes(&decoder, &pixels);
            let scale = found[1] / natural[1];
            for (at, found) in found.iter().enumerate() {
                let (k, l) = (at % (height * half) / half, at % half);
                let expected = natural[at % (height * half)] * scale;
                let is_real = (l == 0 || 2 * l == width) && (k == 0 || 2 * k == height);
                match is_real {
                    true => assert!(*found < expected + 1e-9, "{size:?} at {k}, {l}"),
                    false => assert!((found - expected).abs() < 1e-9, "{size:?} at {k}, {l}: {found}, not {expected}"),
                }
            }
        }
    }
}

#[test]
fn maco_has_the_contrast_that_is_asked_for_whatever_the_size_is() {
    for (contrast, size) in [(1.0, [64, 48]), (2.5, [33, 65])] {
        let json = format!(r#"{{"kind": "maco", "contrast": {contrast}, "colour": "none"}}"#);
        let image = [2, size[0], size[1]];
        let decoder = ImageDecoder::new(&parameterization(&json, 2), None, image, &Placement::host_f64()).unwrap();
        let phases = decoder
            .draw(&Start::Uniform, &ReferenceImages::default(), &mut ChaCha8Rng::seed_from_u64(3))
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let planes = decoder.spectral().synthesize(&circle::coefficients(&phases, Arithmetic::Host).unwrap()).unwrap();
        let planes = values(&planes);
        let deviation = (planes.iter().map(|x| x * x).sum::<f64>() / planes.len() as f64).sqrt();
        assert!((deviation - contrast).abs() < 0.01 * contrast, "{deviation}, not {contrast}");
    }
}

#[test]
fn fourier_starts_near_grey_and_maco_with_full_contrast() {
    let spread = |way: usize, start: Start| {
        let decoder = decoder(way, [3, 32, 32]);
        let drawn = |seed| {
            decoder
                .draw(&start, &ReferenceImages::default(), &mut ChaCha8Rng::seed_from_u64(seed))
                .unwrap()
                .unsqueeze(0)
                .unwrap()
        };
        assert_ne!(values(&drawn(1)), values(&drawn(2)));
        let pixels = values(&decoder.decode(&drawn(1)).unwrap());
        (pixels.iter().map(|p| (p - 0.5).powi(2)).sum::<f64>() / pixels.len() as f64).sqrt()
    };
    let fourier = spread(0, Start::default());
    assert!(fourier > 1e-4 && fourier < 0.03, "{fourier}");
    assert!((0.05..0.25).contains(&spread(1, Start::Uniform)));
    assert!((0.2..0.4).contains(&spread(0, Start::Uniform)), "pixels drawn evenly");
}

#[test]
fn a_measured_spectrum_keeps_its_frequencies_at_another_size() {
    // Twice as strong along rows as down columns, and decaying with the frequency.
    let side = 32;
    let along = |at: usize| ((at % 17) as f64 / 32.0, (at / 17).min(32 - at / 17) as f64 / 32.0);
    let strength = |(x, y): (f64, f64)| if x == 0.0 && y == 0.0 { 0.0 } else { (1.0 + x / (x + y)) / x.hypot(y) };
    let magnitude: Vec<f32> = (0..side * 17).map(|at| strength(along(at)) as f32).collect();
    let magnitude = Array::new([1, side, 17], magnitude).unwrap();
    let spectrum = Arc::new(Spectrum::new(magnitude, ColourMatrix::identity(1)).unwrap());
    let other = magnitude::measured(&spectrum, [48, 80]);
    for (k, l) in [(0, 10), (6, 10), (12, 0), (42, 30), (3, 5)] {
        let (x, y) = (l as f64 / 80.0, k.min(48 - k) as f64 / 48.0);
        let (found, expected) = (other[k * 41 + l], strength((x, y)));
        assert!((found - expected).abs() < 0.03 * expected, "at {k}, {l}: {found}, not {expected}");
    }
    assert_eq!(magnitude::measured(&spectrum, [32, 32]).len(), side * 17);

    let statistics = ImageStatistics { colour: None, spectrum: Some(Arc::clone(&spectrum)) };
    let resolve = |json: &str, statistics: &ImageStatistics| {
        serde_json::from_str::<ParameterizationRequest>(json).unwrap().resolve(&model(1, statistics.clone()))
    };
    let settings = resolve(r#""maco""#, &statistics).unwrap();
    assert_eq!(settings.spectrum, Some(SpectrumKind::Measured), "what the model comes with is the default");
    assert_eq!(settings.spectrum_digest.as_deref(), Some(spectrum.digest()));
    assert_eq!(resolve(&serde_json::to_string(&settings).unwrap(), &statistics).unwrap(), settings);
    let decoder = |spectrum| ImageDecoder::new(&settings, spectrum, [1, 9, 9], &Placement::host_f64());
    assert!(decoder(Some(&spectrum)).is_ok());
    assert!(decoder(None).is_err(), "the spectrum is gone");
    let natural = resolve(r#"{"kind": "maco", "decay_power": 1}"#, &statistics).unwrap();
    assert_eq!(natural.spectrum, Some(SpectrumKind::Natural));
    let invalid = resolve(r#"{"kind": "maco", "spectrum": "measured"}"#, &ImageStatistics::default()).unwrap_err();
    assert_eq!(invalid.field, "spectrum");
}

#[test]
fn what_a_parameterization_means_for_a_model() {
    let resolve = |json: &str, channels: usize, colour: Option<ColourMatrix>| {
        let statistics = ImageStatistics { colour, spectrum: None };
        serde_json::from_str::<ParameterizationRequest>(json).unwrap().resolve(&model(channels, statistics))
    };
    let shown = |json: &str, channels, colour| serde_json::to_value(resolve(json, channels, colour).unwrap()).unwrap();
    assert_eq!(shown(r#""pixel""#, 3, None), serde_json::json!({"kind": "pixel"}));
    let fourier =
        |colour: serde_json::Value| serde_json::json!({"kind": "fourier", "decay_power": 1.0, "colour": colour});
    assert_eq!(shown(r#""fourier""#, 3, None), fourier("imagenet".into()));
    assert_eq!(shown(r#""fourier""#, 1, None), fourier("none".into()));
    let stated = ColourMatrix::new(vec![vec![1.0, 0.5], vec![1.0, -0.5]]);
    assert_eq!(shown(r#""fourier""#, 2, Some(stated)), fourier(serde_json::json!([[1.0, 0.5], [1.0, -0.5]])));
    for (json, field) in [
        (r#"{"kind": "pixel", "decay_power": 1}"#, "decay_power"),
        (r#"{"kind": "fourier", "contrast": 1}"#, "contrast"),
        (r#"{"kind": "fourier", "spectrum": "natural"}"#, "spectrum"),
        (r#"{"kind": "fourier", "decay_power": 5}"#, "decay_power"),
        (r#"{"kind": "maco", "contrast": 0}"#, "contrast"),
        (r#"{"kind": "maco", "spectrum_digest": "00"}"#, "spectrum_digest"),
        (r#"{"kind": "fourier", "colour": [[1, 0], [0, 1]]}"#, "colour"),
        (r#"{"kind": "fourier", "colour": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}"#, "colour"),
    ] {
        assert_eq!(resolve(json, 3, None).unwrap_err().field, field, "{json}");
    }
    assert_eq!(resolve(r#"{"kind": "fourier", "colour": "imagenet"}"#, 1, None).unwrap_err().field, "colour");
    for json in [r#""fouriér""#, r#"{"kind": "fourier", "colour": "rgb"}"#, r#"{"kind": "maco", "alpha": 1}"#] {
        assert!(serde_json::from_str::<ParameterizationRequest>(json).is_err(), "{json}");
    }
}
