//! Gather indices of sliding windows (im2col and col2im), computed once per plan.
//!
//! A gather is one kernel on every device for any stride, dilation and padding, and its adjoint is another gather.
//! Nothing is scattered, so that sums always have the same order.

use candle_core::{Device, Result, Tensor};

use super::Reference;
use crate::network::Window;

/// Index that gathers 0; candle supports it on all devices.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A window over maps of one size. Positions on a map of `H x W` pixels are `y * W + x`; `T` is the number of taps, `P`
/// the number of output positions, and `N` the number of maps, one per image and channel.
pub(super) struct Taps {
    window: Window,
    input: [usize; 2],
    output: [usize; 2],
}

impl Taps {
    /// For maps of height and width `input` and outputs of `output`.
    pub(super) fn new(window: &Window, input: [usize; 2], output: [usize; 2]) -> Self {
        Self { window: *window, input, output }
    }

    /// Number of taps.
    pub(super) fn count(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1]
    }

    /// Whether the only tap reads the map itself.
    pub(super) fn is_pointwise(&self) -> bool {
        self.window.kernel == [1, 1] && self.window.stride == [1, 1] && self.window.padding.is_none()
    }

    /// Whether the stride is 1.
    pub(super) fn is_dense(&self) -> bool {
        self.window.stride == [1, 1]
    }

    /// The pixel that tap `k` of output `p` reads; `None` for padding.
    fn source(&self, k: usize, p: usize) -> Option<usize> {
        let tap = [k / self.window.kernel[1], k % self.window.kernel[1]];
        let place = [p / self.output[1], p % self.output[1]];
        let along = |i: usize| {
            let position = place[i] * self.window.stride[i] + tap[i] * self.window.dilation[i];
            position.checked_sub(self.window.before()[i]).filter(|&position| position < self.input[i])
        };
        Some(along(0)? * self.input[1] + along(1)?)
    }

    /// All reads `(pixel, tap, output)`, ordered by tap and output.
    fn reads(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let outputs = self.output[0] * self.output[1];
        (0..self.count() * outputs).filter_map(move |i| {
            let (k, p) = (i / outputs, i % outputs);
            Some((self.source(k, p)?, k, p))
        })
    }

    /// im2col: `[N, H*W]` to `[N, T*P]`, the pixel that every tap reads; padding is 0.
    pub(super) fn columns(&self, engine: &Reference) -> Result<Gather> {
        let pixels = self.input[0] * self.input[1];
        Gather::new(engine, self.count(), self.columns_from(0..self.count(), NOWHERE as usize), pixels)
    }

    /// For each tap, `[N, H*W + 1]` to `[N, P]`: the pixel that it reads; padding is the last value of the input.
    pub(super) fn each(&self, engine: &Reference) -> Result<Vec<Gather>> {
        let pixels = self.input[0] * self.input[1];
        let one = |k| Gather::new(engine, 1, self.columns_from(k..k + 1, pixels), pixels + 1);
        (0..self.count()).map(one).collect()
    }

    fn columns_from(&self, taps: std::ops::Range<usize>, border: usize) -> Vec<u32> {
        let outputs = self.output[0] * self.output[1];
        let sources = taps.flat_map(|k| (0..outputs).map(move |p| (k, p)));
        sources.map(|(k, p)| self.source(k, p).unwrap_or(border) as u32).collect()
    }

    /// For each tap, the adjoint of [`Taps::each`] without padding: `[N, P]` to `[N, H*W]`.
    pub(super) fn each_back(&self, engine: &Reference) -> Result<Vec<Gather>> {
        let (pixels, outputs) = (self.input[0] * self.input[1], self.output[0] * self.output[1]);
        self.reader_indices().chunks(pixels).map(|row| Gather::new(engine, 1, row.to_vec(), outputs)).collect()
    }

    /// `[N, P]` to `[N, T*H*W]`: for every tap and pixel, the output that reads the pixel with that tap.
    pub(super) fn readers(&self, engine: &Reference) -> Result<Gather> {
        Gather::new(engine, self.count(), self.reader_indices(), self.output[0] * self.output[1])
    }

    fn reader_indices(&self) -> Vec<u32> {
        let pixels = self.input[0] * self.input[1];
        let mut indices = vec![NOWHERE; self.count() * pixels];
        for (pixel, k, p) in self.reads() {
            indices[k * pixels + pixel] = p as u32;
        }
        indices
    }

    /// col2im without its sum, the adjoint of [`Taps::columns`]: `[N, T*P]` to `[N, R*H*W]`, where `R` is the largest
    /// number of reads of one pixel.
    pub(super) fn fold(&self, engine: &Reference) -> Result<Gather> {
        let outputs = self.output[0] * self.output[1];
        self.by_pixel(engine, self.count() * outputs, |k, p| k * outputs + p)
    }

    /// As [`Taps::fold`] if all taps have the same gradient: `[N, P]` to `[N, R*H*W]`.
    pub(super) fn spread(&self, engine: &Reference) -> Result<Gather> {
        self.by_pixel(engine, self.output[0] * self.output[1], |_, p| p)
    }

    fn by_pixel(&self, engine: &Reference, from: usize, index: impl Fn(usize, usize) -> usize) -> Result<Gather> {
        let pixels = self.input[0] * self.input[1];
        let mut filled = vec![0; pixels];
        let mut indices = Vec::new();
        for (pixel, k, p) in self.reads() {
            let row = filled[pixel];
            filled[pixel] += 1;
            if indices.len() <= row * pixels {
                indices.resize((row + 1) * pixels, NOWHERE);
            }
            indices[row * pixels + pixel] = index(k, p) as u32;
        }
        if indices.is_empty() {
            indices = vec![NOWHERE; pixels];
        }
        Gather::new(engine, indices.len() / pixels, indices, from)
    }
}

/// Gather of positions of flat maps, in one or more rows.
pub(super) struct Gather {
    /// `[rows * length]`.
    indices: Tensor,
    rows: usize,
    /// Length of an input map.
    from: usize,
    /// `[1, rows]`, to sum rows by a matrix product.
    ones: Tensor,
}

impl Gather {
    fn new(engine: &Reference, rows: usize, indices: Vec<u32>, from: usize) -> Result<Self> {
        if indices.len() >= NOWHERE as usize || from >= NOWHERE as usize {
            candle_core::bail!("a window reads too many values: {} of maps of {from}", indices.len());
        }
        let length = indices.len();
        let indices = Tensor::from_vec(indices, length, &Device::Cpu)?.to_device(&engine.device)?;
        Ok(Self { indices, rows, from, ones: engine.tensor(&vec![1.0; rows], &[1, rows])? })
    }

    /// Maps `[..]`, flattened to `[N, from]`, to `[N, rows * length]`.
    pub(super) fn apply(&self, maps: &Tensor) -> Result<Tensor> {
        maps.contiguous()?.reshape(((), self.from))?.index_select(&self.indices, 1)
    }

    /// As [`Gather::apply`], summed over rows: `[N, length]`.
    pub(super) fn apply_sum(&self, maps: &Tensor) -> Result<Tensor> {
        let rows = self.apply(maps)?;
        if self.rows == 1 {
            return Ok(rows);
        }
        // A matrix product, because a reduction on a GPU uses a block of threads per sum.
        let maps = rows.dim(0)?;
        weighted(&self.ones.broadcast_as((maps, 1, self.rows))?, &rows)
    }
}

/// Weighted sum of the rows of `[N, R * length]` with `weights [N,1,R]`: `[N, length]`.
pub(super) fn weighted(weights: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let (maps, _, count) = weights.dims3()?;
    weights.matmul(&rows.reshape((maps, count, ()))?)?.squeeze(1)
}
