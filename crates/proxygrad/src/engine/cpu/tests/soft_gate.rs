//! Soft gates of the epilogue against products of logistic functions in f64.
#![expect(unsafe_code, reason = "maps of the tests' own buffers")]

use crate::engine::cpu::epilogue::{Epilogue, FusedGate, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::cpu::tests::instruction_sets;

#[test]
fn soft_gates_are_products_of_logistic_steps() {
    /// Stores some gradients.
    struct Gate<'a>(&'a Epilogue<'a>, &'a [f32; 20]);
    impl SimdOp for Gate<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let Self(epilogue, gradient) = self;
            // SAFETY: the set was checked; a pixel of 20 channels, and a region of one pixel.
            unsafe {
                epilogue.store_row::<S>(0, 0, gradient.as_ptr(), 4);
                epilogue.store_region::<S>(OutputRegion::row(0, 1, 4, 16), gradient[4..].as_ptr(), [0, 16]);
            }
        }
    }
    let step = |x: f64| 1.0 / (1.0 + (-x).exp());
    for set in instruction_sets() {
        for [low, high] in [[0.0, 6.0], [-3.0, 3.0], [0.0, f32::INFINITY], [f32::NEG_INFINITY, 1.0]] {
            for inverse_temperature in [1e-3, 0.7, 10.0, 30.0, 1e6, 1e38] {
                let mut input: [f32; 20] = std::array::from_fn(|i| i as f32 * 0.9 - 7.9);
                let (gradient, mut to) = (std::array::from_fn(|i| i as f32 - 5.5), [f32::NAN; 20]);
                let scales: [f32; 20] = std::array::from_fn(|i| 1.0 + i as f32 / 8.0);
                let map = |data: *mut f32| FeatureMap {
                    data,
                    images: 1,
                    height: 1,
                    width: 1,
                    channels: 20,
                    pixel_stride: 20,
                };
                let input_map = map(input.as_mut_ptr());
                let gate = FusedGate::Soft {
                    input: input_map,
                    low,
                    high,
                    leak: 0.25,
                    inverse_scales: &scales,
                    inverse_temperature,
                };
                let epilogue = Epilogue { gate, ..Epilogue::store_only(map(to.as_mut_ptr())) };
                // SAFETY: the set is available.
                unsafe { set.run(Gate(&epilogue, &gradient)) };
                for i in 0..20 {
                    let (z, scale) = (f64::from(input[i]), f64::from(scales[i]) * f64::from(inverse_temperature));
                    let steps = step((z - f64::from(low)) * scale) * step((f64::from(high) - z) * scale);
                    let expected = f64::from(gradient[i]) * (0.25 + 0.75 * steps);
                    let near = (f64::from(to[i]) - expected).abs() <= 1e-6 * (1.0 + expected.abs());
                    assert!(near, "{set:?}, {low} to {high}, {inverse_temperature}: {} at {z}, not {expected}", to[i]);
                }
            }
        }
    }
}
