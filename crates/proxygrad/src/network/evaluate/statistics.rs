//! Reductions, normalizations and softmax: values that depend on all values of a group.

use super::{Values, positions};
use crate::network::{LocalResponse, Norm, Normalize, Reduce, Shape};

/// For each value, the group that it belongs to, if those are grouped that differ only in their index along `axes`; and
/// the number of groups. Groups are in row-major order.
fn groups(shape: &Shape, axes: &[usize]) -> (Vec<usize>, usize) {
    let mut count = 1;
    let mut strides = vec![0; shape.len()];
    for axis in (0..shape.len()).rev().filter(|axis| !axes.contains(axis)) {
        strides[axis] = count;
        count *= shape[axis];
    }
    let group = |at: &[usize]| at.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>();
    (positions(shape, group), count)
}

/// See [`Op::Reduce`](crate::network::Op::Reduce).
pub(super) fn reduce(kind: Reduce, axes: &[usize], input: &Values) -> Vec<f64> {
    let (groups, count) = groups(&input.shape, axes);
    let mut members = vec![Vec::new(); count];
    for (&x, group) in input.data.iter().zip(groups) {
        members[group].push(x);
    }
    let combine = |values: Vec<f64>| match kind {
        Reduce::Mean => values.iter().sum::<f64>() / values.len() as f64,
        Reduce::Sum => values.iter().sum(),
        Reduce::Max => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
        Reduce::Min => values.into_iter().fold(f64::INFINITY, f64::min),
        Reduce::Product => values.into_iter().product(),
        Reduce::L1 => values.into_iter().map(f64::abs).sum(),
        Reduce::L2 => values.into_iter().map(|x| x * x).sum::<f64>().sqrt(),
        Reduce::LogSumExp => {
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            values.into_iter().map(|x| (x - largest).exp()).sum::<f64>().ln() + largest
        }
    };
    members.into_iter().map(combine).collect()
}

/// See [`Normalize`].
pub(super) fn normalize(normalize: &Normalize, input: &Values) -> Vec<f64> {
    let Normalize { axes, groups: parts, kind, epsilon, scale, shift } = normalize;
    // The first axis splits into parts and what they consist of.
    let first = axes[0];
    let mut split = input.shape.to_vec();
    split[first] /= parts;
    split.insert(first, *parts);
    let along: Vec<usize> = axes.iter().map(|axis| axis + 1).collect();
    let (groups, count) = groups(&split.into(), &along);
    let size = input.data.len() / count;
    let mut centers = vec![0.0; count];
    if kind.is_centered() {
        for (x, &group) in input.data.iter().zip(&groups) {
            centers[group] += x / size as f64;
        }
    }
    let mut sums = vec![0.0; count];
    for (x, &group) in input.data.iter().zip(&groups) {
        sums[group] += if *kind == Norm::L1 { x.abs() } else { (x - centers[group]).powi(2) };
    }
    let statistics: Vec<_> =
        (0..count).map(|group| kind.statistics(f64::from(*epsilon), size, centers[group], sums[group])).collect();
    let [scale, shift] = [scale, shift].map(|array| array.as_ref().map(Values::of));
    let mut next =
        input.data.iter().zip(groups).map(|(x, group)| (x - statistics[group].center) * statistics[group].factor);
    positions(&input.shape, |at| {
        let y = next.next().unwrap_or_default();
        scale.as_ref().map_or(1.0, |scale| scale.at(at)) * y + shift.as_ref().map_or(0.0, |shift| shift.at(at))
    })
}

/// See [`LocalResponse`].
pub(super) fn local_response(norm: &LocalResponse, input: &Values) -> Vec<f64> {
    let channels = input.shape.channels();
    let block = input.data.len() / channels.max(1);
    let LocalResponse { size, alpha, beta, bias } = *norm;
    let value = |(i, &x): (usize, &f64)| {
        let neighbours = norm.window(i / block, channels);
        let sum: f64 = neighbours.map(|c| input.data[c * block + i % block].powi(2)).sum();
        x / (f64::from(bias) + f64::from(alpha) / size as f64 * sum).powf(f64::from(beta))
    };
    input.data.iter().enumerate().map(value).collect()
}

/// See [`Op::Softmax`](crate::network::Op::Softmax), and [`Op::LogSoftmax`](crate::network::Op::LogSoftmax) if
/// `logarithm`.
pub(super) fn softmax(axis: usize, logarithm: bool, input: &Values) -> Vec<f64> {
    let (groups, count) = groups(&input.shape, &[axis]);
    let mut largest = vec![f64::NEG_INFINITY; count];
    for (&x, &group) in input.data.iter().zip(&groups) {
        largest[group] = largest[group].max(x);
    }
    let mut sums = vec![0.0; count];
    for (x, &group) in input.data.iter().zip(&groups) {
        sums[group] += (x - largest[group]).exp();
    }
    let value = |(x, group): (&f64, usize)| match x - largest[group] {
        below if logarithm => below - sums[group].ln(),
        below => below.exp() / sums[group],
    };
    input.data.iter().zip(groups).map(value).collect()
}
