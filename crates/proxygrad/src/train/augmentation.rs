//! Augmentation: random crops of the padded image, and mirroring.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Random changes of training images. Each image of each epoch has its own random stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Augmentation {
    /// Pixels by which an image is padded with black on each side before a crop of its size.
    pub crop: usize,
    /// Whether half of the images are mirrored.
    pub flip: bool,
}

impl Augmentation {
    /// The image `[C,H,W]` with random changes.
    pub(super) fn apply(self, image: &[u8], [_, height, width]: [usize; 3], seed: u64, stream: u64) -> Vec<u8> {
        if self == Self::default() {
            return image.to_vec();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let [top, left] = [0; 2].map(|_: i32| rng.random_range(0..=2 * self.crop));
        let mirrored = self.flip && rng.random::<bool>();
        let mut changed = Vec::with_capacity(image.len());
        for plane in image.chunks_exact((height * width).max(1)) {
            for y in 0..height {
                for x in 0..width {
                    let x = if mirrored { width - 1 - x } else { x };
                    let from = [y + top, x + left].map(|position| position.checked_sub(self.crop));
                    changed.push(match from {
                        [Some(y), Some(x)] if y < height && x < width => plane[y * width + x],
                        _ => 0,
                    });
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crop_is_a_shifted_image_and_all_shifts_occur() {
        let image: Vec<u8> = (1..=12).collect();
        let augmentation = Augmentation { crop: 1, flip: false };
        let mut seen = std::collections::BTreeSet::new();
        for stream in 0..200 {
            let changed = augmentation.apply(&image, [1, 3, 4], 5, stream);
            let shifts = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx)));
            let shifted = |(dy, dx): (i64, i64)| -> Vec<u8> {
                let at = |y: i64, x: i64| {
                    let inside = (0..3).contains(&y) && (0..4).contains(&x);
                    if inside { image[(y * 4 + x) as usize] } else { 0 }
                };
                (0..3).flat_map(|y| (0..4).map(move |x| (y, x))).map(|(y, x)| at(y + dy, x + dx)).collect()
            };
            let shift = shifts.into_iter().find(|&shift| shifted(shift) == changed);
            assert!(shift.is_some(), "{changed:?}");
            seen.insert(shift);
        }
        assert_eq!(seen.len(), 9);
    }

    #[test]
    fn about_half_of_the_images_are_mirrored_and_a_stream_decides() {
        let augmentation = Augmentation { crop: 0, flip: true };
        let mirrored = (0..200).filter(|&stream| augmentation.apply(&[1, 2], [1, 1, 2], 0, stream) == [2, 1]).count();
        assert!((70..130).contains(&mirrored), "{mirrored}");
        assert_eq!(augmentation.apply(&[1, 2], [1, 1, 2], 0, 3), augmentation.apply(&[1, 2], [1, 1, 2], 0, 3));
    }
}
