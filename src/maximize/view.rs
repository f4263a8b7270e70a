//! Transforms at work: concrete views of an image and their adjoints.

use candle_core::{DType, Device, Result, Tensor};
use rand::{Rng, RngExt};

use super::transform::{Transform, TransformKind};

/// One drawn view of an image `[C,H,W]`: a chain of linear maps.
#[derive(Debug, Default)]
pub(super) struct View {
    maps: Vec<Map>,
}

#[derive(Debug)]
enum Map {
    Roll { rows: i32, columns: i32 },
    Sample(Sampler),
    Blur { rows: Tensor, columns: Tensor },
}

impl View {
    /// Draws a view of images of height and width `size`. How many random numbers are drawn depends on the transforms
    /// alone, so that a run does not depend on what its draws were.
    pub(super) fn draw(
        transforms: &[Transform],
        rng: &mut impl Rng,
        size: [usize; 2],
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let mut maps = Vec::new();
        let mut linear: Option<Linear> = None;
        for transform in transforms {
            let applied = rng.random::<f32>() < transform.probability;
            let (u, v) = (rng.random::<f32>(), rng.random::<f32>());
            if !applied {
                continue;
            }
            match transform.kind {
                TransformKind::Scale { low, high } => {
                    let factor = low + (high - low) * u;
                    linear = Some(Linear::zoom(factor).after(linear));
                    continue;
                }
                TransformKind::Rotate { degrees } => {
                    let angle = degrees * (2.0 * u - 1.0);
                    linear = Some(Linear::rotation(angle.to_radians()).after(linear));
                    continue;
                }
                _ => {}
            }
            if let Some(linear) = linear.take() {
                maps.push(Map::Sample(Sampler::new(linear, size, device, dtype)?));
            }
            match transform.kind {
                TransformKind::Jitter { pixels } => {
                    let shift = |u: f32| (u * (2 * pixels + 1) as f32).floor() as i32 - pixels as i32;
                    maps.push(Map::Roll { rows: shift(u), columns: shift(v) });
                }
                TransformKind::Blur { sigma } => {
                    let matrix = |length| blur_matrix(length, sigma, device, dtype);
                    maps.push(Map::Blur { rows: matrix(size[0])?, columns: matrix(size[1])?.t()?.contiguous()? });
                }
                TransformKind::Scale { .. } | TransformKind::Rotate { .. } => {}
            }
        }
        if let Some(linear) = linear {
            maps.push(Map::Sample(Sampler::new(linear, size, device, dtype)?));
        }
        Ok(Self { maps })
    }

    /// The view of `image` `[C,H,W]`.
    pub(super) fn apply(&self, image: &Tensor) -> Result<Tensor> {
        self.maps.iter().try_fold(image.clone(), |x, map| match map {
            Map::Roll { rows, columns } => x.roll(*rows, 1)?.roll(*columns, 2),
            Map::Sample(sampler) => sampler.apply(&x),
            Map::Blur { rows, columns } => sandwich(rows, &x, columns),
        })
    }

    /// The adjoint: from a gradient with respect to the view to one with respect to the image.
    pub(super) fn adjoint(&self, gradient: &Tensor) -> Result<Tensor> {
        self.maps.iter().rev().try_fold(gradient.clone(), |g, map| match map {
            Map::Roll { rows, columns } => g.roll(-rows, 1)?.roll(-columns, 2),
            Map::Sample(sampler) => sampler.adjoint(&g),
            Map::Blur { rows, columns } => sandwich(&rows.t()?.contiguous()?, &g, &columns.t()?.contiguous()?),
        })
    }
}

/// `rows x map x columns` for every channel of `[C,H,W]`.
fn sandwich(rows: &Tensor, x: &Tensor, columns: &Tensor) -> Result<Tensor> {
    let (c, h, w) = x.dims3()?;
    let rows = rows.unsqueeze(0)?.broadcast_as((c, h, h))?;
    let columns = columns.unsqueeze(0)?.broadcast_as((c, w, w))?;
    rows.matmul(&x.contiguous()?)?.matmul(&columns)
}

/// Gaussian weights over five pixels as a `[length, length]` matrix; at the border the weights that are left sum to 1.
fn blur_matrix(length: usize, sigma: f32, device: &Device, dtype: DType) -> Result<Tensor> {
    let mut matrix = vec![0f32; length * length];
    for i in 0..length {
        let taps: Vec<(usize, f32)> = (i.saturating_sub(2)..(i + 3).min(length))
            .map(|j| {
                let distance = (i as f32 - j as f32) / sigma;
                (j, (-0.5 * distance * distance).exp())
            })
            .collect();
        let sum: f32 = taps.iter().map(|(_, weight)| weight).sum();
        for (j, weight) in taps {
            matrix[i * length + j] = weight / sum;
        }
    }
    Tensor::from_vec(matrix, (length, length), device)?.to_dtype(dtype)
}

/// A linear map of the plane about the image's centre, from output to source positions: `[[yy, yx], [xy, xx]]`.
#[derive(Debug, Clone, Copy)]
struct Linear([[f32; 2]; 2]);

impl Linear {
    fn zoom(factor: f32) -> Self {
        Self([[1.0 / factor, 0.0], [0.0, 1.0 / factor]])
    }

    fn rotation(angle: f32) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self([[cos, -sin], [sin, cos]])
    }

    /// This map on an image that `first` (if any) has already changed.
    fn after(self, first: Option<Self>) -> Self {
        let Some(Self(a)) = first else { return self };
        let b = self.0;
        let entry = |i: usize, j: usize| a[i][0] * b[0][j] + a[i][1] * b[1][j];
        Self([[entry(0, 0), entry(0, 1)], [entry(1, 0), entry(1, 1)]])
    }
}

/// Bilinear sampling at fixed source positions; beyond its border the image is mirrored.
#[derive(Debug)]
struct Sampler {
    size: [usize; 2],
    /// Source index of every tap: `[4 * H * W]`.
    indices: Tensor,
    /// Weight of every tap: `[1, 4, H * W]`.
    weights: Tensor,
}

impl Sampler {
    fn new(Linear(linear): Linear, [height, width]: [usize; 2], device: &Device, dtype: DType) -> Result<Self> {
        let positions = height * width;
        let (mut indices, mut weights) = (vec![0u32; 4 * positions], vec![0f32; 4 * positions]);
        let center = [(height as f32 - 1.0) / 2.0, (width as f32 - 1.0) / 2.0];
        for row in 0..height {
            for column in 0..width {
                let (y, x) = (row as f32 - center[0], column as f32 - center[1]);
                let source_y = mirror(linear[0][0] * y + linear[0][1] * x + center[0], height);
                let source_x = mirror(linear[1][0] * y + linear[1][1] * x + center[1], width);
                let (top, left) = (source_y.floor() as usize, source_x.floor() as usize);
                let (bottom, right) = ((top + 1).min(height - 1), (left + 1).min(width - 1));
                let (fy, fx) = (source_y - top as f32, source_x - left as f32);
                let taps = [
                    (top, left, (1.0 - fy) * (1.0 - fx)),
                    (top, right, (1.0 - fy) * fx),
                    (bottom, left, fy * (1.0 - fx)),
                    (bottom, right, fy * fx),
                ];
                for (k, (y, x, weight)) in taps.into_iter().enumerate() {
                    let at = k * positions + row * width + column;
                    indices[at] = (y * width + x) as u32;
                    weights[at] = weight;
                }
            }
        }
        Ok(Self {
            size: [height, width],
            indices: Tensor::from_vec(indices, 4 * positions, device)?,
            weights: Tensor::from_vec(weights, (1, 4, positions), device)?.to_dtype(dtype)?,
        })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (channels, [height, width]) = (x.dim(0)?, self.size);
        let flat = x.contiguous()?.reshape((channels, height * width))?;
        let taps = flat.index_select(&self.indices, 1)?.reshape((channels, 4, height * width))?;
        taps.broadcast_mul(&self.weights)?.sum(1)?.reshape((channels, height, width))
    }

    fn adjoint(&self, g: &Tensor) -> Result<Tensor> {
        let (channels, [height, width]) = (g.dim(0)?, self.size);
        let flat = g.contiguous()?.reshape((channels, 1, height * width))?;
        let taps = flat.broadcast_mul(&self.weights)?.reshape((channels, 4 * height * width))?;
        let zeros = Tensor::zeros((channels, height * width), g.dtype(), g.device())?;
        zeros.index_add(&self.indices, &taps, 1)?.reshape((channels, height, width))
    }
}

/// Brings a position into `0..=length-1` by mirroring at both ends.
fn mirror(position: f32, length: usize) -> f32 {
    let last = (length - 1) as f32;
    if last == 0.0 {
        return 0.0;
    }
    let wrapped = position.rem_euclid(2.0 * last);
    if wrapped > last { 2.0 * last - wrapped } else { wrapped }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SIZE: [usize; 2] = [9, 7];

    fn image(rng: &mut impl Rng) -> Tensor {
        let values: Vec<f64> = (0..2 * 63).map(|_| rng.random::<f64>()).collect();
        Tensor::from_vec(values, (2, SIZE[0], SIZE[1]), &Device::Cpu).unwrap()
    }

    fn view(transforms: &[&str], seed: u64) -> View {
        let transforms: Vec<Transform> = transforms.iter().map(|text| text.parse().unwrap()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        View::draw(&transforms, &mut rng, SIZE, &Device::Cpu, DType::F64).unwrap()
    }

    fn dot(a: &Tensor, b: &Tensor) -> f64 {
        (a * b).unwrap().sum_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn the_adjoint_moves_across_the_inner_product() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let chains: [&[&str]; 5] = [
            &["jitter:3"],
            &["scale:0.7,1.4"],
            &["rotate:40"],
            &["blur:0.8"],
            &["jitter:2@0.5", "scale:0.9,1.1", "rotate:10", "blur:0.5@0.7", "rotate:90"],
        ];
        for transforms in chains {
            for seed in 0..20 {
                let view = view(transforms, seed);
                let (x, g) = (image(&mut rng), image(&mut rng));
                let (left, right) = (dot(&view.apply(&x).unwrap(), &g), dot(&x, &view.adjoint(&g).unwrap()));
                assert!((left - right).abs() < 1e-9, "{transforms:?}, seed {seed}: {left} and {right}");
            }
        }
    }

    #[test]
    fn nothing_moves_a_uniform_image() {
        let ones = Tensor::ones((2, SIZE[0], SIZE[1]), DType::F64, &Device::Cpu).unwrap();
        for seed in 0..20 {
            let view = view(&["scale:0.5,2", "jitter:3", "blur:2", "rotate:180"], seed);
            let changed = (view.apply(&ones).unwrap() - &ones).unwrap().abs().unwrap().max_all().unwrap();
            assert!(changed.to_scalar::<f64>().unwrap() < 1e-5);
        }
    }

    #[test]
    fn a_quarter_turn_is_a_quarter_turn() {
        let size = [5, 5];
        let sampler =
            Sampler::new(Linear::rotation(std::f32::consts::FRAC_PI_2), size, &Device::Cpu, DType::F64).unwrap();
        let mut values = vec![0f64; 25];
        values[1] = 1.0;
        let x = Tensor::from_vec(values, (1, 5, 5), &Device::Cpu).unwrap();
        let turned = sampler.apply(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let at: Vec<usize> = (0..25).filter(|&i| turned[i] > 0.999).collect();
        assert!(at == [9] || at == [15], "the pixel at row 0, column 1 went to {at:?}");
    }

    #[test]
    fn jitter_reaches_both_ends_and_only_them() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            if let [Map::Roll { rows, .. }] = view(&["jitter:2"], seed).maps[..] {
                seen.insert(rows);
            }
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [-2, -1, 0, 1, 2]);
    }
}
