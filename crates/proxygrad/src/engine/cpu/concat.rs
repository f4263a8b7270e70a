//! Maps joined channel by channel.
#![expect(unsafe_code, reason = "slices of maps")]

use super::elementwise::{Copied, for_each_vector};
use super::finish::Finish;
use super::sides::OCTET;
use super::{Ahead, Back, Kernel, Site};
use crate::network::Shape;

/// Copies every input to its channels.
pub(super) struct JoinedChannels {
    first: Vec<usize>,
}

impl JoinedChannels {
    pub(super) fn new(inputs: &[&Shape]) -> Self {
        let mut next = 0;
        let first = |shape: &&Shape| {
            let first = next;
            next += shape.channels();
            first
        };
        Self { first: inputs.iter().map(first).collect() }
    }
}

impl Kernel for JoinedChannels {
    fn joins_channels(&self) -> Option<&[usize]> {
        self.finishes().then_some(&self.first)
    }

    /// Sides of an activation share bytes.
    fn finishes(&self) -> bool {
        self.first.iter().all(|first| first.is_multiple_of(OCTET))
    }

    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        for (&input, &first) in view.inputs.iter().zip(&self.first) {
            // SAFETY: the output has the channels of all inputs; the input has the slice's shape.
            unsafe { for_each_vector(site, &finish.slice(first, input.channels), Copied(input)) };
        }
    }

    fn backward(&self, site: &Site<'_>, input: usize, view: &Back<'_>, finish: &Finish<'_>) {
        // SAFETY: the gradient has the channels of all inputs; the slice has the sink's shape.
        unsafe {
            let slice = view.gradient.slice(self.first[input], finish.to.channels);
            for_each_vector(site, finish, Copied(slice));
        }
    }
}
