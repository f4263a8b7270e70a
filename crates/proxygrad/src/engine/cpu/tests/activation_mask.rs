//! Activation masks hold the branch of each value, on every instruction set.
#![expect(unsafe_code, reason = "vector code")]

use crate::engine::cpu::activation_mask::{ActivationMask, Branch};
use crate::engine::cpu::breakpoints::Breakpoints;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::cpu::tests::instruction_sets;

#[test]
fn masks_hold_the_branch_of_each_value() {
    /// Records the branches of the first values, and selects by them.
    struct Recorded<'a> {
        values: &'a [f32; 16],
        breakpoints: Breakpoints,
        mask: ActivationMask,
        count: usize,
    }
    impl SimdOp for Recorded<'_> {
        type Output = [f32; 16];
        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> [f32; 16] {
            let Self { values, breakpoints, mask, count } = self;
            let mut picked = [0.0; 16];
            // SAFETY: the set was checked; sixteen values are there, and all bits of a pixel.
            unsafe {
                mask.record::<S>(1, 8, S::load(values.as_ptr()), &breakpoints, count);
                S::store(picked.as_mut_ptr(), mask.select::<S>(1, 8, S::splat(1.0), S::splat(2.0)));
            }
            picked
        }
    }
    let odd =
        [0.0, -0.0, 1.0, 6.0, 6.5, -3.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 5.999_999, f32::MIN_POSITIVE];
    for set in instruction_sets() {
        for [low, high] in [[0.0, 6.0], [0.0, f32::INFINITY], [-3.0, 1.0]] {
            for turn in 0..odd.len() {
                let values: [f32; 16] = std::array::from_fn(|i| odd[(i + turn) % odd.len()]);
                for count in 1..=16 {
                    let breakpoints = Breakpoints { low, high, leak: 0.0 };
                    // Two pixels of 24 channels, and slack after them.
                    let mut bytes = [0xa5; 24];
                    let mask = ActivationMask::new(bytes.as_mut_ptr(), 24, &breakpoints);
                    // SAFETY: the set is available.
                    let picked = unsafe { set.run(Recorded { values: &values, breakpoints, mask, count }) };
                    for i in 0..count.min(set.lanes()) {
                        let expected = match values[i] {
                            x if high < f32::INFINITY && x >= high => Branch::Above,
                            x if x > low => Branch::Between,
                            _ => Branch::Below,
                        };
                        // SAFETY: the second pixel has 24 channels.
                        let found = unsafe { mask.branch(1, 8 + i) };
                        assert_eq!(found, expected, "{set:?}: {} between {low} and {high}", values[i]);
                        let expected = if expected == Branch::Between { 2.0 } else { 1.0 };
                        assert_eq!(picked[i], expected, "{set:?}: {}", values[i]);
                    }
                    let written = count.min(set.lanes()).div_ceil(8);
                    let planes = if high < f32::INFINITY { 2 } else { 1 };
                    let own = |i: usize| (0..planes).any(|p| (0..written).any(|b| i == 3 * planes + 3 * p + 1 + b));
                    let beyond = bytes.iter().enumerate().filter(|(i, _)| !own(*i));
                    assert!(beyond.into_iter().all(|(_, &byte)| byte == 0xa5), "{set:?}: more than {count} bits");
                }
            }
        }
    }
}
