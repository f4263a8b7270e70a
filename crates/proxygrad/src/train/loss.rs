//! Softmax cross-entropy.

/// Loss and gradient of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loss {
    /// Mean cross-entropy.
    pub(super) mean: f64,
    /// Number of images whose largest logit is that of their class.
    pub(super) correct: usize,
    /// Gradient of the mean with respect to the logits, `[N,K]`.
    pub(super) gradient: Vec<f32>,
}

/// Cross-entropy of logits `[N,K]` with labels `[N]`. With smoothing `s`, the target is `1 - s` at the label plus `s / K`
/// everywhere (Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv:1512.00567, section 7).
pub(super) fn cross_entropy(logits: &[f64], labels: &[u32], smoothing: f64) -> Loss {
    let count = labels.len();
    let classes = logits.len() / count.max(1);
    let mut loss = Loss { mean: 0.0, correct: 0, gradient: Vec::with_capacity(logits.len()) };
    for (logits, &label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        let log_sum = largest + sum.ln();
        let best = logits.iter().position(|&logit| logit == largest);
        loss.correct += usize::from(best == Some(label as usize));
        for (class, logit) in logits.iter().enumerate() {
            let hit = f64::from(u8::from(class == label as usize));
            let target = hit * (1.0 - smoothing) + smoothing / classes as f64;
            loss.mean -= target * (logit - log_sum) / count as f64;
            loss.gradient.push((((logit - log_sum).exp() - target) / count as f64) as f32);
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes() {
        let loss = cross_entropy(&[2.0; 8], &[1, 3], 0.0);
        assert!((loss.mean - 4f64.ln()).abs() < 1e-12);
        assert_eq!(loss.gradient, [0.125, -0.375, 0.125, 0.125, 0.125, 0.125, 0.125, -0.375]);
    }

    #[test]
    fn the_gradient_is_the_numeric_derivative_also_with_smoothing() {
        let logits = [0.3, -1.2, 2.0, 0.1, 0.5, -0.4];
        for smoothing in [0.0, 0.2] {
            let loss = cross_entropy(&logits, &[2, 0], smoothing);
            for i in 0..logits.len() {
                let moved = |step: f64| {
                    let mut moved = logits;
                    moved[i] += step;
                    cross_entropy(&moved, &[2, 0], smoothing).mean
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((numeric - f64::from(loss.gradient[i])).abs() < 1e-7, "{i}: {numeric}");
            }
            assert_eq!(loss.correct, 1);
        }
    }

    #[test]
    fn huge_logits_stay_finite() {
        let loss = cross_entropy(&[1e4, -1e4], &[1], 0.0);
        assert!((loss.mean - 2e4).abs() < 1e-6 && loss.gradient == [1.0, -1.0]);
    }
}
