//! Normalization fusion: groups of nodes that compute a normalization become one, which costs less memory and time and
//! is one layer.
//!
//! Exporters write layer normalizations as `(x - mean) / sqrt(mean((x - mean)²) + epsilon)`, `F.normalize` as a division
//! by a clipped norm, group normalizations as an instance normalization between two reshapes, and normalizations of
//! channels as a layer normalization between two transpositions. What scales and shifts the result is folded later.

use super::graph_builder::{BuilderId, GraphBuilder};
use super::lower::normalize::simplified;
use crate::network::{
    Activation, Array, Binary, LocalResponse, Norm, Normalize, Op, PadMode, Reduce, Shape, Unary, Window,
};

/// Replaces the last node of every such group that `roots` depend on. The other nodes stay for whatever else reads
/// them.
pub(super) fn fuse_normalizations(builder: &mut GraphBuilder, roots: &[BuilderId]) {
    let readers = builder.reader_counts(roots);
    for id in (0..builder.nodes().len()).filter(|&id| readers[id] > 0) {
        let pieces = Pieces { builder, readers: &readers };
        if let Some((source, response)) = pieces.local_response(id) {
            let other_shape = builder.node(source).other_shape.clone();
            let node = builder.node_mut(id);
            (node.bound, node.other_shape, node.expanded_from) = (None, other_shape, None);
            (node.op, node.inputs) = (Op::LocalResponse(response), vec![source]);
            continue;
        }
        let found =
            pieces.divided(id).or_else(|| pieces.between_reshapes(id)).or_else(|| pieces.between_transposes(id));
        let Some((source, normalize)) = found else { continue };
        let (shape, other_shape) = (builder.node(source).shape.clone(), builder.node(source).other_shape.clone());
        if shape != builder.node(id).shape || normalize.infer(&shape).is_err() {
            continue;
        }
        let normalize = simplified(normalize, &shape);
        let node = builder.node_mut(id);
        // A normalization fits every size, whatever the pieces were computed for.
        (node.bound, node.other_shape, node.expanded_from) = (None, other_shape, None);
        (node.op, node.inputs) = (Op::Normalize(normalize), vec![source]);
    }
}

/// The values that a tensor is divided by.
struct Divisor {
    /// The values whose norm it is.
    values: BuilderId,
    kind: Norm,
    axes: Vec<usize>,
    epsilon: f32,
}

struct Pieces<'a> {
    builder: &'a GraphBuilder,
    readers: &'a [usize],
}

impl Pieces<'_> {
    fn op(&self, id: BuilderId) -> &Op {
        &self.builder.node(id).op
    }

    fn input(&self, id: BuilderId) -> Option<BuilderId> {
        match *self.builder.node(id).inputs.as_slice() {
            [input] => Some(input),
            _ => None,
        }
    }

    fn inputs(&self, id: BuilderId, kind: Binary) -> Option<[BuilderId; 2]> {
        let is = matches!(self.op(id), Op::Binary(found) if *found == kind);
        <[BuilderId; 2]>::try_from(self.builder.node(id).inputs.as_slice()).ok().filter(|_| is)
    }

    /// The tensor that a node raises to this power.
    fn power(&self, id: BuilderId, exponent: f64) -> Option<BuilderId> {
        match *self.op(id) {
            Op::Unary(Unary::Power(found)) if found == exponent => self.input(id),
            Op::Unary(Unary::Sqrt) if exponent == 0.5 => self.input(id),
            Op::Binary(Binary::Mul) if exponent == 2.0 => {
                self.inputs(id, Binary::Mul).filter(|[a, b]| a == b).map(|[a, _]| a)
            }
            _ => None,
        }
    }

    /// The tensor that a node reduces, and along which axes.
    fn reduced(&self, id: BuilderId, wanted: Reduce) -> Option<(BuilderId, &[usize])> {
        match self.op(id) {
            Op::Reduce { kind, axes, keep: true } if *kind == wanted => Some((self.input(id)?, axes)),
            _ => None,
        }
    }

    /// The tensor that a node adds the same number to everywhere, and the number; itself and 0 if it does nothing of
    /// the kind.
    fn without_summand(&self, id: BuilderId) -> (BuilderId, f32) {
        if let Op::Affine { scale, shift } = self.op(id)
            && scale.data().iter().all(|&v| v == 1.0)
            && let (Some(&first), Some(input)) = (shift.data().first(), self.input(id))
            && shift.data().iter().all(|&v| v == first)
        {
            return (input, first);
        }
        (id, 0.0)
    }

    /// The tensor that a node clips from below, and the bound; itself and 0 if it does not clip.
    fn without_bound(&self, id: BuilderId) -> (BuilderId, f32) {
        match (self.op(id), self.input(id)) {
            (&Op::Activation(Activation::Clip { min, max: f32::INFINITY }), Some(input)) if min > 0.0 => (input, min),
            _ => (id, 0.0),
        }
    }

    /// `x / divisor` or `x * (1 / divisor)`, where the divisor is a norm of `x`.
    fn divided(&self, id: BuilderId) -> Option<(BuilderId, Normalize)> {
        let (numerator, divisor) = match self.inputs(id, Binary::Div) {
            Some([numerator, divisor]) => (numerator, self.divisor(divisor)?),
            None => {
                let [a, b] = self.inputs(id, Binary::Mul)?;
                let inverse = |id: BuilderId| match self.power(id, -1.0) {
                    Some(divisor) => self.divisor(divisor),
                    None => self.root(self.power(id, -0.5)?),
                };
                match inverse(b) {
                    Some(divisor) => (a, divisor),
                    None => (b, inverse(a)?),
                }
            }
        };
        let Divisor { values, kind, axes, epsilon } = divisor;
        let new = |kind| Normalize { axes: axes.clone(), groups: 1, kind, epsilon, scale: None, shift: None };
        if !self.are_same(numerator, values) {
            return None;
        }
        // Centered values have the standard deviation as their root mean square.
        let centered = self.centered(values).filter(|(_, along)| *along == axes && kind == Norm::RootMeanSquare);
        Some(match centered {
            Some((source, _)) => (source, new(Norm::Deviation)),
            None => (values, new(kind)),
        })
    }

    /// `x - mean(x)`
    fn centered(&self, id: BuilderId) -> Option<(BuilderId, &[usize])> {
        let [source, mean] = self.inputs(id, Binary::Sub)?;
        self.reduced(mean, Reduce::Mean).filter(|(values, _)| *values == source)
    }

    /// Whether two nodes compute the same, at least because they subtract the same.
    fn are_same(&self, a: BuilderId, b: BuilderId) -> bool {
        a == b || self.inputs(a, Binary::Sub).is_some_and(|inputs| self.inputs(b, Binary::Sub) == Some(inputs))
    }

    fn divisor(&self, id: BuilderId) -> Option<Divisor> {
        let id = self.builder.node(id).expanded_from.unwrap_or(id);
        let (norm, epsilon) = self.without_bound(id);
        for (reduce, kind) in [(Reduce::L1, Norm::L1), (Reduce::L2, Norm::L2)] {
            if let Some((values, axes)) = self.reduced(norm, reduce) {
                return Some(Divisor { values, kind, axes: axes.to_vec(), epsilon });
            }
        }
        let divisor = self.root(self.power(norm, 0.5)?)?;
        match (divisor.kind, divisor.epsilon, epsilon) {
            (_, _, 0.0) => Some(divisor),
            (Norm::L2, 0.0, _) => Some(Divisor { epsilon, ..divisor }),
            _ => None,
        }
    }

    /// The divisor that is the square root of a node.
    fn root(&self, id: BuilderId) -> Option<Divisor> {
        let (mean, epsilon) = self.without_summand(id);
        if let Some((squares, axes)) = self.reduced(mean, Reduce::Mean) {
            let values = self.power(squares, 2.0)?;
            return Some(Divisor { values, kind: Norm::RootMeanSquare, axes: axes.to_vec(), epsilon });
        }
        let (sum, bound) = self.without_bound(id);
        let (squares, axes) = self.reduced(sum, Reduce::Sum)?;
        let (values, epsilon) = (self.power(squares, 2.0)?, bound.sqrt());
        Some(Divisor { values, kind: Norm::L2, axes: axes.to_vec(), epsilon })
    }

    /// A local response normalization: `x / (bias + alpha * mean(x²))^beta`, where an average pool over padded channels
    /// computes the mean.
    fn local_response(&self, id: BuilderId) -> Option<(BuilderId, LocalResponse)> {
        let [source, divisor] = self.inputs(id, Binary::Div)?;
        let (beta, sum) = match *self.op(divisor) {
            Op::Unary(Unary::Power(beta)) => (beta, self.input(divisor)?),
            Op::Unary(Unary::Sqrt) => (0.5, self.input(divisor)?),
            _ => (1.0, divisor),
        };
        let (mut alpha, mut bias, mut mean) = (1.0, 0.0, sum);
        while let Op::Affine { scale, shift } = self.op(mean) {
            let uniform = |array: &Array| {
                let (first, rest) = array.data().split_first()?;
                rest.iter().all(|value| value == first).then_some(*first)
            };
            (alpha, bias) = (alpha * uniform(scale)?, bias + alpha * uniform(shift)?);
            mean = self.input(mean)?;
        }
        let through = |mut id: BuilderId| {
            while let Op::Reshape(_) = self.op(id) {
                id = self.input(id)?;
            }
            Some(id)
        };
        let pool = through(mean)?;
        let Op::AveragePool { window, .. } = *self.op(pool) else { return None };
        let size = window.kernel[0];
        let pad = through(self.input(pool)?)?;
        let Op::Pad { before, after, mode: PadMode::Constant(0.0) } = self.op(pad) else { return None };
        let squares = through(self.input(pad)?)?;
        let [shape, unpadded, pooled] =
            [source, self.input(pad)?, self.input(pool)?].map(|id| &self.builder.node(id).shape);
        // The channels must be the only padded axis, and the one that the window slides along.
        let axis = (0..before.len()).find(|&axis| before[axis] + after[axis] > 0)?;
        let is_only = (0..before.len()).all(|other| other == axis || before[other] + after[other] == 0);
        let is_first = unpadded[..axis].iter().all(|&length| length == 1) && unpadded[axis] == shape.channels();
        let [is_before, is_after] = [before[axis] == (size - 1) / 2, after[axis] == size / 2];
        let slides = pooled[..2] == [1, shape.channels() + size - 1] && window == Window::new([size, 1]);
        let fits = is_only && is_first && is_before && is_after && slides && self.power(squares, 2.0) == Some(source);
        let response = LocalResponse { size, alpha, beta: beta as f32, bias };
        (fits && response.infer(shape).is_ok() && self.builder.node(id).shape == *shape).then_some((source, response))
    }

    /// A normalization of `[groups, ...]` that is reshaped back to the channels it was made of.
    fn between_reshapes(&self, id: BuilderId) -> Option<(BuilderId, Normalize)> {
        let Op::Reshape(_) = self.op(id) else { return None };
        let (source, shape, normalize) = self.inner(id, |op| matches!(op, Op::Reshape(_)))?;
        let (&groups, own) = (shape.first()?, &self.builder.node(source).shape);
        let is_grouped = normalize.groups == 1 && normalize.axes.iter().copied().eq(1..shape.len());
        if !is_grouped || !own.first()?.is_multiple_of(groups) {
            return None;
        }
        let per_channel = |values: &Array| {
            let per_group = [&[groups], vec![1; shape.len() - 1].as_slice()].concat();
            if values.len() != 1 && values.shape() != per_group {
                return None;
            }
            let repeats = own[0] / values.len();
            let data: Vec<f32> = values.data().iter().flat_map(|&v| std::iter::repeat_n(v, repeats)).collect();
            let mut axes = vec![1; own.len()];
            axes[0] = own[0];
            Array::new(axes, data).ok()
        };
        let expanded = |values: &Option<Array>| match values {
            None => Some(None),
            Some(values) => per_channel(values).map(Some),
        };
        let (scale, shift) = (expanded(&normalize.scale)?, expanded(&normalize.shift)?);
        Some((source, Normalize { axes: (0..own.len()).collect(), groups, scale, shift, ..normalize.clone() }))
    }

    /// A normalization of a transposed tensor that is transposed back.
    fn between_transposes(&self, id: BuilderId) -> Option<(BuilderId, Normalize)> {
        let Op::Transpose(back) = self.op(id) else { return None };
        let (source, _, normalize) = self.inner(id, |op| matches!(op, Op::Transpose(_)))?;
        let Op::Transpose(order) = self.op(self.input(self.input(id)?)?) else { return None };
        if normalize.groups > 1 || back.iter().enumerate().any(|(to, &from)| order.get(from) != Some(&to)) {
            return None;
        }
        let mut axes: Vec<usize> = normalize.axes.iter().map(|&axis| order[axis]).collect();
        axes.sort_unstable();
        let turned = |values: &Option<Array>| match values {
            None => Some(None),
            Some(values) => {
                let lead = order.len() - values.shape().len();
                let mut long = values.shape().iter().enumerate().filter(|(_, length)| **length != 1);
                let mut shape = vec![1; order.len()];
                if let Some((axis, &length)) = long.next() {
                    shape[order[lead + axis]] = length;
                }
                if long.next().is_some() { None } else { values.reshape(shape).ok().map(Some) }
            }
        };
        let (scale, shift) = (turned(&normalize.scale)?, turned(&normalize.shift)?);
        Some((source, Normalize { axes, scale, shift, ..normalize.clone() }))
    }

    /// The normalization that a node reads alone, the node before it, if it `is` of some kind and read by nothing else,
    /// and the shape between them.
    fn inner(&self, id: BuilderId, is: impl Fn(&Op) -> bool) -> Option<(BuilderId, &Shape, &Normalize)> {
        let inner = self.input(id)?;
        let Op::Normalize(normalize) = self.op(inner) else { return None };
        let before = self.input(inner)?;
        let fits = self.readers[inner] == 1 && is(self.op(before));
        let source = self.input(before)?;
        fits.then_some((source, &self.builder.node(inner).shape, normalize))
    }
}
