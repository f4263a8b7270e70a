//! Gaussian noise on a plane.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Fills a plane with Gaussian noise of this standard deviation (Box & Muller 1958). Every plane of an image has its
/// own stream, so that planes can be filled in any order.
pub(super) fn fill(seed: u64, channel: usize, sd: f32, noise: &mut [f32]) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(channel as u64);
    for pair in noise.chunks_mut(2) {
        let (u, v): (f32, f32) = (rng.random(), rng.random());
        // `u` is in [0, 1), so the logarithm is finite.
        let length = sd * (-2.0 * (1.0 - u).ln()).sqrt();
        let (sin, cos) = (2.0 * std::f32::consts::PI * v).sin_cos();
        pair.iter_mut().zip([cos, sin]).for_each(|(noise, direction)| *noise = length * direction);
    }
}
