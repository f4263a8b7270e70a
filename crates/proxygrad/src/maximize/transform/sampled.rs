//! Sampled transforms of a batch.

use rand::{Rng, RngExt};

use super::blur::Blur;
use super::colour::Colour;
use super::document::{Transform, TransformKind};
use super::linear::Linear;

/// One sampled transform of a batch: an entry per image, `None` or false where it is not applied.
#[derive(Debug)]
pub(super) enum SampledTransform {
    /// Shifts down and to the right, in pixels.
    Roll(Vec<Option<[i32; 2]>>),
    Sample(Vec<Option<Linear>>),
    Blur(Blur, Vec<bool>),
    /// Padding of every image: grey, or else by reflection.
    Pad {
        margin: usize,
        grey: Vec<bool>,
    },
    /// Removes the margin of every image.
    Cut {
        margin: usize,
    },
    /// Gaussian noise, by seed.
    Noise {
        sd: f32,
        seeds: Vec<Option<u64>>,
    },
    Colour(Vec<Option<Colour>>),
}

impl SampledTransform {
    /// Height and width of the output for images of this size.
    pub(super) fn grown(&self, size: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Pad { margin, .. } => size.map(|length| length + 2 * margin),
            Self::Cut { margin } => size.map(|length| length - 2 * margin),
            _ => size,
        }
    }

    /// Whether it reads all planes of an image at once.
    pub(super) fn takes_images(&self) -> bool {
        matches!(self, Self::Sample(_) | Self::Colour(_))
    }

    fn is_used(&self) -> bool {
        match self {
            Self::Roll(shifts) => shifts.iter().any(Option::is_some),
            Self::Sample(linears) => linears.iter().any(Option::is_some),
            Self::Blur(_, on) => on.contains(&true),
            Self::Pad { margin, .. } | Self::Cut { margin } => *margin > 0,
            Self::Noise { seeds, .. } => seeds.iter().any(Option::is_some),
            Self::Colour(colours) => colours.iter().any(Option::is_some),
        }
    }
}

/// Samples the transforms of one image of height and width `size` from each stream. The number of random numbers drawn
/// depends only on the transforms, not on the values drawn.
pub(super) fn draw<'a, R: Rng + 'a>(
    transforms: &[Transform],
    streams: impl IntoIterator<Item = &'a mut R>,
    size: [usize; 2],
) -> Vec<SampledTransform> {
    let mut sampled = empty(transforms, size);
    for rng in streams {
        draw_chain(transforms, rng, size, &mut sampled);
    }
    sampled.retain(SampledTransform::is_used);
    sampled
}

/// The transforms, without entries. Consecutive zooms, rotations, flips and crops are composed into one sampling.
fn empty(transforms: &[Transform], mut size: [usize; 2]) -> Vec<SampledTransform> {
    let mut sampled = vec![];
    let mut margins = 0;
    for transform in transforms {
        let transform = match transform.kind {
            TransformKind::Jitter { .. } => SampledTransform::Roll(Vec::new()),
            TransformKind::Blur { sigma } => SampledTransform::Blur(Blur::new(sigma, size), Vec::new()),
            TransformKind::Pad { pixels } => SampledTransform::Pad { margin: pixels as usize, grey: Vec::new() },
            TransformKind::Noise { sd } => SampledTransform::Noise { sd, seeds: Vec::new() },
            TransformKind::Colour { .. } => SampledTransform::Colour(Vec::new()),
            TransformKind::Scale { .. }
            | TransformKind::Rotate { .. }
            | TransformKind::Crop { .. }
            | TransformKind::Flip => continue,
        };
        if let SampledTransform::Pad { margin, .. } = transform {
            margins += margin;
        }
        size = transform.grown(size);
        sampled.extend([SampledTransform::Sample(Vec::new()), transform]);
    }
    sampled.extend([SampledTransform::Sample(Vec::new()), SampledTransform::Cut { margin: margins }]);
    sampled
}

/// Samples the transforms of one more image and appends an entry to each.
fn draw_chain(transforms: &[Transform], rng: &mut impl Rng, mut size: [usize; 2], sampled: &mut [SampledTransform]) {
    let mut linear: Option<Linear> = None;
    let mut sampled = sampled.iter_mut();
    for transform in transforms {
        let applied = rng.random::<f32>() < transform.probability;
        let (u, v) = (rng.random::<f32>(), rng.random::<f32>());
        let next = match transform.kind {
            TransformKind::Scale { low, high } => Some(Linear::zoom(low + (high - low) * u)),
            TransformKind::Rotate { degrees } => Some(Linear::rotation((degrees * (2.0 * u - 1.0)).to_radians())),
            TransformKind::Flip => Some(Linear::FLIP),
            TransformKind::Crop { low, high } => {
                let area = low + (high - low) * rng.random::<f32>();
                Some(Linear::window(area.sqrt(), [u, v], size))
            }
            _ => None,
        };
        if let Some(next) = next {
            linear = if applied { Some(next.after(linear)) } else { linear };
            continue;
        }
        // The composed map comes first, unless this transform is skipped; padding never is.
        let is_pad = matches!(transform.kind, TransformKind::Pad { .. });
        if let Some(SampledTransform::Sample(linears)) = sampled.next() {
            linears.push(linear.take_if(|_| applied || is_pad));
        }
        let Some(entry) = sampled.next() else { continue };
        size = entry.grown(size);
        match (transform.kind, entry) {
            (TransformKind::Jitter { pixels }, SampledTransform::Roll(shifts)) => {
                let shift = |u: f32| (u * (2 * pixels + 1) as f32).floor() as i32 - pixels as i32;
                shifts.push(applied.then(|| [shift(u), shift(v)]));
            }
            (TransformKind::Blur { .. }, SampledTransform::Blur(_, on)) => on.push(applied),
            (TransformKind::Pad { .. }, SampledTransform::Pad { grey, .. }) => grey.push(applied),
            (TransformKind::Noise { .. }, SampledTransform::Noise { seeds, .. }) => {
                let seed = rng.random::<u64>();
                seeds.push(applied.then_some(seed));
            }
            (TransformKind::Colour { strength }, SampledTransform::Colour(colours)) => {
                let off = |u: f32| strength * (2.0 * u - 1.0);
                let colour = Colour::new(0.5 * off(u), 1.0 + off(v), 1.0 + off(rng.random()));
                colours.push(applied.then_some(colour));
            }
            _ => {}
        }
    }
    if let Some(SampledTransform::Sample(linears)) = sampled.next() {
        linears.push(linear);
    }
}
