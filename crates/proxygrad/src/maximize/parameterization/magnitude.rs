//! Fixed magnitude spectra: of natural images by formula, or as measured.

use super::spectral::frequencies;
use crate::network::Spectrum;

/// The amplitude spectrum of natural images, `1 / f^decay`: Field 1987 ("Relations between the statistics of natural
/// images and the response properties of cortical cells") found a decay near 1; van der Schaaf & van Hateren 1996
/// ("Modelling the power spectra of natural images") 0.94 on average, half the exponent of the power. One plane, with
/// mean 0.
pub(super) fn natural(size: [usize; 2], decay: f32) -> Vec<f64> {
    let of = |f: f64| if f > 0.0 { f.powf(-f64::from(decay)) } else { 0.0 };
    frequencies(size).into_iter().map(of).collect()
}

/// A measured spectrum resampled to another size, all channels, at equal frequencies in cycles per pixel, since natural
/// images are scale-invariant.
pub(super) fn measured(spectrum: &Spectrum, size: [usize; 2]) -> Vec<f64> {
    let (side, half) = (spectrum.side(), spectrum.side() / 2 + 1);
    let known = frequencies([side, side]);
    let [height, width] = size;
    let target = frequencies(size);
    let columns = width / 2 + 1;
    let channel = |magnitude: &[f32]| {
        let sample = |(at, &f): (usize, &f64)| {
            if f == 0.0 {
                return 0.0;
            }
            let row = (at / columns) as f64 / height as f64 * side as f64;
            let column = (at % columns) as f64 / width as f64 * side as f64;
            let (mut sum, mut weights) = (0.0, 0.0);
            for (k, by) in neighbours(row) {
                for (l, by_too) in neighbours(column) {
                    let from = k % side * half + l.min(half - 1);
                    // Magnitudes decay too steeply for linear interpolation, so their ratio to 1 / f is interpolated.
                    // Frequency 0, the mean, is excluded.
                    if known[from] > 0.0 {
                        sum += by * by_too * f64::from(magnitude[from]) * known[from];
                        weights += by * by_too;
                    }
                }
            }
            if weights > 0.0 { sum / weights / f } else { f64::from(magnitude[1]) * known[1] / f }
        };
        target.iter().enumerate().map(sample).collect::<Vec<f64>>()
    };
    spectrum.magnitude().data().chunks(side * half).flat_map(channel).collect()
}

/// The integer positions around a position, with their linear weights.
fn neighbours(position: f64) -> [(usize, f64); 2] {
    let below = position.floor();
    [(below as usize, 1.0 - (position - below)), (below as usize + 1, position - below)]
}

/// Scales for coefficients on the unit circle, such that planes have magnitudes proportional to these,
/// `[C, H * (W/2+1)]`, for any phases, and a standard deviation of `contrast` over all channels.
///
/// In columns that are their own conjugate, coefficients come in conjugate pairs, whose phases would partly cancel;
/// only one of each pair is used there. A self-conjugate coefficient is real, and only as strong as its cosine: at most
/// three of the highest frequencies. The mean is 0.
pub(super) fn fixed(magnitudes: &[f64], [channels, height, width]: [usize; 3], contrast: f32) -> Vec<f64> {
    let half = width / 2 + 1;
    let times = |at: usize| {
        let (k, l) = (at % (height * half) / half, at % half);
        match (l == 0 || 2 * l == width, 2 * k) {
            (true, 0) if l == 0 => 0.0,
            (true, twice) if twice == 0 || twice == height => 1.0,
            (true, twice) if twice > height => 0.0,
            // In other columns, `w` is already 2.
            (true, _) => 2.0,
            (false, _) => 1.0,
        }
    };
    let mut scales: Vec<f64> = magnitudes.iter().enumerate().map(|(at, magnitude)| magnitude * times(at)).collect();
    // A cosine of amplitude a has variance a^2 / 2.
    let amplitude = |(at, scale): (usize, &f64)| scale * super::dft::weight(at % half, width);
    let variance: f64 = scales.iter().enumerate().map(|at| amplitude(at).powi(2) / 2.0).sum::<f64>() / channels as f64;
    let factor = if variance > 0.0 { f64::from(contrast) / variance.sqrt() } else { 0.0 };
    scales.iter_mut().for_each(|scale| *scale *= factor);
    scales
}
