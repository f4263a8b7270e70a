//! Decomposition of a strided convolution into kernels of stride 1.
//!
//! Every second row and column of a map form one of its four phases. A convolution of stride 2 is a sum of convolutions
//! of stride 1, one per phase of its input; backward, each phase of the input's gradient is a convolution of stride 1
//! of the output's gradient. With stride 1 there is one phase.

use crate::engine::cpu::kernel::Direction;
use crate::engine::cpu::kernels::conv::weights::SCATTER_CHANNELS;
use crate::engine::cpu::kernels::conv::winograd::transforms::TileSize;
use crate::network;
use crate::network::Window;

/// The kernels of all phases. They have the same size, but some taps may be missing.
pub(crate) struct Phases {
    /// Rows, and columns, from one pixel of a phase to the next.
    pub(crate) stride: usize,
    /// Taps along each axis.
    pub(crate) taps: usize,
    /// Row and column of the first tap, relative to the output pixel.
    pub(crate) start: [isize; 2],
    /// Width of the window.
    width: usize,
    /// Position in the window along each axis, for each phase and tap.
    places: [Vec<Vec<Option<usize>>>; 2],
}

impl Phases {
    /// From phases of the input to the output. None if the kernels are not square.
    pub(crate) fn forward(window: &Window) -> Option<Self> {
        Self::new(window, |stride, phase, k, padding| {
            let distance = k - padding;
            (distance.rem_euclid(stride) == phase).then(|| distance.div_euclid(stride))
        })
    }

    /// From the output's gradient to phases of the input's gradient, as [`Phases::forward`].
    pub(crate) fn backward(window: &Window) -> Option<Self> {
        Self::new(window, |stride, phase, k, padding| {
            let distance = phase + padding - k;
            (distance.rem_euclid(stride) == 0).then(|| distance.div_euclid(stride))
        })
    }

    /// `offset` is the offset of a tap, or None if the phase does not have it, from stride, phase, position in the
    /// window and padding.
    fn new(window: &Window, offset: impl Fn(isize, isize, isize, isize) -> Option<isize>) -> Option<Self> {
        let &Window { kernel, stride, dilation: [1, 1], .. } = window else { return None };
        if stride[0] != stride[1] {
            return None;
        }
        let offset = |axis: usize, phase: usize, k: usize| {
            offset(stride[0] as isize, phase as isize, k as isize, window.before()[axis] as isize)
        };
        let ends = |axis: usize| {
            let offsets =
                || (0..stride[0]).flat_map(|phase| (0..kernel[axis]).filter_map(move |k| offset(axis, phase, k)));
            Some((offsets().min()?, offsets().max()?))
        };
        let ends = [ends(0)?, ends(1)?];
        let start = ends.map(|(first, _)| first);
        let taps = ends.map(|(first, last)| (last - first).unsigned_abs() + 1);
        if taps[0] != taps[1] {
            return None;
        }
        let places = [0, 1].map(|axis| {
            let place = |phase: usize, tap: usize| {
                (0..kernel[axis]).find(|&k| offset(axis, phase, k) == Some(start[axis] + tap as isize))
            };
            (0..stride[0]).map(|phase| (0..taps[0]).map(|tap| place(phase, tap)).collect()).collect()
        });
        Some(Self { stride: stride[0], taps: taps[0], start, width: kernel[1], places })
    }

    /// Number of phases.
    pub(crate) fn count(&self) -> usize {
        self.stride * self.stride
    }

    /// Index in the window of a tap of a phase, both row-major; None if the tap is missing.
    pub(crate) fn index(&self, phase: usize, tap: usize) -> Option<usize> {
        let row = self.places[0][phase / self.stride][tap / self.taps]?;
        Some(row * self.width + self.places[1][phase % self.stride][tap % self.taps]?)
    }

    /// Whether a phase's transformed kernel can differ from zero at an element of `side` x `side`. Along each axis the
    /// first element depends on the first tap only, the last on the last tap.
    pub(crate) fn uses(&self, phase: usize, element: usize, side: usize) -> bool {
        let along = |axis: usize, phase: usize, i: usize| {
            let places = &self.places[axis][phase];
            match i {
                0 => places[0].is_some(),
                _ if i == side - 1 => places[self.taps - 1].is_some(),
                _ => places.iter().any(Option::is_some),
            }
        };
        along(0, phase / self.stride, element / side) && along(1, phase % self.stride, element % side)
    }
}

/// The phases of one direction of a convolution, None if Winograd does not apply.
pub(crate) fn phases(conv: &network::Conv, direction: Direction) -> Option<Phases> {
    let window = &conv.window;
    let padding = window.before().into_iter().zip(window.after()).zip(window.kernel);
    let little = padding.into_iter().all(|((before, after), kernel)| before.max(after) < kernel);
    let phases = match direction {
        Direction::Forward => Phases::forward(window),
        Direction::Backward => Phases::backward(window),
    };
    phases.filter(|phases| {
        conv.groups == 1 && little && phases.stride <= 2 && !TileSize::for_taps(phases.taps).is_empty()
    })
}

/// Whether the phases of a strided window share one product, as pixel blocks.
pub(crate) fn is_scattered(phases: &Phases, channels: usize) -> bool {
    phases.stride > 1 && channels <= SCATTER_CHANNELS
}

/// The elements where a phase's kernels are not zero, one bit each.
pub(crate) fn used(phases: &Phases, phase: usize, size: TileSize) -> u64 {
    (0..size.elements()).filter(|&e| phases.uses(phase, e, size.input())).map(|e| 1 << e).sum()
}
