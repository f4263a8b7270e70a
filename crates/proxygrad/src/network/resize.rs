//! Interpolation of feature maps (ONNX `Resize` and `Upsample`) as weighted sums of rows and columns.

use super::error::ShapeError;

/// Resizing of a `[H,W]` map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resize {
    /// Output size.
    pub target: ResizeTarget,
    /// How values between pixels are interpolated.
    pub interpolation: Interpolation,
    /// Which input position an output pixel maps to.
    pub coordinates: Coordinates,
    /// Whether a linear or cubic filter is stretched by the factor by which an axis shrinks, so that every input pixel
    /// counts.
    pub antialias: bool,
    /// Whether pixels outside of the map have no weight. If not, the edge is repeated.
    pub exclude_outside: bool,
}

/// Output size of a [`Resize`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ResizeTarget {
    /// Factors for height and width.
    Scales([f32; 2]),
    /// Height and width.
    Sizes([usize; 2]),
}

/// How values between pixels are interpolated.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Interpolation {
    /// The nearest pixel, with this rounding rule.
    Nearest(Rounding),
    /// Bilinear.
    Linear,
    /// Bicubic (Keys 1981, "Cubic convolution interpolation for digital image processing", equation 4), with the slope
    /// at a distance of one pixel: -0.75 in PyTorch, -0.5 in TensorFlow and Pillow. Finite.
    Cubic(f32),
}

/// How [`Interpolation::Nearest`] rounds a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rounding {
    /// To the nearest, halves down.
    HalfDown,
    /// To the nearest, halves up.
    HalfUp,
    /// Down.
    Floor,
    /// Up.
    Ceil,
}

/// Which input position an output pixel maps to (ONNX `coordinate_transformation_mode`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Coordinates {
    /// Pixel centres at half-integers.
    HalfPixel,
    /// Pixel centres at half-integers; both maps have the same centre, also where the scaled length was rounded down.
    HalfPixelSymmetric,
    /// Pixel centres at half-integers; an output of length 1 reads position 0.
    PytorchHalfPixel,
    /// Pixel centres of the output at half-integers, those of the input at integers (opsets 11 and 12, from TensorFlow).
    HalfPixelToInteger,
    /// Pixels at integers, scaled from the first.
    Asymmetric,
    /// The first and last pixels of both maps coincide.
    AlignCorners,
    /// The first and last pixels of the output are at these fractions of the height and width of the input, finite
    /// numbers. Pixels outside of the input are 0.
    Crop {
        /// Fractions at the first row and column.
        start: [f32; 2],
        /// Fractions at the last row and column.
        end: [f32; 2],
    },
}

impl Resize {
    /// Resizing without antialiasing, with the edge repeated.
    pub fn new(target: ResizeTarget, interpolation: Interpolation, coordinates: Coordinates) -> Self {
        Self { target, interpolation, coordinates, antialias: false, exclude_outside: false }
    }

    /// Height and width of the output for an input of height and width `size`.
    ///
    /// # Errors
    /// When an axis would become empty, or a parameter is not finite.
    pub fn output(&self, size: [usize; 2]) -> Result<[usize; 2], ShapeError> {
        if let Interpolation::Cubic(slope) = self.interpolation
            && !slope.is_finite()
        {
            return Err(ShapeError::Parameter(format!("has the cubic slope {slope}, which is not finite")));
        }
        if let Coordinates::Crop { start, end } = self.coordinates
            && !start.iter().chain(&end).all(|fraction| fraction.is_finite())
        {
            return Err(ShapeError::Parameter(format!("crops from {start:?} to {end:?}, which are not finite")));
        }
        let output = match self.target {
            ResizeTarget::Sizes(sizes) => sizes,
            // In f32, like ONNX Runtime: 10 * 0.7 is 7, although the f32 nearest to 0.7 is smaller than 0.7.
            ResizeTarget::Scales(scales) => [0, 1].map(|i| {
                let part = match self.coordinates {
                    Coordinates::Crop { start, end } => end[i] - start[i],
                    _ => 1.0,
                };
                (size[i] as f32 * part * scales[i]).floor() as usize
            }),
        };
        if output.contains(&0) || size.contains(&0) {
            return Err(ShapeError::Resize { from: size, to: output });
        }
        Ok(output)
    }

    /// For axis `axis` (0 = height, 1 = width) of length `input`: the source indices of every output index, ascending,
    /// and their weights, none of which is 0.
    pub fn taps(&self, axis: usize, input: usize, output: usize) -> Vec<Vec<(usize, f64)>> {
        let scale = match self.target {
            ResizeTarget::Scales(scales) => scales[axis],
            ResizeTarget::Sizes(_) => output as f32 / input as f32,
        };
        (0..output).map(|i| self.tap(self.position(axis, i as f32, scale, input, output), scale, input)).collect()
    }

    /// Upper bound of the number of taps of one output index.
    pub(crate) fn most_taps(&self, axis: usize, input: usize, output: usize) -> usize {
        let scale = match self.target {
            ResizeTarget::Scales(scales) => scales[axis],
            ResizeTarget::Sizes(_) => output as f32 / input as f32,
        };
        // A stretched filter reaches further, but not beyond the input.
        let radius = (self.interpolation.radius() / self.stretch(scale)).ceil() as usize;
        radius.saturating_mul(2).saturating_add(1).min(input.max(2))
    }

    /// By how much a filter is compressed, at most 1.
    fn stretch(&self, scale: f32) -> f64 {
        if self.antialias { f64::from(scale).min(1.0) } else { 1.0 }
    }

    /// Source position of output index `i`. In f32, like ONNX Runtime, so that ties round the same way.
    fn position(&self, axis: usize, i: f32, scale: f32, input: usize, output: usize) -> f32 {
        let (length, last) = (input as f32, input as f32 - 1.0);
        match self.coordinates {
            Coordinates::Crop { start, end } if output > 1 => {
                start[axis] * last + i * (end[axis] - start[axis]) * last / (output as f32 - 1.0)
            }
            Coordinates::Crop { start, end } => 0.5 * (start[axis] + end[axis]) * last,
            _ if scale == 1.0 => i,
            Coordinates::PytorchHalfPixel if output == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (i + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let rounded = output as f32 / (scale * length);
                length / 2.0 * (1.0 - rounded) + (i + 0.5) / scale - 0.5
            }
            Coordinates::HalfPixelToInteger => (i + 0.5) / scale,
            Coordinates::Asymmetric => i / scale,
            Coordinates::AlignCorners if output == 1 => 0.0,
            Coordinates::AlignCorners => i * last / (output as f32 - 1.0),
        }
    }

    fn tap(&self, position: f32, scale: f32, input: usize) -> Vec<(usize, f64)> {
        let last = (input - 1) as f32;
        if matches!(self.coordinates, Coordinates::Crop { .. }) && !(0.0..=last).contains(&position) {
            return Vec::new();
        }
        let inside = |x: f64| x.clamp(0.0, f64::from(last)) as usize;
        if let Interpolation::Nearest(rounding) = self.interpolation {
            let rounded = match rounding {
                Rounding::HalfDown => (position - 0.5).ceil(),
                Rounding::HalfUp => (position + 0.5).floor(),
                Rounding::Floor => position.floor(),
                Rounding::Ceil => position.ceil(),
            };
            return vec![(inside(f64::from(rounded)), 1.0)];
        }
        // Beyond the border all pixels are the edge, however far away.
        let reach = self.interpolation.radius() / self.stretch(scale);
        let position = f64::from(position).clamp(-reach - 1.0, f64::from(last) + reach + 1.0);
        let mut taps: Vec<(usize, f64)> = Vec::new();
        for source in (position - reach).ceil() as i64..=(position + reach).floor() as i64 {
            let weight = self.interpolation.weight((source as f64 - position) * self.stretch(scale));
            let is_outside = source < 0 || source as f64 > f64::from(last);
            if weight == 0.0 || (is_outside && self.exclude_outside) {
                continue;
            }
            match taps.last_mut() {
                Some((at, total)) if *at == inside(source as f64) => *total += weight,
                _ => taps.push((inside(source as f64), weight)),
            }
        }
        let total: f64 = taps.iter().map(|(_, weight)| weight).sum();
        if total == 0.0 {
            return Vec::new();
        }
        taps.into_iter().map(|(at, weight)| (at, weight / total)).filter(|(_, weight)| *weight != 0.0).collect()
    }
}

impl Interpolation {
    /// Distance in pixels from which on pixels have no weight.
    fn radius(self) -> f64 {
        match self {
            Self::Nearest(_) => 0.5,
            Self::Linear => 1.0,
            Self::Cubic(_) => 2.0,
        }
    }

    /// Weight of a pixel at a distance.
    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Nearest(_) => f64::from(u8::from(x <= 0.5)),
            Self::Linear => (1.0 - x).max(0.0),
            Self::Cubic(slope) => {
                let a = f64::from(slope);
                match x {
                    0.0..=1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
                    1.0..2.0 => ((x - 5.0) * x + 8.0) * a * x - 4.0 * a,
                    _ => 0.0,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(interpolation: Interpolation, coordinates: Coordinates) -> Resize {
        Resize::new(ResizeTarget::Sizes([3, 7]), interpolation, coordinates)
    }

    #[test]
    fn the_weights_of_every_pixel_sum_to_one() {
        for interpolation in
            [Interpolation::Nearest(Rounding::Ceil), Interpolation::Linear, Interpolation::Cubic(-0.75)]
        {
            for (antialias, exclude_outside) in [(false, false), (false, true), (true, false), (true, true)] {
                for (input, output) in [(9, 3), (3, 9), (1, 4), (5, 1)] {
                    let plain = resize(interpolation, Coordinates::HalfPixel);
                    let resize = Resize { antialias, exclude_outside, ..plain };
                    for taps in resize.taps(0, input, output) {
                        let total: f64 = taps.iter().map(|(_, weight)| weight).sum();
                        assert!((total - 1.0).abs() < 1e-12, "{resize:?} {input} {output}: {taps:?}");
                        assert!(taps.iter().all(|(at, _)| *at < input));
                        assert!(
                            taps.len() <= resize.most_taps(0, input, output),
                            "{resize:?} {input} {output}: {taps:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_crop_is_zero_outside_of_the_map() {
        let coordinates = Coordinates::Crop { start: [-0.5, 0.0], end: [1.0, 1.0] };
        let taps = resize(Interpolation::Linear, coordinates).taps(0, 3, 3);
        assert_eq!(taps, [vec![], vec![(0, 0.5), (1, 0.5)], vec![(2, 1.0)]]);
    }

    #[test]
    fn parameters_that_are_not_finite_are_rejected() {
        let slope = resize(Interpolation::Cubic(f32::NAN), Coordinates::HalfPixel);
        let crop = Coordinates::Crop { start: [0.0, f32::NEG_INFINITY], end: [1.0, 1.0] };
        for resize in [slope, resize(Interpolation::Linear, crop)] {
            assert!(resize.output([4, 4]).is_err(), "{resize:?}");
        }
    }
}
