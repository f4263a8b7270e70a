//! Shares of an image's spectral energy at high frequencies.

use std::borrow::Cow;
use std::f64::consts::PI;

use super::document::finite;
use crate::maximize::parameterization::fft::{Ffts, Number};

/// Frequencies above this one are high: a quarter of the sampling rate, in cycles a pixel.
const HIGH: f64 = 0.25;
/// Weights of red, green and blue in the brightness (ITU-R BT.709, section 3).
const BRIGHTNESS: [f64; 3] = [0.2126, 0.7152, 0.0722];

/// Spectral energy of images without their means: in total, and at high frequencies.
#[derive(Debug, Clone, Copy, Default)]
struct Energy {
    all: f64,
    high: f64,
}

impl Energy {
    fn share(self) -> Option<f32> {
        // Rounding errors of a uniform image are not a spectrum.
        if self.all > NOTHING { finite(self.high / self.all) } else { None }
    }
}

/// Energy below which an image counts as uniform: one 8-bit level in one pixel of a large image has far more.
const NOTHING: f64 = 1e-15;

/// Shares of the energy at high frequencies, of the colour channels together and of the brightness, for an image
/// `[C,H,W]` of 1 or 3 channels in [0, 1]; `None` for a uniform image.
pub(super) fn high_frequency_shares(
    pixels: &[f64],
    size @ [height, width]: [usize; 2],
    ffts: &Ffts,
) -> [Option<f32>; 2] {
    let mut colours = Energy::default();
    for plane in pixels.chunks_exact((height * width).max(1)) {
        let energy = energy(plane, size, ffts);
        colours = Energy { all: colours.all + energy.all, high: colours.high + energy.high };
    }
    let grey = if pixels.len() > height * width { energy(&brightness(pixels, size), size, ffts) } else { colours };
    [colours.share(), grey.share()]
}

/// Share of the energy of the brightness at higher frequencies than in natural images, for an image `[C,H,W]` of 1 or 3
/// channels in [0, 1]; `None` for a uniform image.
///
/// The power of natural images falls with the square of the frequency (Field, 1987). With `P(f)` the share of the image's
/// energy above a frequency `f`, and `N(f)` that of a spectrum `1/f^2`, the excess is the largest `P(f) - N(f)`, 0 at
/// least: the one-sided statistic of Kolmogorov and Smirnov. It does not depend on the contrast, and since energies are
/// summed over many coefficients, hardly on their fluctuations.
pub(super) fn spectral_excess(pixels: &[f64], size: [usize; 2], ffts: &Ffts) -> Option<f32> {
    let mut powers = Vec::new();
    for_each_power(&brightness(pixels, size), size, ffts, |frequency, power, count| {
        powers.push((frequency, power, count / (frequency * frequency)));
    });
    powers.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let sum = |of: fn(&(f64, f64, f64)) -> f64| powers.iter().map(of).sum::<f64>();
    let (all, natural) = (sum(|power| power.1), sum(|power| power.2));
    if all <= NOTHING {
        return None;
    }
    let (mut above, mut excess) = ([0.0; 2], 0.0f64);
    for same in powers.chunk_by(|(a, ..), (b, ..)| a == b) {
        for (_, power, expected) in same {
            above = [above[0] + power / all, above[1] + expected / natural];
        }
        excess = excess.max(above[0] - above[1]);
    }
    finite(excess)
}

/// The brightness `[H,W]` of an image `[C,H,W]`: of three channels their weighted sum, of one channel itself.
fn brightness(pixels: &[f64], [height, width]: [usize; 2]) -> Cow<'_, [f64]> {
    match pixels.chunks_exact((height * width).max(1)).collect::<Vec<_>>().as_slice() {
        [red, green, blue] => {
            let mix = |((r, g), b): ((&f64, &f64), &f64)| r * BRIGHTNESS[0] + g * BRIGHTNESS[1] + b * BRIGHTNESS[2];
            red.iter().zip(*green).zip(*blue).map(mix).collect()
        }
        _ => pixels.into(),
    }
}

/// Hann window, sampled between its zeros, so that no pixel vanishes even in a small image.
fn hann(length: usize) -> Vec<f64> {
    (0..length).map(|i| (PI * (i as f64 + 0.5) / length as f64).sin().powi(2)).collect()
}

/// Energy of one plane.
fn energy(plane: &[f64], size: [usize; 2], ffts: &Ffts) -> Energy {
    let mut energy = Energy::default();
    for_each_power(plane, size, ffts, |frequency, power, _| {
        energy.all += power;
        if frequency > HIGH {
            energy.high += power;
        }
    });
    energy
}

/// Calls `visit` with every frequency other than 0, the power of one plane at it, and the number of coefficients that
/// it stands for. The plane is seen under the window, with its weighted mean subtracted, so that the window does not
/// leak the mean into other frequencies.
fn for_each_power(plane: &[f64], [height, width]: [usize; 2], ffts: &Ffts, mut visit: impl FnMut(f64, f64, f64)) {
    let (rows, columns) = (hann(height), hann(width));
    let weights: Vec<f64> = rows.iter().flat_map(|row| columns.iter().map(move |column| row * column)).collect();
    let sum: f64 = plane.iter().zip(&weights).map(|(p, w)| p * w).sum();
    let mean = sum / weights.iter().sum::<f64>();
    let windowed: Vec<f64> = plane.iter().zip(&weights).map(|(p, w)| (p - mean) * w).collect();
    let spectrum = f64::fft(ffts).analyze(&windowed);
    let bins = width / 2 + 1;
    for x in 0..bins {
        // The other half of the spectrum of a real image is its conjugate.
        let twice = if x == 0 || 2 * x == width { 1.0 } else { 2.0 };
        let along = x as f64 / width as f64;
        for (y, value) in spectrum.iter().skip(x).step_by(bins).enumerate().skip(usize::from(x == 0)) {
            let down = y.min(height - y) as f64 / height as f64;
            let power = twice * value.norm_sqr() / weights.len() as f64;
            visit(along.hypot(down), power, twice);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn image(size @ [height, width]: [usize; 2], f: impl Fn(f64, f64) -> f64) -> [Option<f32>; 2] {
        let pixels: Vec<f64> = (0..height * width).map(|i| f((i / width) as f64, (i % width) as f64)).collect();
        high_frequency_shares(&pixels, size, &Ffts::new(size))
    }

    #[test]
    fn a_checkerboard_is_all_high_and_one_colour_is_nothing() {
        for size in [[32, 32], [33, 21], [224, 224]] {
            let share = image(size, |y, x| (y + x) % 2.0)[0].unwrap();
            assert!(share > 0.999_999, "{size:?}: {share}");
            assert_eq!(image(size, |_, _| 0.7), [None; 2]);
        }
        assert_eq!(image([1, 1], |_, _| 1.0), [None; 2]);
        assert!(image([1, 2], |_, x| x)[0].unwrap() > 0.999);
    }

    #[test]
    fn a_wave_lies_on_the_side_of_its_frequency() {
        let wave = |fy: f64, fx: f64| {
            image([64, 48], move |y, x| 0.5 + 0.4 * (2.0 * PI * (fy * y + fx * x) + 0.3).sin())[0].unwrap()
        };
        for (fy, fx) in [(0.1, 0.0), (0.0, 0.2), (0.15, 0.15)] {
            assert!(wave(fy, fx) < 1e-3, "{fy}, {fx}: {}", wave(fy, fx));
        }
        for (fy, fx) in [(0.3, 0.0), (0.0, 0.31), (0.22, 0.22), (0.5, 0.1)] {
            assert!(wave(fy, fx) > 0.999, "{fy}, {fx}: {}", wave(fy, fx));
        }
        // A linear ramp is smooth, although its ends do not match.
        let slope = image([64, 64], |y, x| (y + x) / 126.0)[0].unwrap();
        assert!(slope < 1e-4, "{slope}");
    }

    #[test]
    fn two_waves_share_by_their_energy() {
        let share = image([60, 60], |_, x| 0.3 * (2.0 * PI * x / 10.0).sin() + 0.1 * (2.0 * PI * x / 2.5).sin())[0];
        assert!((share.unwrap() - 0.1).abs() < 1e-3, "{share:?}");
    }

    #[test]
    fn noise_exceeds_the_natural_spectrum_and_smooth_images_do_not() {
        let size = [64, 64];
        let excess = |pixels: &[f64]| spectral_excess(pixels, size, &Ffts::new(size));
        let of = |f: &dyn Fn(usize, usize) -> f64| excess(&(0..4096).map(|i| f(i / 64, i % 64)).collect::<Vec<_>>());
        assert!(of(&|y, x| ((y + x) % 2) as f64).unwrap() > 0.99);
        assert!(of(&|y, _| y as f64 / 63.0).unwrap() < 0.01);
        assert_eq!(of(&|_, _| 0.5), None);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let noise: Vec<f64> = (0..4096).map(|_| rng.random()).collect();
        let white = excess(&noise).unwrap();
        // The largest of 1 - f^2 pi - (1 - ln(64 f) / ln(32)), for frequencies below one half.
        assert!((0.4..0.65).contains(&white), "{white}");
        // The same noise with amplitudes that fall with the frequency, as those of photographs do.
        let ffts = Ffts::new(size);
        let mut spectrum = f64::fft(&ffts).analyze(&noise);
        for (i, value) in spectrum.iter_mut().enumerate() {
            let (y, x) = (i / 33, i % 33);
            *value /= (y.min(64 - y) as f64).hypot(x as f64).max(1.0);
        }
        let mut natural = vec![0.0; 4096];
        f64::fft(&ffts).synthesize(&mut spectrum, &mut natural);
        let natural = excess(&natural).unwrap();
        // The few coefficients of the lowest frequencies, with half of the energy, vary.
        assert!(natural < 0.25, "{natural}");
    }

    #[test]
    fn brightness_does_not_see_what_only_colours_do() {
        let size = [32, 32];
        let check = |i: usize| ((i / 32 + i % 32) % 2) as f64;
        let wave = |i: usize| (2.0 * PI * (i % 32) as f64 / 16.0).sin();
        // Red and green wave slowly; a fast checkerboard in both cancels out in the brightness.
        let plane = |scale: f64| (0..1024).map(move |i| 0.5 + 0.2 * wave(i) + scale * check(i));
        let pixels: Vec<f64> = plane(0.3).chain(plane(-0.3 * 0.2126 / 0.7152)).chain((0..1024).map(|_| 0.5)).collect();
        let [colours, grey] = high_frequency_shares(&pixels, size, &Ffts::new(size));
        assert!(colours.unwrap() > 0.1 && grey.unwrap() < 1e-3, "{colours:?} and {grey:?}");
    }

    proptest! {
        #[test]
        fn the_spectrum_holds_the_energy_of_the_windowed_image(
            height in 1usize..9, width in 1usize..9, seed in prop::collection::vec(0.0f64..1.0, 64),
        ) {
            let plane = &seed[..height * width];
            let (rows, columns) = (hann(height), hann(width));
            let weight = |i: usize| rows[i / width] * columns[i % width];
            let total: f64 = (0..plane.len()).map(weight).sum();
            let mean = (0..plane.len()).map(|i| plane[i] * weight(i)).sum::<f64>() / total;
            // Parseval: sums of squares agree.
            let expected: f64 = (0..plane.len()).map(|i| ((plane[i] - mean) * weight(i)).powi(2)).sum();
            let found = energy(plane, [height, width], &Ffts::new([height, width]));
            prop_assert!((found.all - expected).abs() < 1e-12, "{} and {expected}", found.all);
            prop_assert!(found.high <= found.all);
        }
    }
}
