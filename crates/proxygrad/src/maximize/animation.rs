//! Animated PNG of a run.

use png::{BitDepth, ColorType, Encoder, EncodingError};
use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Invalid;
use crate::maximize::image8::Image8;

/// An animated PNG of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Animation {
    /// Number of frames: iterates evenly spaced over the run, from the start to the stimulus. At most the number of
    /// steps plus one.
    #[serde(default = "default_frames")]
    #[cfg_attr(feature = "openapi", schema(minimum = 2, maximum = 128))]
    pub frames: u32,
}

fn default_frames() -> u32 {
    32
}

impl Default for Animation {
    fn default() -> Self {
        Self { frames: default_frames() }
    }
}

/// Largest number of frames of an animation.
const MOST_FRAMES: u32 = 128;
/// Largest number of pixels of the frames of all stimuli of one request.
const MOST_PIXELS: u64 = 8 << 20;

/// How long a frame is shown, in seconds: numerator and denominator. The last frame is shown longer.
const DELAY: (u16, u16) = (1, 12);
const LAST_DELAY: (u16, u16) = (2, 1);

impl Animation {
    /// Limits the frames to `steps` plus one, and checks the total size of the animations of `stimuli` images of height
    /// and width `size`.
    ///
    /// # Errors
    /// When there are too many frames, or only one.
    pub fn resolve(self, steps: u32, stimuli: usize, [height, width]: [usize; 2]) -> Result<Self, Invalid> {
        if !(2..=MOST_FRAMES).contains(&self.frames) {
            return Err(Invalid::new("frames", self.frames, format!("a whole number from 2 to {MOST_FRAMES}")));
        }
        let frames = self.frames.min(steps.saturating_add(1));
        let pixels = (stimuli as u64).saturating_mul(height as u64).saturating_mul(width as u64);
        if u64::from(frames).saturating_mul(pixels) > MOST_PIXELS {
            let most = MOST_PIXELS / pixels.max(1);
            let expected = format!("at most {MOST_PIXELS} pixels in the frames of all stimuli: here {most} frames");
            return Err(Invalid::new("frames", self.frames, expected));
        }
        Ok(Self { frames })
    }

    /// Whether the image after `done` of `steps` steps is a frame.
    pub(super) fn shows(self, done: u32, steps: u32) -> bool {
        // Frame `k` is the image after `k * steps / (frames - 1)` steps; the last one is the stimulus.
        let (done, steps, last) = (u64::from(done), u64::from(steps.max(1)), u64::from(self.frames - 1));
        let frame = (done * last).div_ceil(steps);
        frame < last && frame * steps / last == done
    }
}

/// An animated PNG of `frames`, all of one size, and the stimulus, all opaque. Readers without support for animations
/// show the stimulus.
pub(super) fn encode(frames: &[Image8], stimulus: &Image8) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, stimulus.width as u32, stimulus.height as u32);
    encoder.set_color(if stimulus.channels == 1 { ColorType::Grayscale } else { ColorType::Rgb });
    encoder.set_depth(BitDepth::Eight);
    encoder.set_animated(frames.len() as u32 + 1, 0)?;
    encoder.set_sep_def_img(true)?;
    encoder.set_frame_delay(DELAY.0, DELAY.1)?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&stimulus.values)?;
    for frame in frames {
        writer.write_image_data(&frame.values)?;
    }
    writer.set_frame_delay(LAST_DELAY.0, LAST_DELAY.1)?;
    writer.write_image_data(&stimulus.values)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};
    use image::AnimationDecoder;

    use super::*;

    #[test]
    fn as_many_frames_are_shown_as_there_should_be() {
        for steps in 1..40 {
            for frames in 2..=50 {
                let animation = Animation { frames }.resolve(steps, 1, [1, 1]).unwrap();
                let shown: Vec<u32> = (0..steps).filter(|&done| animation.shows(done, steps)).collect();
                assert_eq!(shown.len() as u32 + 1, animation.frames, "{frames} frames of {steps} steps: {shown:?}");
                assert_eq!(shown[0], 0, "the start is shown");
            }
        }
        let quarters = Animation { frames: 5 };
        assert_eq!((0..100).filter(|&done| quarters.shows(done, 100)).collect::<Vec<_>>(), [0, 25, 50, 75]);
    }

    #[test]
    fn too_many_frames_are_refused() {
        let resolve = |frames, stimuli, size| Animation { frames }.resolve(4096, stimuli, size);
        assert!(resolve(128, 1, [256, 256]).is_ok());
        for (frames, stimuli, size) in [(0, 1, [8, 8]), (1, 1, [8, 8]), (129, 1, [8, 8]), (128, 2, [256, 256])] {
            assert_eq!(resolve(frames, stimuli, size).unwrap_err().field, "frames", "{frames} of {size:?}");
        }
        assert!(resolve(2, usize::MAX, [usize::MAX; 2]).is_err());
    }

    #[test]
    fn an_animation_holds_its_frames_and_shows_the_stimulus_to_those_who_see_no_animations() {
        for channels in [1, 3] {
            let image = |value: u8| {
                let pixels = Tensor::full(f32::from(value) / 255.0, (channels, 2, 3), &Device::Cpu);
                Image8::round(&pixels.unwrap()).unwrap()
            };
            let bytes = encode(&[image(1), image(2)], &image(3)).unwrap();
            assert_eq!(image::load_from_memory(&bytes).unwrap().to_rgb8().get_pixel(0, 0).0, [3; 3]);
            let decoder = image::codecs::png::PngDecoder::new(std::io::Cursor::new(&bytes)).unwrap();
            let frames = decoder.apng().unwrap().into_frames().collect_frames().unwrap();
            let levels: Vec<u8> = frames.iter().map(|frame| frame.buffer().get_pixel(2, 1).0[0]).collect();
            assert_eq!(levels, [1, 2, 3]);
            let seconds: Vec<f64> = frames
                .iter()
                .map(|frame| {
                    let (numerator, denominator) = frame.delay().numer_denom_ms();
                    f64::from(numerator) / f64::from(denominator) / 1000.0
                })
                .collect();
            assert!((seconds[0] - 1.0 / 12.0).abs() < 0.001 && seconds[2] == 2.0, "{seconds:?}");
        }
    }
}
