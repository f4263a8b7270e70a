//! Judges: networks that took no part in making a stimulus, and what they see in it.
//!
//! A judge is shown the delivered PNG at its own input size, by the same path as calibration images. Of a class it tells
//! the rank and the probability; of any calibrated unit, whether the stimulus resembles the natural images that activate
//! the unit most. One judge is in memory at a time, and sees one image at a time, so that a verdict depends on nothing
//! else.

mod class;
mod features;
mod natural;
mod panel;
mod verdict;
mod viewer;

pub use class::class_of;
pub use panel::{JudgeError, MAX_JUDGES, Panel, Stimulus};
pub use verdict::{JudgeRef, Verdict};
pub use viewer::memory_needed;
