//! Application of sampled transforms to a batch of images, and the adjoint.
//!
//! Every image has its own view, a chain of affine maps. On the host, loops take each image through its whole chain; on
//! other devices, each map is applied to the whole batch by tensor operations.

#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};
use rand::Rng;

use super::blur::Blur;
use super::document::Transform;
use super::linear::Linear;
use super::sampled::SampledTransform;
use super::{colour, noise, pad, roll, sampled, sampling, tensors};
use crate::maximize::ops::Arithmetic;
use crate::maximize::ops::host;
use crate::maximize::ops::host::{Real, for_type_of};

/// One drawn view for every image of a batch.
#[derive(Debug)]
pub(in crate::maximize) struct Views {
    /// Height and width of the images.
    size: [usize; 2],
    /// The sampled transforms in order of application.
    sampled: Vec<SampledTransform>,
    arithmetic: Arithmetic,
}

/// A map of one image's chain that works plane by plane.
#[derive(Clone, Copy)]
enum Map<'a> {
    Roll([i32; 2]),
    Blur(&'a Blur),
    Pad { margin: usize, grey: bool },
    Cut { margin: usize },
    Noise { sd: f32, seed: u64 },
}

impl SampledTransform {
    fn map(&self, image: usize) -> Option<Map<'_>> {
        match self {
            Self::Roll(shifts) => shifts[image].map(Map::Roll),
            Self::Blur(blur, on) => on[image].then_some(Map::Blur(blur)),
            Self::Pad { margin, grey } => Some(Map::Pad { margin: *margin, grey: grey[image] }),
            Self::Cut { margin } => Some(Map::Cut { margin: *margin }),
            Self::Noise { sd, seeds } => seeds[image].map(|seed| Map::Noise { sd: *sd, seed }),
            Self::Sample(_) | Self::Colour(_) => None,
        }
    }
}

/// Consecutive transforms that run together: one that reads all planes of an image, or any number of plane-wise ones.
struct Section<'a> {
    sampled: &'a [SampledTransform],
    /// Height and width of the input.
    from: [usize; 2],
    /// Height and width of the output.
    to: [usize; 2],
}

impl Views {
    /// Samples a view for an image of height and width `size` from each stream.
    pub(in crate::maximize) fn draw<'a, R: Rng + 'a>(
        transforms: &[Transform],
        streams: impl IntoIterator<Item = &'a mut R>,
        size: [usize; 2],
        arithmetic: Arithmetic,
    ) -> Self {
        Self { size, sampled: sampled::draw(transforms, streams, size), arithmetic }
    }

    /// The views of `images` `[N,C,H,W]`.
    pub(in crate::maximize) fn apply(&self, images: &Tensor) -> Result<Tensor> {
        match self.arithmetic {
            Arithmetic::Host => self.sections().iter().try_fold(images.clone(), |x, section| section.run(&x, false)),
            Arithmetic::Device => {
                self.sampled.iter().try_fold(images.clone(), |x, transform| tensors::apply(transform, &x))
            }
        }
    }

    /// The adjoint: from gradients with respect to the views to gradients with respect to the images.
    pub(in crate::maximize) fn adjoint(&self, gradients: &Tensor) -> Result<Tensor> {
        let gradients = gradients.clone();
        match self.arithmetic {
            Arithmetic::Host => self.sections().iter().rev().try_fold(gradients, |g, section| section.run(&g, true)),
            Arithmetic::Device => {
                self.sampled.iter().rev().try_fold(gradients, |g, transform| tensors::adjoint(transform, &g))
            }
        }
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let mut from = self.size;
        let sections = self.sampled.chunk_by(|a, b| !a.takes_images() && !b.takes_images()).map(|sampled| {
            let section =
                Section { sampled, from, to: sampled.iter().fold(from, |size, transform| transform.grown(size)) };
            from = section.to;
            section
        });
        sections.collect()
    }
}

impl Section<'_> {
    /// Runs every image through its part of the chain, or through the adjoint.
    fn run(&self, batch: &Tensor, backwards: bool) -> Result<Tensor> {
        match self.sampled {
            [SampledTransform::Colour(colours)] => for_type_of!(batch, T => colour_all::<T>(colours, batch, backwards)),
            [SampledTransform::Sample(linears)] => {
                for_type_of!(batch, T => self.sample_all::<T>(linears, batch, backwards))
            }
            _ => for_type_of!(batch, T => self.run_planes::<T>(batch, backwards)),
        }
    }

    /// Plane by plane, so that a plane and its intermediate results stay in a core's cache.
    fn run_planes<T: Real>(&self, batch: &Tensor, backwards: bool) -> Result<Tensor> {
        let [images, channels, area] = host::planes(batch)?;
        let [height, width] = if backwards { self.from } else { self.to };
        host::fill::<T>(batch, &[images, channels, height, width], height * width, |plane, values, result| {
            let chain = self.chain(plane / channels, backwards);
            let source = &values[plane * area..][..area];
            follow(&chain, source, result, |step, from, to| step.run(plane % channels, backwards, from, to));
        })
    }

    fn sample_all<T: Real>(&self, linears: &[Option<Linear>], batch: &Tensor, backwards: bool) -> Result<Tensor> {
        each_image::<T>(batch, |image, source, result| match (linears[image], backwards) {
            (Some(linear), false) => sampling::apply(linear, self.from, source, result),
            (Some(linear), true) => sampling::adjoint(linear, self.from, source, result),
            (None, _) => result.copy_from_slice(source),
        })
    }

    /// The maps of one image, in order of execution.
    fn chain(&self, image: usize, backwards: bool) -> Vec<Step<'_>> {
        let mut size = self.from;
        let steps = self.sampled.iter().filter_map(|transform| {
            let from = size;
            size = transform.grown(from);
            let step = Step { map: transform.map(image)?, from, to: size };
            // An added constant has no derivative.
            (!backwards || !matches!(step.map, Map::Noise { .. })).then_some(step)
        });
        let mut chain: Vec<Step<'_>> = steps.collect();
        if backwards {
            chain.reverse();
            chain.iter_mut().for_each(|step| (step.from, step.to) = (step.to, step.from));
        }
        chain
    }
}

fn colour_all<T: Real>(colours: &[Option<colour::Colour>], batch: &Tensor, backwards: bool) -> Result<Tensor> {
    let [_, channels, _] = host::planes(batch)?;
    each_image::<T>(batch, |image, source, result| match colours[image] {
        Some(colour) => colour.run(channels, backwards, source, result),
        None => result.copy_from_slice(source),
    })
}

/// Calls `f` with the index of every image, its values, and its output.
fn each_image<T: Real>(batch: &Tensor, f: impl Fn(usize, &[T], &mut [T]) + Send + Sync) -> Result<Tensor> {
    let [_, channels, area] = host::planes(batch)?;
    let size = channels * area;
    host::fill_like::<T>(batch, size, |image, values, result| f(image, &values[image * size..][..size], result))
}

/// A map of one image's chain, with its input and output sizes.
struct Step<'a> {
    map: Map<'a>,
    /// Height and width of the input plane (backwards, of the gradient).
    from: [usize; 2],
    /// Height and width of the output plane.
    to: [usize; 2],
}

impl Step<'_> {
    /// Maps a plane, or backpropagates its gradient.
    fn run<T: Real>(&self, channel: usize, backwards: bool, from: &[T], to: &mut [T]) {
        match (self.map, backwards) {
            (Map::Roll(shift), false) => roll::roll(shift, self.from, from, to),
            (Map::Roll(shift), true) => roll::roll(shift.map(|s| -s), self.from, from, to),
            (Map::Blur(blur), false) => blur.apply(from, to),
            (Map::Blur(blur), true) => blur.adjoint(from, to),
            (Map::Pad { margin, grey }, false) => pad::pad(margin, grey, self.from, from, to),
            (Map::Pad { margin, grey }, true) => pad::adjoint(margin, grey, self.to, from, to),
            (Map::Cut { margin }, false) => pad::cut(margin, self.to, from, to),
            (Map::Cut { margin }, true) => pad::uncut(margin, self.from, from, to),
            (Map::Noise { sd, seed }, _) => {
                let mut noise = vec![0.0; to.len()];
                noise::fill(seed, channel, sd, &mut noise);
                to.iter_mut().zip(from).zip(noise).for_each(|((y, &x), e)| *y = x + T::from_f64(f64::from(e)));
            }
        }
    }
}

/// Runs `source` through a chain into `result`.
fn follow<T: Real>(chain: &[Step<'_>], source: &[T], result: &mut [T], run: impl Fn(&Step<'_>, &[T], &mut [T])) {
    let area = |[height, width]: [usize; 2]| height * width;
    let Some((last, rest)) = chain.split_last() else { return result.copy_from_slice(source) };
    let Some((first, between)) = rest.split_first() else { return run(last, source, result) };
    let longest = rest.iter().map(|step| area(step.to)).max().unwrap_or(0);
    let mut here = vec![T::zero(); longest];
    let mut there = vec![T::zero(); if between.is_empty() { 0 } else { longest }];
    run(first, source, &mut here[..area(first.to)]);
    for step in between {
        run(step, &here[..area(step.from)], &mut there[..area(step.to)]);
        std::mem::swap(&mut here, &mut there);
    }
    run(last, &here[..area(last.from)], result);
}
