//! Windows as taps: where every tap of a sliding window reads, and back, as lists of indices made once per plan.
//!
//! Gathering by a list is one kernel on every device, whatever stride, dilation and padding are, and its adjoint is
//! another gather: nothing is scattered, so that sums always have the same order.

use candle_core::{Device, Result, Tensor};

use super::Reference;
use crate::network::Window;

/// Gathers 0. Candle defines this index on all its devices.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A window over maps of one size. Positions on a map of `H x W` pixels are `y * W + x`; `T` is the number of taps, `P`
/// the number of output positions, and `N` stands for all maps: those of every channel of every image.
pub(super) struct Taps {
    window: Window,
    input: [usize; 2],
    output: [usize; 2],
}

impl Taps {
    /// For maps of height and width `input` that give `output`.
    pub(super) fn new(window: &Window, input: [usize; 2], output: [usize; 2]) -> Self {
        Self { window: *window, input, output }
    }

    /// Number of taps.
    pub(super) fn count(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1]
    }

    /// Whether the only tap is the map itself.
    pub(super) fn is_pointwise(&self) -> bool {
        self.window.kernel == [1, 1] && self.window.stride == [1, 1] && self.window.padding.is_none()
    }

    /// Whether windows start at every pixel, so that every tap sees about the whole map.
    pub(super) fn is_dense(&self) -> bool {
        self.window.stride == [1, 1]
    }

    /// The pixel that tap `k` of output `p` reads; `None` on the border.
    fn source(&self, k: usize, p: usize) -> Option<usize> {
        let tap = [k / self.window.kernel[1], k % self.window.kernel[1]];
        let place = [p / self.output[1], p % self.output[1]];
        let along = |i: usize| {
            let position = place[i] * self.window.stride[i] + tap[i] * self.window.dilation[i];
            position.checked_sub(self.window.before()[i]).filter(|&position| position < self.input[i])
        };
        Some(along(0)? * self.input[1] + along(1)?)
    }

    /// All readings `(pixel, tap, output)`, by tap and output.
    fn readings(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let outputs = self.output[0] * self.output[1];
        (0..self.count() * outputs).filter_map(move |i| {
            let (k, p) = (i / outputs, i % outputs);
            Some((self.source(k, p)?, k, p))
        })
    }

    /// `[N, H*W]` to `[N, T*P]`: what every tap reads; the border is 0.
    pub(super) fn columns(&self, engine: &Reference) -> Result<Gather> {
        let pixels = self.input[0] * self.input[1];
        Gather::new(engine, self.count(), self.columns_from(0..self.count(), NOWHERE as usize), pixels)
    }

    /// For each tap, `[N, H*W + 1]` to `[N, P]`: what it reads; the border is the last value of the input.
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

    /// For each tap, the adjoint of [`Taps::each`] without its border: `[N, P]` to `[N, H*W]`.
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
        for (pixel, k, p) in self.readings() {
            indices[k * pixels + pixel] = p as u32;
        }
        indices
    }

    /// The adjoint of [`Taps::columns`] before its sum: `[N, T*P]` to `[N, R*H*W]`, where `R` is the largest number of
    /// readings of one pixel.
    pub(super) fn fold(&self, engine: &Reference) -> Result<Gather> {
        let outputs = self.output[0] * self.output[1];
        self.by_pixel(engine, self.count() * outputs, |k, p| k * outputs + p)
    }

    /// As [`Taps::fold`], where all taps have the same gradient: `[N, P]` to `[N, R*H*W]`.
    pub(super) fn spread(&self, engine: &Reference) -> Result<Gather> {
        self.by_pixel(engine, self.output[0] * self.output[1], |_, p| p)
    }

    fn by_pixel(&self, engine: &Reference, from: usize, index: impl Fn(usize, usize) -> usize) -> Result<Gather> {
        let pixels = self.input[0] * self.input[1];
        let mut filled = vec![0; pixels];
        let mut indices = Vec::new();
        for (pixel, k, p) in self.readings() {
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

/// Chosen positions of flat maps, in one or more rows.
pub(super) struct Gather {
    /// `[rows * length]`.
    indices: Tensor,
    rows: usize,
    /// Length of the input.
    from: usize,
    /// `[1, rows]`, to sum rows by a product.
    ones: Tensor,
}

impl Gather {
    fn new(engine: &Reference, rows: usize, indices: Vec<u32>, from: usize) -> Result<Self> {
        if indices.len() >= NOWHERE as usize || from >= NOWHERE as usize {
            candle_core::bail!("a window reads {} values of maps of {from}: too many", indices.len());
        }
        let length = indices.len();
        let indices = Tensor::from_vec(indices, length, &Device::Cpu)?.to_device(&engine.device)?;
        Ok(Self { indices, rows, from, ones: engine.tensor(&vec![1.0; rows], &[1, rows])? })
    }

    /// Maps `[..]`, flattened to `[N, from]`, to `[N, rows * length]`.
    pub(super) fn apply(&self, maps: &Tensor) -> Result<Tensor> {
        maps.contiguous()?.reshape(((), self.from))?.index_select(&self.indices, 1)
    }

    /// As [`Gather::apply`], with rows added up: `[N, length]`.
    pub(super) fn apply_sum(&self, maps: &Tensor) -> Result<Tensor> {
        let rows = self.apply(maps)?;
        if self.rows == 1 {
            return Ok(rows);
        }
        // A product, because a reduction on a GPU spends a block of threads on each sum.
        let maps = rows.dim(0)?;
        weighted(&self.ones.broadcast_as((maps, 1, self.rows))?, &rows)
    }
}

/// `weights [N,1,R]` times the rows of `[N, R * length]`, added up: `[N, length]`.
pub(super) fn weighted(weights: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let (maps, _, count) = weights.dims3()?;
    weights.matmul(&rows.reshape((maps, count, ()))?)?.squeeze(1)
}
