//! Concat, reshape, transpose, slice, pad and resize.

use candle_core::{Device, Result, Tensor};

use super::taps::NOWHERE;
use super::{Backward, Operation, Reference};
use crate::engine::Forward;
use crate::network::{PadMode, Resize, Shape};

pub(super) struct Concat {
    pub(super) dim: usize,
}

impl Operation for Concat {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let batch = inputs.iter().map(|x| x.dims()[0]).max().unwrap_or(1);
        let repeated = inputs.iter().map(|x| repeat(x, batch)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&repeated, self.dim)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut start = 0;
        let mut parts = Vec::with_capacity(pass.inputs.len());
        for (input, &wanted) in pass.inputs.iter().zip(pass.wanted) {
            let length = input.dim(self.dim)?;
            let part = wanted.then(|| pass.gradient.narrow(self.dim, start, length)?.contiguous()).transpose()?;
            parts.push(part);
            start += length;
        }
        Ok(parts)
    }
}

/// Repeats a constant `[1, ...]` for every sample.
fn repeat(x: &Tensor, batch: usize) -> Result<Tensor> {
    if x.dim(0)? == batch {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    shape[0] = batch;
    x.broadcast_as(shape)?.contiguous()
}

pub(super) struct Reshape {
    /// Per-sample shape of the output.
    pub(super) target: Vec<usize>,
}

impl Operation for Reshape {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let mut shape = vec![inputs[0].dim(0)?];
        shape.extend_from_slice(&self.target);
        inputs[0].reshape(shape)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(pass.gradient.contiguous()?.reshape(pass.inputs[0].dims())?)])
    }
}

pub(super) struct Transpose {
    forward: Vec<usize>,
    backward: Vec<usize>,
}

impl Transpose {
    /// From the order of the per-sample axes.
    pub(super) fn new(order: &[usize]) -> Self {
        let forward: Vec<usize> = std::iter::once(0).chain(order.iter().map(|axis| axis + 1)).collect();
        let mut backward = vec![0; forward.len()];
        for (to, &from) in forward.iter().enumerate() {
            backward[from] = to;
        }
        Self { forward, backward }
    }
}

impl Operation for Transpose {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        inputs[0].permute(self.forward.as_slice())?.contiguous()
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(pass.gradient.permute(self.backward.as_slice())?.contiguous()?)])
    }
}

/// Selection of indices of one axis: slices, and reflect and edge padding.
pub(super) struct Select {
    dim: usize,
    indices: Tensor,
    /// For the `i`-th use of each input value, its output index; [`NOWHERE`] after its last use.
    uses: Vec<Tensor>,
}

impl Select {
    /// From an axis of `length`.
    pub(super) fn new(engine: &Reference, dim: usize, indices: Vec<usize>, length: usize) -> Result<Self> {
        let mut uses: Vec<Vec<u32>> = vec![vec![NOWHERE; length]];
        for (to, &from) in indices.iter().enumerate() {
            match uses.iter_mut().find(|places| places[from] == NOWHERE) {
                Some(places) => places[from] = to as u32,
                None => {
                    let mut places = vec![NOWHERE; length];
                    places[from] = to as u32;
                    uses.push(places);
                }
            }
        }
        let indices = indices.into_iter().map(|i| i as u32).collect();
        let on_device = |indices: Vec<u32>| Tensor::new(indices, &Device::Cpu)?.to_device(&engine.device);
        let uses = uses.into_iter().map(on_device).collect::<Result<_>>()?;
        Ok(Self { dim, indices: on_device(indices)?, uses })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.index_select(&self.indices, self.dim)
    }

    fn adjoint(&self, gradient: &Tensor) -> Result<Tensor> {
        let gradient = gradient.contiguous()?;
        let part = |places| gradient.index_select(places, self.dim);
        let first = part(&self.uses[0])?;
        self.uses[1..].iter().try_fold(first, |sum, places| sum + part(places)?)
    }
}

impl Operation for Select {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        self.apply(inputs[0])
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.adjoint(pass.gradient)?)])
    }
}

pub(super) enum Pad {
    /// `border` is 0 inside, and the border's value elsewhere; `None` if that is 0.
    Constant { before: Vec<usize>, after: Vec<usize>, border: Option<Tensor> },
    /// Reflect or edge padding: one selection per padded axis.
    Mirror(Vec<Select>),
}

impl Pad {
    pub(super) fn new(
        engine: &Reference,
        before: &[usize],
        after: &[usize],
        mode: PadMode,
        input: &Shape,
    ) -> Result<Self> {
        let reflect = match mode {
            PadMode::Constant(value) => {
                let (before, after) = (before.to_vec(), after.to_vec());
                let border = if value == 0.0 { None } else { Some(engine.border(value, &before, &after, input)?) };
                return Ok(Self::Constant { before, after, border });
            }
            PadMode::Reflect => true,
            PadMode::Edge => false,
        };
        let mut selections = Vec::new();
        for (axis, &length) in input.iter().enumerate() {
            if before[axis] + after[axis] == 0 {
                continue;
            }
            let indices = (0..before[axis] + length + after[axis]).map(|i| match i.checked_sub(before[axis]) {
                Some(inside) if inside < length => inside,
                Some(after) if reflect => 2 * (length - 1) - after,
                Some(_) => length - 1,
                None if reflect => before[axis] - i,
                None => 0,
            });
            selections.push(Select::new(engine, axis + 1, indices.collect(), length)?);
        }
        Ok(Self::Mirror(selections))
    }
}

impl Reference {
    /// A border around zeros. Written value by value, so that an infinite border works.
    fn border(&self, value: f32, before: &[usize], after: &[usize], input: &Shape) -> Result<Tensor> {
        let lengths: Vec<usize> = (0..input.len()).map(|i| before[i] + input[i] + after[i]).collect();
        let is_inside = |mut index: usize| {
            (0..lengths.len()).rev().all(|i| {
                let position = index % lengths[i];
                index /= lengths[i];
                (before[i]..before[i] + input[i]).contains(&position)
            })
        };
        let count = lengths.iter().product();
        let values: Vec<f32> = (0..count).map(|index| if is_inside(index) { 0.0 } else { value }).collect();
        self.tensor(&values, &super::batched(&lengths))
    }
}

fn pad_with_zeros(x: &Tensor, before: &[usize], after: &[usize]) -> Result<Tensor> {
    let mut padded = x.clone();
    for (axis, (&b, &a)) in before.iter().zip(after).enumerate() {
        padded = padded.pad_with_zeros(axis + 1, b, a)?;
    }
    Ok(padded)
}

impl Operation for Pad {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        match self {
            Self::Constant { before, after, border: None } => pad_with_zeros(inputs[0], before, after),
            Self::Constant { before, after, border: Some(border) } => {
                pad_with_zeros(inputs[0], before, after)?.broadcast_add(border)
            }
            Self::Mirror(selections) => {
                selections.iter().try_fold(inputs[0].clone(), |x, selection| selection.apply(&x))
            }
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut gradient = pass.gradient.clone();
        match self {
            Self::Constant { before, .. } => {
                for (axis, &start) in before.iter().enumerate() {
                    gradient = gradient.narrow(axis + 1, start, pass.inputs[0].dim(axis + 1)?)?;
                }
            }
            Self::Mirror(selections) => {
                for selection in selections.iter().rev() {
                    gradient = selection.adjoint(&gradient)?;
                }
            }
        }
        Ok(vec![Some(gradient.contiguous()?)])
    }
}

/// Interpolation as two matrix products: rows, then columns.
pub(super) struct Resized {
    /// `[OH, H]`, `[W, OW]`.
    forward: [Tensor; 2],
    /// `[H, OH]`, `[OW, W]`.
    backward: [Tensor; 2],
}

impl Resized {
    pub(super) fn new(engine: &Reference, resize: &Resize, input: &Shape, output: &Shape) -> Result<Self> {
        let matrix = |axis: usize| {
            let (from, to) = (input[axis + 1], output[axis + 1]);
            let mut weights = vec![0f32; to * from];
            for (i, taps) in resize.taps(axis, from, to).into_iter().enumerate() {
                for (source, weight) in taps {
                    weights[i * from + source] += weight as f32;
                }
            }
            engine.tensor(&weights, &[to, from])
        };
        let (rows, columns) = (matrix(0)?, matrix(1)?);
        let backward = [rows.t()?.contiguous()?, columns.clone()];
        Ok(Self { forward: [rows, columns.t()?.contiguous()?], backward })
    }
}

/// Separable linear map, `rows x map x columns`, on every map of `[N,C,H,W]`.
fn separable([rows, columns]: &[Tensor; 2], x: &Tensor) -> Result<Tensor> {
    let (n, c, height, width) = x.dims4()?;
    let (to_height, to_width) = (rows.dim(0)?, columns.dim(1)?);
    let maps = x.contiguous()?.reshape((n * c, height, width))?;
    let rows = rows.unsqueeze(0)?.broadcast_as((n * c, to_height, height))?;
    let columns = columns.unsqueeze(0)?.broadcast_as((n * c, width, to_width))?;
    rows.matmul(&maps)?.matmul(&columns)?.reshape((n, c, to_height, to_width))
}

impl Operation for Resized {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        separable(&self.forward, inputs[0])
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(separable(&self.backward, pass.gradient)?)])
    }
}
