//! Layouts of all tensors of a network.

use super::reshape::reshaped;
use super::{AxisLayout, Role};
use crate::network::graph::Network;
use crate::network::op::Op;
use crate::network::shape::Shape;

/// What each axis of a tensor counts.
pub(super) type Layout = Vec<AxisLayout>;

/// The layout of every node of the network.
pub(super) fn layouts(network: &Network) -> Vec<Layout> {
    let mut found: Vec<Layout> = Vec::with_capacity(network.nodes().len());
    for node in network.nodes() {
        let inputs: Vec<(&Layout, &Shape)> =
            node.inputs.iter().map(|&input| (&found[input.0], &network.node(input).shape)).collect();
        let layout = layout(&node.op, &inputs, &node.shape);
        found.push(layout);
    }
    found
}

fn layout(op: &Op, inputs: &[(&Layout, &Shape)], shape: &Shape) -> Layout {
    let unknown = || shape.iter().map(|&length| AxisLayout::unknown(length)).collect::<Layout>();
    let Some(&(first, from)) = inputs.first() else {
        return match op {
            Op::Input => map(shape),
            _ => unknown(),
        };
    };
    match op {
        Op::Input | Op::Constant(_) => unknown(),
        Op::Affine { .. } | Op::Activation(_) | Op::Unary(_) | Op::DynamicQuantize => first.clone(),
        Op::Normalize(_) | Op::LocalResponse(_) => first.clone(),
        Op::Softmax { .. } | Op::LogSoftmax { .. } => first.clone(),
        Op::Conv(_) => {
            let mut windowed = slid(first, from, shape);
            windowed[0] = AxisLayout::whole(Role::Channel, shape[0]);
            windowed
        }
        Op::MaxPool(_) | Op::AveragePool { .. } | Op::Resize(_) => slid(first, from, shape),
        Op::Dense { .. } => dense(first, shape),
        Op::MatMul => product(inputs, shape),
        Op::Binary(_) | Op::Select => combined(inputs, shape),
        Op::Concat { axis } => concatenated(*axis, inputs, shape),
        Op::Reduce { axes, keep, .. } => {
            let kept = first.iter().enumerate().filter_map(|(i, axis)| match (axes.contains(&i), keep) {
                (false, _) => Some(axis.clone()),
                (true, true) => Some(AxisLayout::default()),
                (true, false) => None,
            });
            kept.collect()
        }
        Op::Pad { .. } => {
            first.iter().zip(from.iter().zip(shape.iter())).map(|(axis, (&old, &new))| axis.resized(old, new)).collect()
        }
        Op::Reshape(_) => reshaped(first, from, shape),
        Op::Transpose(order) => order.iter().map(|&axis| first[axis].clone()).collect(),
        Op::Slice { axis, start, step, .. } => {
            let mut sliced = first.clone();
            sliced[*axis] = part(&first[*axis], *start, *step, from[*axis], shape[*axis]);
            sliced
        }
        Op::Gather { axis, .. } => {
            let (mut gathered, old, length) = (first.clone(), from[*axis], shape[*axis]);
            // Another order of channels, rows or columns; of tokens that count several things, no order is kept.
            gathered[*axis] = match first[*axis].role() {
                Some(_) => first[*axis].resized(old, length),
                None => AxisLayout::unknown(length),
            };
            gathered
        }
    }
}

/// A map `[C,H,W]`.
fn map(shape: &Shape) -> Layout {
    let roles = [Role::Channel, Role::Row, Role::Column];
    shape.iter().zip(roles).map(|(&length, role)| AxisLayout::whole(role, length)).collect()
}

/// A map `[C,H,W]` after a window has slid over it. One-dimensional windows slide over tokens that have been given an
/// axis of length 1.
fn slid(input: &Layout, from: &Shape, shape: &Shape) -> Layout {
    let mut slid = vec![input[0].clone()];
    for (i, role) in [(1, Role::Row), (2, Role::Column)] {
        let axis = &input[i];
        let keeps_roles = axis.is_known() && !axis.has(Role::Channel);
        slid.push(match keeps_roles {
            true => axis.resized(from[i], shape[i]),
            false => AxisLayout::whole(role, shape[i]),
        });
    }
    slid
}

/// The last axis becomes the channels of the output, unless it counts tokens and another axis the channels.
fn dense(input: &Layout, shape: &Shape) -> Layout {
    let mut output = input.clone();
    let Some(last) = output.pop() else { return output };
    let length = shape.last().copied().unwrap_or(1);
    let is_among_channels = output.iter().any(|axis| axis.has(Role::Channel));
    let counts_tokens = last.has_tokens() || last.has(Role::Row) || last.has(Role::Column);
    if is_among_channels && counts_tokens {
        output.push(AxisLayout::unknown(length));
        return output;
    }
    output.push(AxisLayout::whole(Role::Channel, length));
    output
}

/// Matrix products: the rows of the first input and the columns of the second. Where both count the same, as the
/// weights of attention do by queries and keys, only the rows are followed.
fn product(inputs: &[(&Layout, &Shape)], shape: &Shape) -> Layout {
    let outer: Vec<(Layout, Shape)> = inputs
        .iter()
        .map(|(layout, from)| (layout[..from.len() - 2].to_vec(), from[..from.len() - 2].to_vec().into()))
        .collect();
    let borrowed: Vec<(&Layout, &Shape)> = outer.iter().map(|(layout, from)| (layout, from)).collect();
    let mut output = combined(&borrowed, &shape[..shape.len() - 2].to_vec().into());
    let matrices = inputs.iter().enumerate().map(|(i, (layout, from))| layout[from.len() - 2 + i].clone());
    output.extend(matrices);
    if let [.., rows, columns] = output.as_mut_slice()
        && rows.is_known()
        && rows.has(Role::Channel) == columns.has(Role::Channel)
    {
        *columns = AxisLayout::unknown(shape[shape.len() - 1]);
    }
    output
}

/// Number of axes of which it is known what they count.
fn known_axes(layout: &Layout) -> usize {
    layout.iter().filter(|axis| axis.is_known()).count()
}

/// The inputs, those with the most known axes first.
fn best_first<'a>(inputs: &[(&'a Layout, &'a Shape)]) -> Vec<(&'a Layout, &'a Shape)> {
    let mut sorted = inputs.to_vec();
    sorted.sort_by_key(|(layout, _)| std::cmp::Reverse(known_axes(layout)));
    sorted
}

/// Elementwise arithmetic with broadcasting: an axis counts what it counts in an input that knows it.
fn combined(inputs: &[(&Layout, &Shape)], shape: &Shape) -> Layout {
    let inputs = best_first(inputs);
    let axis = |i: usize| {
        let same = inputs.iter().filter_map(|(layout, from)| {
            let own = (i + from.len()).checked_sub(shape.len())?;
            (from[own] == shape[i]).then(|| &layout[own])
        });
        let known = same.clone().find(|axis| axis.is_known());
        known.or_else(|| same.clone().next()).cloned().unwrap_or_else(|| AxisLayout::unknown(shape[i]))
    };
    (0..shape.len()).map(axis).collect()
}

fn concatenated(axis: usize, inputs: &[(&Layout, &Shape)], shape: &Shape) -> Layout {
    let others: Vec<(&Layout, &Shape)> = best_first(inputs);
    let other = |i: usize| {
        let known = others.iter().map(|(layout, _)| &layout[i]).find(|axis| axis.is_known());
        known.unwrap_or(&others[0].0[i]).clone()
    };
    let mut joined: Layout = (0..shape.len()).map(other).collect();
    let has_channels = (0..shape.len()).any(|i| i != axis && joined[i].has(Role::Channel));
    joined[axis] = joined_axis(axis, inputs, shape[axis], has_channels);
    joined
}

/// The axis along which tensors are joined: more channels, rows or columns, or tokens around the patches of one input.
fn joined_axis(axis: usize, inputs: &[(&Layout, &Shape)], length: usize, has_channels: bool) -> AxisLayout {
    let parts = || inputs.iter().map(|(layout, from)| (&layout[axis], from[axis]));
    let mut known = parts().filter(|(part, _)| part.is_known());
    let role = known.next().map(|(part, _)| part.role());
    match role {
        None if has_channels => AxisLayout::unknown(length),
        None => AxisLayout::whole(Role::Channel, length),
        Some(Some(role)) if known.all(|(part, _)| part.role() == Some(role)) => AxisLayout::whole(role, length),
        Some(_) if parts().filter(|(part, _)| part.is_known()).count() == 1 => {
            let at = parts().position(|(part, _)| part.is_known()).unwrap_or(0);
            let sum = |count: usize, (_, length): (&AxisLayout, usize)| count + length;
            let mut found = parts().nth(at).map(|(part, _)| part.clone()).unwrap_or_default();
            found.before += parts().take(at).fold(0, sum);
            found.after += parts().skip(at + 1).fold(0, sum);
            found
        }
        Some(_) => AxisLayout::unknown(length),
    }
}

/// `length` indices from `start` of an axis that had `old`.
fn part(axis: &AxisLayout, start: usize, step: usize, old: usize, length: usize) -> AxisLayout {
    if !axis.has_tokens() || length == old {
        return axis.resized(old, length);
    }
    let (end, patches) = (start + length, axis.before..axis.before + axis.patches());
    if length == 1 {
        AxisLayout::default()
    } else if step == 1 && start <= patches.start && end >= patches.end {
        AxisLayout { before: patches.start - start, after: end - patches.end, digits: axis.digits.clone() }
    } else {
        AxisLayout::unknown(length)
    }
}
