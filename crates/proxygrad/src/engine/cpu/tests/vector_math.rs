//! Accuracy of the vectorized exponential and logistic functions.
#![expect(unsafe_code, reason = "vector code")]

use crate::engine::cpu::simd::vector::{Simd, SimdOp, exp, logistic};
use crate::engine::cpu::tests::instruction_sets;

#[test]
fn exponentials_are_accurate_to_f32() {
    struct Curve(f32);
    impl SimdOp for Curve {
        type Output = [f32; 2];
        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> [f32; 2] {
            let mut found = [0.0; 2];
            // SAFETY: the set was checked; one value of each is stored.
            unsafe {
                S::store_some(&raw mut found[0], exp::<S>(S::splat(self.0)), 1);
                S::store_some(&raw mut found[1], logistic::<S>(S::splat(self.0)), 1);
            }
            found
        }
    }
    for set in instruction_sets() {
        for i in (-2000..=2000).step_by(if cfg!(miri) { 100 } else { 1 }) {
            let x = i as f32 * 0.04;
            // SAFETY: the set is available.
            let [e, l] = unsafe { set.run(Curve(x)) };
            let exact = f64::from(x).exp();
            assert!((f64::from(e) / exact - 1.0).abs() < 3e-7, "{set:?}: exp({x}) = {e}, not {exact}");
            assert!((f64::from(l) - exact / (1.0 + exact)).abs() < 3e-7, "{set:?}: logistic({x}) = {l}");
        }
    }
}
