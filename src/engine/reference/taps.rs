//! Windows as taps: every tap of a sliding window is a shifted, strided view of the padded map.

use candle_core::{Result, Tensor};

use crate::network::Window;

/// A window over maps of one size, as views and back.
///
/// With stride `s` the padded map is split into `s x s` phases (every `s`-th row and column), in which each tap is a
/// dense rectangle.
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

    /// Height and width of the output.
    pub(super) fn output(&self) -> [usize; 2] {
        self.output
    }

    /// Number of taps.
    pub(super) fn count(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1]
    }

    /// Whether the only tap is the map itself.
    pub(super) fn is_pointwise(&self) -> bool {
        self.window.kernel == [1, 1] && self.window.stride == [1, 1] && self.window.padding.is_none()
    }

    /// Length of an axis of one phase: room for every output position of the farthest tap, and for the padded map.
    fn phase(&self, i: usize) -> usize {
        let stride = self.window.stride[i];
        let padded = self.window.before()[i] + self.input[i] + self.window.after()[i];
        let reach = (self.window.kernel[i] - 1) * self.window.dilation[i] / stride + self.output[i];
        padded.div_ceil(stride).max(reach)
    }

    /// Phase and offset inside the phase of tap `k` along axis `i`.
    fn place(&self, i: usize, k: usize) -> (usize, usize) {
        let position = k * self.window.dilation[i];
        (position % self.window.stride[i], position / self.window.stride[i])
    }

    /// Taps in row-major order, each `[N,C,OH,OW]`; the border holds `border`.
    pub(super) fn views(&self, x: &Tensor, border: f64) -> Result<Vec<Tensor>> {
        let (n, c, ..) = x.dims4()?;
        let [sy, sx] = self.window.stride;
        let (ph, pw) = (self.phase(0), self.phase(1));
        let padded = pad(x, 2, self.window.padding.top, ph * sy, border)?;
        let padded = pad(&padded, 3, self.window.padding.left, pw * sx, border)?;
        let phases = if [sy, sx] == [1, 1] {
            padded.reshape((1, 1, n, c, ph, pw))?
        } else {
            padded.reshape(vec![n, c, ph, sy, pw, sx])?.permute(vec![3, 5, 0, 1, 2, 4])?.contiguous()?
        };
        let mut views = Vec::with_capacity(self.count());
        for ky in 0..self.window.kernel[0] {
            for kx in 0..self.window.kernel[1] {
                let ((ry, qy), (rx, qx)) = (self.place(0, ky), self.place(1, kx));
                let phase = phases.get(ry)?.get(rx)?;
                views.push(phase.narrow(2, qy, self.output[0])?.narrow(3, qx, self.output[1])?);
            }
        }
        Ok(views)
    }

    /// The adjoint of [`Taps::views`]: adds every tap `[N,C,OH,OW]` back to where it came from, `[N,C,H,W]`.
    pub(super) fn fold(&self, taps: &[Tensor]) -> Result<Tensor> {
        let [sy, sx] = self.window.stride;
        let (ph, pw) = (self.phase(0), self.phase(1));
        let mut phases: Vec<Option<Tensor>> = vec![None; sy * sx];
        for (k, tap) in taps.iter().enumerate() {
            let (ky, kx) = (k / self.window.kernel[1], k % self.window.kernel[1]);
            let ((ry, qy), (rx, qx)) = (self.place(0, ky), self.place(1, kx));
            let placed = pad(&pad(tap, 2, qy, ph, 0.0)?, 3, qx, pw, 0.0)?;
            super::accumulate(&mut phases[ry * sx + rx], placed)?;
        }
        let (n, c, ..) = taps[0].dims4()?;
        let zeros = Tensor::zeros((n, c, ph, pw), taps[0].dtype(), taps[0].device())?;
        let phases: Vec<Tensor> = phases.into_iter().map(|phase| phase.unwrap_or_else(|| zeros.clone())).collect();
        let padded = if phases.len() == 1 {
            phases[0].clone()
        } else {
            let stacked = Tensor::stack(&phases, 0)?.reshape(vec![sy, sx, n, c, ph, pw])?;
            stacked.permute(vec![2, 3, 4, 0, 5, 1])?.contiguous()?.reshape((n, c, ph * sy, pw * sx))?
        };
        let padding = self.window.padding;
        padded.narrow(2, padding.top, self.input[0])?.narrow(3, padding.left, self.input[1])?.contiguous()
    }
}

/// Brings axis `dim` to `length` by `before` border values in front and the rest behind.
fn pad(x: &Tensor, dim: usize, before: usize, length: usize, border: f64) -> Result<Tensor> {
    let inside = x.dim(dim)?;
    let after = length - before - inside;
    if before == 0 && after == 0 {
        return x.contiguous();
    }
    if border == 0.0 {
        return x.pad_with_zeros(dim, before, after)?.contiguous();
    }
    let edge = |size: usize| {
        let mut shape = x.dims().to_vec();
        shape[dim] = size;
        Tensor::full(border as f32, shape, x.device())?.to_dtype(x.dtype())
    };
    Tensor::cat(&[&edge(before)?, x, &edge(after)?], dim)
}
