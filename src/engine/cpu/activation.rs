//! Activations and their gates: fast paths for the piecewise linear ones, the f64 definitions for the others.

use rayon::prelude::*;

use super::layout::strides;
use super::{Kernel, Pass, View};
use crate::engine::{Forward, Gate};
use crate::network::{Activation, Shape};

/// Values that one thread takes at a time.
const CHUNK: usize = 16 * 1024;

/// An activation with its gates.
pub(super) struct Activated {
    activation: Activation,
    channels: usize,
    /// Values between two neighbouring channels.
    stride: usize,
}

impl Activated {
    pub(super) fn new(activation: &Activation, input: &Shape) -> Self {
        let stride = strides(input).first().copied().unwrap_or(1);
        Self { activation: activation.clone(), channels: input.channels().max(1), stride }
    }

    /// Range in which a ReLU or clip is linear, when it is one.
    fn linear_range(&self) -> Option<(f32, f32)> {
        match self.activation {
            Activation::Relu => Some((0.0, f32::INFINITY)),
            Activation::Clip { min, max } => Some((min, max)),
            _ => None,
        }
    }

    fn channel(&self, at: usize) -> usize {
        at / self.stride % self.channels
    }
}

impl Kernel for Activated {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32], _: &mut Vec<u8>, pass: Pass) {
        let z = inputs[0];
        match (pass.forward, self.linear_range()) {
            (Forward::Original, Some((low, high))) => map(output, z, pass.spread, |_, z| z.max(low).min(high)),
            (Forward::Proxy { slope }, Some((low, high))) => map(output, z, pass.spread, |_, z| {
                let inside = z.max(low).min(high);
                inside + slope * (z - inside)
            }),
            (Forward::Original, None) => {
                map(output, z, pass.spread, |at, z| self.activation.value(f64::from(z), self.channel(at)) as f32)
            }
            (Forward::Proxy { slope }, None) => map(output, z, pass.spread, |at, z| {
                self.activation.proxy_value(f64::from(z), f64::from(slope), self.channel(at)) as f32
            }),
        }
    }

    fn backward(&self, _: usize, view: &View<'_>, gate: Gate, sink: &mut [f32]) {
        let activation = &self.activation;
        match (gate, self.linear_range()) {
            (Gate::Plain, Some((low, high))) => add(sink, view, |_, z| if z > low && z < high { 1.0 } else { 0.0 }),
            (Gate::Proxy { slope }, Some((low, high))) => {
                add(sink, view, |_, z| if z > low && z < high { 1.0 } else { slope });
            }
            (Gate::Identity, _) => {
                let peak = activation.peak() as f32;
                add(sink, view, |_, _| peak);
            }
            (Gate::Plain, None) => {
                add(sink, view, |at, z| activation.derivative(f64::from(z), self.channel(at)) as f32);
            }
            (Gate::Proxy { slope }, None) => add(sink, view, |at, z| {
                activation.proxy_derivative(f64::from(z), f64::from(slope), self.channel(at)) as f32
            }),
            (Gate::Soft { temperature }, Some((low, high))) if temperature > 0.0 => {
                let step = |distance: f32| 1.0 / (1.0 + (-distance / temperature).exp());
                add(sink, view, |_, z| step(z - low) * step(high - z));
            }
            (Gate::Soft { temperature }, _) => add(sink, view, |at, z| {
                activation.soft_derivative(f64::from(z), f64::from(temperature), self.channel(at)) as f32
            }),
            (Gate::Redirect, _) => self.redirect(view, sink),
        }
    }
}

impl Activated {
    /// Lucid's rule: see [`Gate::Redirect`].
    fn redirect(&self, view: &View<'_>, sink: &mut [f32]) {
        let plain = |at: usize, z: f32| self.activation.derivative(f64::from(z), self.channel(at)) as f32;
        let alive = view.inputs[0].iter().zip(view.gradient).enumerate().any(|(at, (&z, g))| plain(at, z) * g != 0.0);
        if alive {
            return add(sink, view, plain);
        }
        let (low, high) = self.activation.knees();
        let peak = self.activation.peak() as f32;
        for ((sum, &z), &gradient) in sink.iter_mut().zip(view.inputs[0]).zip(view.gradient) {
            let z = f64::from(z);
            let outwards = (z <= low && gradient < 0.0) || (z >= high && gradient > 0.0);
            if !outwards {
                *sum += peak * gradient;
            }
        }
    }
}

/// `output[at] = f(at, z[at])`.
fn map(output: &mut [f32], z: &[f32], spread: bool, f: impl Fn(usize, f32) -> f32 + Sync) {
    let run = |(chunk, (out, z)): (usize, (&mut [f32], &[f32]))| {
        for (i, (out, &z)) in out.iter_mut().zip(z).enumerate() {
            *out = f(chunk * CHUNK + i, z);
        }
    };
    if spread {
        output.par_chunks_mut(CHUNK).zip(z.par_chunks(CHUNK)).enumerate().for_each(run);
    } else {
        output.chunks_mut(CHUNK).zip(z.chunks(CHUNK)).enumerate().for_each(run);
    }
}

/// `sink[at] += slope(at, z[at]) * gradient[at]`.
fn add(sink: &mut [f32], view: &View<'_>, slope: impl Fn(usize, f32) -> f32 + Sync) {
    let z = view.inputs[0];
    let run = |(chunk, sum): (usize, &mut [f32])| {
        let from = chunk * CHUNK;
        let parts = z[from..from + sum.len()].iter().zip(&view.gradient[from..from + sum.len()]);
        for (i, (sum, (&z, gradient))) in sum.iter_mut().zip(parts).enumerate() {
            *sum += slope(from + i, z) * gradient;
        }
    };
    if view.spread {
        sink.par_chunks_mut(CHUNK).enumerate().for_each(run);
    } else {
        sink.chunks_mut(CHUNK).enumerate().for_each(run);
    }
}
