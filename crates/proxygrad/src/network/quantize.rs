//! Quantization with the range of the values themselves.

/// 256 levels at equal distances, from the smallest to the largest of some values and 0, one of which is 0
/// (<https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicLevels<T> {
    /// Distance of two levels, above 0.
    step: T,
    /// Number of steps from 0 to the largest level.
    most: T,
}

macro_rules! levels {
    ($float:ty) => {
        impl DynamicLevels<$float> {
            /// The levels for these values. Values that are not numbers do not count.
            pub fn of(values: impl Iterator<Item = $float>) -> Self {
                let (low, high) = values.fold((0.0, 0.0), |(low, high): ($float, $float), x| (low.min(x), high.max(x)));
                let steps = 255.0;
                let range = (high - low) / steps;
                let step = if range > 0.0 { range } else { 1.0 };
                Self { step, most: steps - (-low / step).clamp(0.0, steps).round_ties_even() }
            }

            /// The level nearest to a value; of two equally near ones, that of an even number of steps.
            pub fn nearest(self, x: $float) -> $float {
                (x / self.step).round_ties_even().min(self.most) * self.step
            }

            /// The levels nearest to the values.
            pub fn quantized(self, values: &[$float]) -> Vec<$float> {
                values.iter().map(|&x| self.nearest(x)).collect()
            }
        }
    };
}

levels!(f32);
levels!(f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_contain_zero_and_span_the_values() {
        let values = [-50.0, 0.0, 0.2, 77.5];
        let levels = DynamicLevels::<f64>::of(values.iter().copied());
        assert_eq!(levels, DynamicLevels { step: 0.5, most: 155.0 });
        assert_eq!(levels.quantized(&values), [-50.0, 0.0, 0.0, 77.5]);
        // Both ends are half a step from a level: 127.5 steps on either side are 128 below and 127 above 0.
        let symmetric = DynamicLevels::<f32>::of([-127.5, 127.5].into_iter());
        assert_eq!(symmetric.quantized(&[-127.5, 127.5, 126.5]), [-128.0, 127.0, 126.0]);
    }

    #[test]
    fn all_values_may_have_one_sign_or_be_zero() {
        assert_eq!(DynamicLevels::<f32>::of([255.0, 3.0].into_iter()).quantized(&[255.0, 2.6]), [255.0, 3.0]);
        assert_eq!(DynamicLevels::<f32>::of([-255.0].into_iter()).quantized(&[-255.0, -2.6]), [-255.0, -3.0]);
        assert_eq!(DynamicLevels::<f64>::of([0.0; 2].into_iter()).quantized(&[0.0]), [0.0]);
    }
}
