//! Convolutions and dense layers: which way of computing fits which layer. Weights get no gradient.

use super::depthwise::{self, Depthwise};
use super::direct::{Direct, Filters};
use super::finish::Finish;
use super::pointwise::Pointwise;
use super::sides::OCTET;
use super::winograd::{self, Size, Winograd};
use super::{Ahead, Back, Banded, Heading, Kernel, Layout, Site};
use crate::network::{self, Array, Shape};

/// A convolution, forward and backward.
pub(super) struct Conv {
    forward: Direction,
    backward: Direction,
    bias: Option<Array>,
    /// Whether every group's channels begin a byte of sides.
    octets: bool,
}

/// How one direction is computed.
enum Direction {
    Pointwise(Pointwise),
    Winograd(Winograd),
    Depthwise(Depthwise),
    Direct(Direct),
}

/// A way to compute a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(super) enum Method {
    /// Multiply-adds as they are written.
    Direct,
    /// Winograd's minimal filtering.
    Winograd(Size),
}

impl Method {
    /// Those that a convolution can be computed by; all give the same values within f32's precision.
    pub(super) fn all(conv: &network::Conv) -> Vec<Self> {
        let sizes = if depthwise::fits(conv) { &[] } else { winograd::sizes(conv) };
        sizes.iter().map(|&size| Self::Winograd(size)).chain([Self::Direct]).collect()
    }

    /// The likely fastest without a measurement, for maps of these heights and widths before and behind the convolution.
    pub(super) fn estimate(conv: &network::Conv, heading: Heading, [inside, outside]: [[usize; 2]; 2]) -> Self {
        if depthwise::fits(conv) {
            return Self::Direct;
        }
        winograd::estimate(conv, heading, inside, outside).map_or(Self::Direct, Self::Winograd)
    }
}

impl Conv {
    pub(super) fn new(
        conv: &network::Conv,
        input: &Shape,
        output: &Shape,
        layout: Layout,
        [ahead, back]: [Method; 2],
    ) -> Self {
        let (inside, outside) = ([input[1], input[2]], [output[1], output[2]]);
        let filters = Filters::new(conv);
        let (forward, backward) = if depthwise::fits(conv) {
            let forward = Depthwise::forward(conv, outside, layout);
            (Direction::Depthwise(forward), Direction::Depthwise(Depthwise::backward(conv, inside, layout)))
        } else if is_pointwise(conv) {
            let (from, to) = (filters.inputs, filters.outputs);
            let forward = Pointwise::new(from, to, layout, |c, line| {
                line.iter_mut().enumerate().for_each(|(o, value)| *value = filters.weight(0, o, c, 0));
            });
            let backward = Pointwise::new(to, from, layout, |o, line| {
                line.iter_mut().enumerate().for_each(|(c, value)| *value = filters.weight(0, o, c, 0));
            });
            (Direction::Pointwise(forward), Direction::Pointwise(backward))
        } else {
            let forward = match ahead {
                Method::Direct => None,
                Method::Winograd(size) => Winograd::forward(conv, size, layout).map(Direction::Winograd),
            };
            let backward = match back {
                Method::Direct => None,
                Method::Winograd(size) => Winograd::backward(conv, size, layout).map(Direction::Winograd),
            };
            let direct = || Direction::Direct(Direct::forward(conv, inside, outside, layout));
            let forward = forward.unwrap_or_else(direct);
            let direct = || Direction::Direct(Direct::backward(conv, inside, outside, layout));
            (forward, backward.unwrap_or_else(direct))
        };
        let octets = conv.groups == 1 || depthwise::fits(conv) || filters.outputs.is_multiple_of(OCTET);
        Self { forward, backward, bias: conv.bias.clone(), octets }
    }
}

/// Whether pixels of both maps correspond one to one.
fn is_pointwise(conv: &network::Conv) -> bool {
    let window = &conv.window;
    conv.groups == 1 && window.kernel == [1, 1] && window.stride == [1, 1] && window.padding.is_none()
}

impl Direction {
    fn run(&self, site: &Site<'_>, source: super::Map, finish: &Finish<'_>) {
        match self {
            Self::Pointwise(pointwise) => pointwise.run(site, source, finish),
            Self::Winograd(winograd) => winograd.run(site, source, finish),
            Self::Depthwise(depthwise) => depthwise.run(site, source, finish),
            Self::Direct(direct) => direct.run(site, source, finish),
        }
    }

    fn bands(&self) -> Option<&dyn Banded> {
        match self {
            Self::Pointwise(pointwise) => Some(pointwise),
            Self::Depthwise(depthwise) => Some(depthwise),
            Self::Direct(direct) => Some(direct),
            Self::Winograd(_) => None,
        }
    }

    /// Bytes of the weights.
    fn bytes(&self) -> usize {
        match self {
            Self::Pointwise(pointwise) => pointwise.bytes(),
            Self::Winograd(winograd) => winograd.bytes(),
            Self::Depthwise(depthwise) => depthwise.bytes(),
            Self::Direct(direct) => direct.bytes(),
        }
    }

    fn scratch(&self) -> usize {
        match self {
            Self::Pointwise(_) => Pointwise::scratch(),
            Self::Winograd(winograd) => winograd.scratch(),
            Self::Depthwise(_) => 0,
            Self::Direct(direct) => direct.scratch(),
        }
    }

    fn shared(&self, images: usize, size: [usize; 2], threads: usize) -> usize {
        if let Self::Winograd(winograd) = self { winograd.shared(images, size, threads) } else { 0 }
    }
}

impl Kernel for Conv {
    /// Sides of an activation share bytes, which two groups must not.
    fn finishes(&self) -> bool {
        self.octets
    }

    fn weights(&self) -> usize {
        self.forward.bytes() + self.backward.bytes()
    }

    fn scratch(&self) -> usize {
        self.forward.scratch().max(self.backward.scratch())
    }

    fn shared(&self, images: usize, [inside, outside]: [[usize; 2]; 2], threads: usize) -> usize {
        self.forward.shared(images, outside, threads).max(self.backward.shared(images, inside, threads))
    }

    fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Array::data)
    }

    fn bands(&self, heading: Heading) -> Option<&dyn Banded> {
        match heading {
            Heading::Forward => self.forward.bands(),
            Heading::Backward => self.backward.bands(),
        }
    }

    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        self.forward.run(site, view.inputs[0], finish);
    }

    fn backward(&self, site: &Site<'_>, _: usize, view: &Back<'_>, finish: &Finish<'_>) {
        match &self.backward {
            Direction::Pointwise(pointwise) => pointwise.run_gradient(site, view.gradient, finish),
            other => other.run(site, view.gradient, finish),
        }
    }
}

/// A dense layer of a vector.
pub(super) struct Dense {
    forward: Pointwise,
    /// `[O, I]`.
    weight: Array,
    bias: Option<Array>,
}

impl Dense {
    pub(super) fn new(weight: &Array, bias: Option<&Array>, layout: Layout) -> Self {
        let (out, features) = (weight.shape()[0], weight.shape()[1]);
        let forward = Pointwise::new(features, out, layout, |i, line| {
            line.iter_mut().enumerate().for_each(|(o, value)| *value = weight.data()[o * features + i]);
        });
        Self { forward, weight: weight.clone(), bias: bias.cloned() }
    }
}

impl Kernel for Dense {
    fn weights(&self) -> usize {
        self.forward.bytes()
    }

    fn scratch(&self) -> usize {
        Pointwise::scratch()
    }

    fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Array::data)
    }

    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        self.forward.run(site, view.inputs[0], finish);
    }

    fn backward(&self, site: &Site<'_>, _: usize, view: &Back<'_>, finish: &Finish<'_>) {
        super::dense::backward(site, self.weight.data(), view.gradient, finish);
    }
}
