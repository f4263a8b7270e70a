//! Features of an image: the channel means of a judge's last layer before its logits.

use crate::network::{Network, NodeId, Op};

/// The layer that the last layer with weights reads, on the way to the logits; `None` if that is the image itself.
pub(super) fn feature_layer(network: &Network) -> Option<NodeId> {
    let mut id = network.logits()?;
    loop {
        let node = network.node(id);
        let next = node.inputs.iter().copied().find(|&input| !matches!(network.node(input).op, Op::Constant(_)))?;
        let has_weights = matches!(node.op, Op::Dense { .. } | Op::Conv(_) | Op::MatMul);
        if has_weights {
            return (next != Network::INPUT).then_some(next);
        }
        id = next;
    }
}

/// Mean of every channel of values `[C,…]`.
pub(super) fn channel_means(values: &[f32], channels: usize) -> Vec<f32> {
    let positions = (values.len() / channels.max(1)).max(1);
    let mean = |plane: &[f32]| plane.iter().map(|&x| f64::from(x)).sum::<f64>() / positions as f64;
    values.chunks(positions).map(|plane| mean(plane) as f32).collect()
}

/// Probability that a vector of `own` is more similar to `x` than one of `others` is, ties counting half: the area under
/// the receiver operating characteristic. Similarity is the cosine between differences from the mean of `others`, which
/// removes what all images have in common. `None` if either is empty or a value is not finite.
pub(super) fn affinity(x: &[f32], own: &[Vec<f32>], others: &[Vec<f32>]) -> Option<f32> {
    let mean: Vec<f64> = (0..x.len())
        .map(|i| others.iter().map(|other| f64::from(other[i])).sum::<f64>() / others.len() as f64)
        .collect();
    let centered = |vector: &[f32]| -> Vec<f64> { vector.iter().zip(&mean).map(|(&v, m)| f64::from(v) - m).collect() };
    let x = centered(x);
    let similar = |vectors: &[Vec<f32>]| -> Vec<f64> { vectors.iter().map(|v| cosine(&x, &centered(v))).collect() };
    let (own, others) = (similar(own), similar(others));
    if own.is_empty() || others.is_empty() || own.iter().chain(&others).any(|similarity| !similarity.is_finite()) {
        return None;
    }
    let half = |a: f64, b: f64| if a > b { 2 } else { usize::from(a == b) };
    let won: usize = own.iter().flat_map(|&a| others.iter().map(move |&b| half(a, b))).sum();
    Some(won as f32 / (2 * own.len() * others.len()) as f32)
}

/// Cosine of the angle between two vectors; 0 if one of them is 0.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    match (dot(a, a) * dot(b, b)).sqrt() {
        0.0 => 0.0,
        norms => dot(a, b) / norms,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn affinity_is_the_share_of_pairs_that_the_own_images_win() {
        let others = vec![vec![1.0, 0.0], vec![0.0, 1.0], vec![-1.0, -1.0]];
        let x = [2.0, 0.1];
        assert_eq!(affinity(&x, &[vec![4.0, 0.2]], &others), Some(1.0));
        assert_eq!(affinity(&x, &[vec![-4.0, -0.2]], &others), Some(0.0));
        // Nearer to x than the second and third, but not than the first.
        assert_eq!(affinity(&x, &[vec![0.7, 0.7]], &others), Some(2.0 / 3.0));
        assert_eq!(affinity(&x, &[others[1].clone()], &others), Some(0.5), "a tie with itself, one won, one lost");
        assert_eq!((affinity(&x, &[], &others), affinity(&x, &others, &[])), (None, None));
        assert_eq!(affinity(&x, &[vec![f32::NAN, 0.0]], &others), None);
    }

    #[test]
    fn what_all_images_share_does_not_count() {
        // Without the difference from the mean, all cosines would be nearly 1, and rounding would decide.
        let far = |x: f32, y: f32| vec![1000.0 + x, 1000.0 + y];
        let others = vec![far(1.0, 0.0), far(0.0, 1.0), far(-1.0, -1.0)];
        assert_eq!(affinity(&far(2.0, 0.1), &[far(4.0, 0.2)], &others), Some(1.0));
    }

    #[test]
    fn channels_are_averaged_over_their_positions() {
        assert_eq!(channel_means(&[1.0, 3.0, 5.0, 7.0], 2), [2.0, 6.0]);
        assert_eq!(channel_means(&[1.0, 3.0], 2), [1.0, 3.0]);
    }
}
