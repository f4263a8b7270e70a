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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interpolation {
    /// The nearest pixel, with this rounding rule.
    Nearest(Rounding),
    /// Bilinear.
    Linear,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coordinates {
    /// Pixel centres at half-integers.
    HalfPixel,
    /// Pixel centres at half-integers; an output of length 1 reads position 0.
    PytorchHalfPixel,
    /// Pixels at integers, scaled from the first.
    Asymmetric,
    /// The first and last pixels of both maps coincide.
    AlignCorners,
}

impl Resize {
    /// Height and width of the output for an input of height and width `size`.
    ///
    /// # Errors
    /// When an axis would become empty.
    pub fn output(&self, size: [usize; 2]) -> Result<[usize; 2], ShapeError> {
        let output = match self.target {
            ResizeTarget::Sizes(sizes) => sizes,
            // In f32, like ONNX Runtime: 10 * 0.7 is 7, although the f32 nearest to 0.7 is smaller than 0.7.
            ResizeTarget::Scales(scales) => [0, 1].map(|i| (size[i] as f32 * scales[i]).floor() as usize),
        };
        if output.contains(&0) || size.contains(&0) {
            return Err(ShapeError::Resize { from: size, to: output });
        }
        Ok(output)
    }

    /// For axis `axis` (0 = height, 1 = width) of length `input`: the two source indices and their weights of every
    /// output index.
    pub fn taps(&self, axis: usize, input: usize, output: usize) -> Vec<[(usize, f64); 2]> {
        let scale = match self.target {
            ResizeTarget::Scales(scales) => scales[axis],
            ResizeTarget::Sizes(_) => output as f32 / input as f32,
        };
        (0..output).map(|i| self.tap(self.position(i as f32, scale, input, output), input)).collect()
    }

    /// Source position of output index `i`. In f32, like ONNX Runtime, so that ties round the same way.
    fn position(&self, i: f32, scale: f32, input: usize, output: usize) -> f32 {
        if scale == 1.0 {
            return i;
        }
        match self.coordinates {
            Coordinates::PytorchHalfPixel if output == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (i + 0.5) / scale - 0.5,
            Coordinates::Asymmetric => i / scale,
            Coordinates::AlignCorners if output == 1 => 0.0,
            Coordinates::AlignCorners => i * (input - 1) as f32 / (output - 1) as f32,
        }
    }

    fn tap(&self, position: f32, input: usize) -> [(usize, f64); 2] {
        let last = (input - 1) as f32;
        let inside = |x: f32| x.clamp(0.0, last) as usize;
        match self.interpolation {
            Interpolation::Nearest(rounding) => {
                let rounded = match rounding {
                    Rounding::HalfDown => (position - 0.5).ceil(),
                    Rounding::HalfUp => (position + 0.5).floor(),
                    Rounding::Floor => position.floor(),
                    Rounding::Ceil => position.ceil(),
                };
                [(inside(rounded), 1.0), (inside(rounded), 0.0)]
            }
            Interpolation::Linear => {
                let position = position.clamp(0.0, last);
                let low = position.floor();
                let weight = f64::from(position - low);
                [(inside(low), 1.0 - weight), (inside(low + 1.0), weight)]
            }
        }
    }
}
