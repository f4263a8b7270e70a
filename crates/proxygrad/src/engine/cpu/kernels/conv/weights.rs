//! Weights of a convolution by group, as the algorithms read them before packing.

use crate::network;

/// Maximum number of channels for which the phases of a strided convolution share one matrix product, as pixel blocks.
pub(crate) const SCATTER_CHANNELS: usize = 4;

/// Weights `[O, C/groups, kh, kw]` of a convolution, by group.
pub(crate) struct ConvWeights<'a> {
    data: &'a [f32],
    /// Input channels per group.
    pub(crate) inputs: usize,
    /// Output channels per group.
    pub(crate) outputs: usize,
    window: usize,
}

impl<'a> ConvWeights<'a> {
    pub(crate) fn new(conv: &'a network::Conv) -> Self {
        let window = conv.window.kernel[0] * conv.window.kernel[1];
        let (inputs, outputs) = (conv.in_channels() / conv.groups, conv.out_channels() / conv.groups);
        Self { data: conv.weight.data(), inputs, outputs, window }
    }

    pub(crate) fn weight(&self, group: usize, output: usize, input: usize, tap: usize) -> f32 {
        self.data[((group * self.outputs + output) * self.inputs + input) * self.window + tap]
    }
}
