//! Task: one stimulus to find.

use crate::maximize::objective::Objective;
use crate::maximize::reference_image::ReferenceImages;

/// One stimulus to find.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The objective.
    pub objective: Objective,
    /// Seed of its start and its transforms.
    pub seed: u64,
    /// Random stream of the seed: the index of the stimulus in its request.
    pub stream: u64,
    /// Diversity group: with diversity, the similarity of stimuli of one group is penalized.
    pub group: u64,
    /// Reference images of the objective and the start.
    pub reference_images: ReferenceImages,
}

impl Task {
    /// The task of stimulus number `stimulus` of a request with `copies` stimuli per objective: a random stream per
    /// stimulus, a diversity group per objective.
    pub fn new(
        objective: Objective,
        seed: u64,
        stimulus: u64,
        copies: usize,
        reference_images: ReferenceImages,
    ) -> Self {
        Self { objective, seed, stream: stimulus, group: stimulus / copies.max(1) as u64, reference_images }
    }

    /// The same task in a batch of several requests, whose groups are kept apart: no request has 2^32 stimuli.
    #[must_use]
    pub fn of_request(self, request: usize) -> Self {
        Self { group: ((request as u64) << 32) + self.group, ..self }
    }

    /// The same objective as if it were the only one of a request with this seed, in a batch of such requests.
    #[must_use]
    pub fn alone(self, seed: u64, request: usize) -> Self {
        Self { seed, stream: 0, group: request as u64, ..self }
    }
}
