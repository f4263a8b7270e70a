//! Operations that are written plainly on slices, one image at a time.
#![expect(unsafe_code, reason = "slices of maps")]

use super::elementwise::{Copied, Pixels};
use super::finish::Finish;
use super::map::Map;
use super::{Ahead, Back, Kernel, Needs, Site};

/// An operation on the values of one image, see [`layout`](super::layout) for their order.
pub(super) trait Simple: Send + Sync {
    /// Fills `output`.
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]);

    /// Adds the gradient with respect to input `i` to `sink`.
    fn backward(&self, i: usize, inputs: &[&[f32]], output: &[f32], gradient: &[f32], sink: &mut [f32]);

    /// What [`Simple::backward`] looks at.
    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// A simple operation as a kernel.
pub(super) struct Plain<T>(pub(super) T);

impl<T: Simple> Kernel for Plain<T> {
    fn finishes(&self) -> bool {
        false
    }

    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn forward(&self, site: &Site<'_>, view: &Ahead<'_>, finish: &Finish<'_>) {
        assert!(finish.to.is_dense() && view.inputs.iter().all(Map::is_dense));
        site.member.each(finish.to.images, |image| {
            // SAFETY: dense maps; inputs are only read in this step; each image of the output is one piece.
            let (inputs, output) = unsafe { (images(view.inputs, image), finish.to.image_mut(image)) };
            self.0.forward(&inputs, output);
        });
    }

    fn backward(&self, site: &Site<'_>, input: usize, view: &Back<'_>, finish: &Finish<'_>) {
        let to = finish.to;
        assert!(to.is_dense() && view.gradient.is_dense() && finish.add.is_none_or(|add| add.is_dense()));
        site.member.each(to.images, |image| {
            // SAFETY: dense maps; all but `to` are only read in this step; each of its images is one piece. Where the
            // sums so far stand in `to` itself they are not borrowed a second time.
            unsafe {
                let sink = to.image_mut(image);
                match finish.add {
                    Some(add) if add.data == to.data => {}
                    Some(add) => sink.copy_from_slice(add.image(image)),
                    None => sink.fill(0.0),
                }
                // What is not looked at may no longer be there.
                let needs = self.0.needs();
                let inputs = if needs.inputs { images(view.inputs, image) } else { vec![&[][..]; view.inputs.len()] };
                let output = if needs.output { view.output.image(image) } else { &[] };
                self.0.backward(input, &inputs, output, view.gradient.image(image), sink);
                let pixels = [image * to.size(), (image + 1) * to.size()];
                site.instructions.run(Pixels { finish: &Finish { add: None, ..*finish }, f: Copied(to), pixels });
            }
        });
    }
}

/// # Safety
/// As [`Map::image`].
unsafe fn images(maps: &[Map], image: usize) -> Vec<&[f32]> {
    // SAFETY: the caller's.
    maps.iter().map(|map| unsafe { map.image(image) }).collect()
}
