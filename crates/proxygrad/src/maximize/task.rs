//! Task: one stimulus to find.

use crate::maximize::objective::Objective;
use crate::maximize::reference_image::ReferenceImages;

/// One stimulus to find.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What it maximizes.
    pub objective: Objective,
    /// Seed of its start and its transforms.
    pub seed: u64,
    /// Tells stimuli of one seed apart: the stimulus' index in its request.
    pub stream: u64,
    /// Tasks with one number are kept unlike each other, where the settings ask for diversity.
    pub group: u64,
    /// The images that its objective and the settings name.
    pub reference_images: ReferenceImages,
}
