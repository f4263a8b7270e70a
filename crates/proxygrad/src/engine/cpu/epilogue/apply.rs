//! What happens to a kernel's sums on their way to memory: everything elementwise that follows it in the network.
#![expect(unsafe_code, reason = "loads and stores through maps")]

use crate::engine::cpu::breakpoints::Breakpoints;
use crate::engine::cpu::epilogue::{Epilogue, FusedGate, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::simd::vector::{Simd, SimdOp, exp, load_vector, logistic};

/// What a [`Epilogue`] does, as a set that the compiler knows.
mod flags {
    pub(crate) const NONE: u32 = 0;
    pub(crate) const BIAS: u32 = 1;
    pub(crate) const ADD: u32 = 2;
    pub(crate) const RECORD: u32 = 4;
    /// Breakpoints that are flat outside, with mask.
    pub(crate) const CLIP: u32 = 8;
    pub(crate) const MASK: u32 = 16;
    pub(crate) const SOFT: u32 = 32;
    /// Anything, to be looked up.
    pub(crate) const ANY: u32 = 64;
}

impl Epilogue<'_> {
    /// Asks for where [`Epilogue::store_row`] will write, which processors do not guess for pixels that are far pixel_step.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn prefetch_writes<S: Simd>(&self, pixel: usize, channel: usize, count: usize) {
        for c in (channel..channel + count).step_by(16) {
            // SAFETY: only asked for, wherever it lies.
            unsafe { S::prefetch(self.to.data.wrapping_add(pixel * self.to.pixel_stride + c)) };
        }
    }

    /// Asks for what [`Epilogue::store_row`] will read.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn prefetch<S: Simd>(&self, pixel: usize, channel: usize, count: usize) {
        let reads = self.addend.is_some() || !matches!(self.gate, FusedGate::None);
        let mut c = channel;
        while reads && c < channel + count {
            // SAFETY: only asked for, wherever it lies.
            unsafe {
                let at = |map: &FeatureMap| map.data.wrapping_add(pixel * map.pixel_stride + c).cast_const();
                if let Some(add) = &self.addend {
                    S::prefetch(at(add));
                }
                match &self.gate {
                    FusedGate::None => {}
                    FusedGate::Masked { mask, .. } => mask.prefetch::<S>(pixel, c),
                    FusedGate::Soft { input, .. } => S::prefetch(at(input)),
                }
            }
            c += 16;
        }
    }

    /// Takes in the sums of a block: `row` values of `sums` for each row of it, `step` values for each pixel.
    ///
    /// # Safety
    /// As [`Simd`]; the block lies in the maps, and the sums of each pixel are readable up to a whole number of vectors.
    #[inline(always)]
    pub(crate) unsafe fn store_region<S: Simd>(&self, block: OutputRegion, sums: *const f32, [row, step]: [usize; 2]) {
        use flags::*;
        macro_rules! dispatch {
            ($($kind:expr,)*) => {
                match self.flags(block.channel) {
                    // SAFETY: the caller's; the flags are those that were found.
                    $(kind if kind == const { $kind } => unsafe {
                        S::call(RegionStore::<'_, { $kind }> { epilogue: self, block, sums, row, step });
                    })*
                    // SAFETY: the caller's.
                    _ => unsafe { S::call(RegionStore::<'_, ANY> { epilogue: self, block, sums, row, step }) },
                }
            };
        }
        dispatch!(
            NONE,
            BIAS,
            BIAS | ADD,
            BIAS | CLIP,
            BIAS | ADD | CLIP,
            BIAS | CLIP | RECORD,
            BIAS | ADD | CLIP | RECORD,
            ADD,
            MASK,
            ADD | MASK,
            SOFT,
            ADD | SOFT,
        );
    }

    fn flags(&self, channel: usize) -> u32 {
        let breakpoints = match (self.breakpoints, self.mask) {
            (None, _) => flags::NONE,
            (Some(Breakpoints { leak: 0.0, .. }), Some(_)) => flags::CLIP,
            _ => flags::ANY,
        };
        let gate = match self.gate {
            FusedGate::None => flags::NONE,
            FusedGate::Masked { mask, .. } if mask.is_aligned(channel) => flags::MASK,
            FusedGate::Masked { .. } => flags::ANY,
            FusedGate::Soft { .. } => flags::SOFT,
        };
        let or_none = |flag: u32, there: bool| if there { flag } else { flags::NONE };
        breakpoints
            | gate
            | or_none(flags::BIAS, self.bias.is_some())
            | or_none(flags::ADD, self.addend.is_some())
            | or_none(flags::RECORD, self.record.is_some())
    }

    /// Takes in the sums of `count` channels, from `channel`, of one pixel.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps, `sums` holds `count` values and is readable up to a whole
    /// number of vectors.
    #[inline(always)]
    pub(crate) unsafe fn store_row<S: Simd>(&self, pixel: usize, channel: usize, sums: *const f32, count: usize) {
        let mut c = 0;
        while c < count {
            // SAFETY: the caller's.
            unsafe { self.store_vector::<S>(pixel, channel + c, S::load(sums.add(c)), count - c) };
            c += S::LANES;
        }
    }

    /// Takes in the sums of `count` channels, at most a whole vector counts.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps.
    #[inline(always)]
    pub(crate) unsafe fn store_vector<S: Simd>(&self, pixel: usize, channel: usize, sums: S::V, count: usize) {
        // SAFETY: the caller's.
        unsafe {
            if count >= S::LANES {
                let terms = self.soft_terms::<S, { flags::ANY }, true>(channel, count);
                self.put::<S, { flags::ANY }, true>(pixel, channel, &terms, sums, count);
            } else {
                let terms = self.soft_terms::<S, { flags::ANY }, false>(channel, count);
                self.put::<S, { flags::ANY }, false>(pixel, channel, &terms, sums, count);
            }
        }
    }

    /// The steps of a soft gate in some channels; of no use under other gates.
    #[inline(always)]
    unsafe fn soft_terms<S: Simd, const FLAGS: u32, const WHOLE: bool>(
        &self,
        channel: usize,
        count: usize,
    ) -> SoftTerms<S> {
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let FusedGate::Soft { low, high, inverse_scales, inverse_temperature, .. } = self.gate else {
                return SoftTerms([zero; 3]);
            };
            if FLAGS & (flags::SOFT | flags::ANY) == 0 {
                return SoftTerms([zero; 3]);
            }
            let scale = load_vector::<S, WHOLE>(inverse_scales.as_ptr().add(channel), count);
            let scale = S::min(S::mul(scale, S::splat(inverse_temperature)), S::splat(SHARPEST));
            if !(low > f32::NEG_INFINITY && high < f32::INFINITY) {
                return SoftTerms([scale, zero, zero]);
            }
            let half = S::mul(scale, S::splat(0.5 * (high - low)));
            // What the exponential cuts off is 0.
            let both = S::sub(exp::<S>(S::mul(S::splat(-2.0), half)), S::splat(2e-38));
            SoftTerms([scale, half, S::max(both, zero)])
        }
    }

    /// [`Epilogue::store_vector`] of a epilogue with these flags, for a whole vector or a flag of one.
    #[inline(always)]
    unsafe fn put<S: Simd, const FLAGS: u32, const WHOLE: bool>(
        &self,
        pixel: usize,
        channel: usize,
        terms: &SoftTerms<S>,
        sums: S::V,
        count: usize,
    ) {
        // SAFETY: all maps have this pixel and these channels; partial vectors are loaded and stored as such.
        unsafe {
            let value = self.value::<S, FLAGS, WHOLE>(pixel, channel, terms, sums, count);
            let to = self.to.at(pixel).add(channel);
            if WHOLE { S::store(to, value) } else { S::store_some(to, value, count) }
        }
    }

    #[inline(always)]
    unsafe fn value<S: Simd, const FLAGS: u32, const WHOLE: bool>(
        &self,
        pixel: usize,
        channel: usize,
        &SoftTerms([scale, half, both]): &SoftTerms<S>,
        mut value: S::V,
        count: usize,
    ) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            if let Some(bias) = flagged::<FLAGS, _>(flags::BIAS, self.bias) {
                value = S::add(value, load_vector::<S, WHOLE>(bias.as_ptr().add(channel), count));
            }
            if let Some(add) = flagged::<FLAGS, _>(flags::ADD, self.addend) {
                value = S::add(value, load_vector::<S, WHOLE>(add.at(pixel).add(channel), count));
            }
            if let Some(record) = flagged::<FLAGS, _>(flags::RECORD, self.record) {
                let to = record.at(pixel).add(channel);
                if WHOLE { S::store(to, value) } else { S::store_some(to, value, count) }
            }
            if let Some(Breakpoints { low, high, leak }) = flagged::<FLAGS, _>(flags::CLIP, self.breakpoints) {
                if let Some(mask) = flagged::<FLAGS, _>(flags::CLIP, self.mask) {
                    mask.record::<S>(pixel, channel, value, &Breakpoints { low, high, leak }, count);
                }
                // The value stands second: what is not a number stays so.
                let inside = S::min(S::splat(high), S::max(S::splat(low), value));
                value = match FLAGS != flags::ANY || leak == 0.0 {
                    true => inside,
                    false => S::mul_add(S::splat(leak), S::sub(value, inside), inside),
                };
            }
            match self.gate {
                FusedGate::Masked { mask, outside } if FLAGS & (flags::MASK | flags::ANY) != 0 => {
                    let gated = S::mul(value, S::splat(outside));
                    match FLAGS {
                        flags::ANY => mask.select::<S>(pixel, channel, gated, value),
                        _ => mask.select_aligned::<S>(pixel, channel, gated, value),
                    }
                }
                FusedGate::Soft { input, low, high, leak, .. } if FLAGS & (flags::SOFT | flags::ANY) != 0 => {
                    let z = load_vector::<S, WHOLE>(input.at(pixel).add(channel), count);
                    let one = S::splat(1.0);
                    let step = match (low > f32::NEG_INFINITY, high < f32::INFINITY) {
                        (true, true) => {
                            // With t = exp(|z - middle| * scale - half) both steps are t / ((1 + t) (t + exp(-2 half))).
                            let off = S::mul(S::sub(z, S::splat(0.5 * (low + high))), scale);
                            let off = S::max(off, S::sub(S::splat(0.0), off));
                            let t = exp::<S>(S::sub(off, half));
                            S::div(t, S::mul(S::add(one, t), S::add(t, both)))
                        }
                        (true, false) => logistic::<S>(S::mul(S::sub(z, S::splat(low)), scale)),
                        (false, true) => logistic::<S>(S::mul(S::sub(S::splat(high), z), scale)),
                        (false, false) => one,
                    };
                    S::mul(value, S::mul_add(S::sub(S::splat(1.0), S::splat(leak)), step, S::splat(leak)))
                }
                _ => value,
            }
        }
    }
}

/// Largest inverse temperature of a step, so that its products stay finite.
const SHARPEST: f32 = 1e30;

/// What the steps of a soft gate are made of, in each channel of a vector: one over the width of a step, half the distance
/// of two breakpoints inverse_temperature that, and `exp(-2 *` the same`)`.
struct SoftTerms<S: Simd>([S::V; 3]);

/// A flag of a epilogue, which is there when `FLAGS` says so.
///
/// # Safety
/// `FLAGS` are those of the epilogue, or [`flags::ANY`].
#[inline(always)]
unsafe fn flagged<const FLAGS: u32, T>(which: u32, flag: Option<T>) -> Option<T> {
    if FLAGS == flags::ANY {
        return flag;
    }
    // SAFETY: the caller's.
    (FLAGS & which != 0).then(|| unsafe { flag.unwrap_unchecked() })
}

/// The sums of a [`OutputRegion`] under a epilogue of these flags.
struct RegionStore<'a, const FLAGS: u32> {
    epilogue: &'a Epilogue<'a>,
    block: OutputRegion,
    sums: *const f32,
    row: usize,
    step: usize,
}

impl<const FLAGS: u32> SimdOp for RegionStore<'_, FLAGS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // A copy, which stays in registers while memory is written.
        let epilogue = *self.epilogue;
        let Self { block, sums, row, step, .. } = self;
        let mut c = 0;
        while c < block.channels {
            let (channel, count) = (block.channel + c, block.channels - c);
            // SAFETY: the caller's.
            let terms = unsafe {
                match count >= S::LANES {
                    true => epilogue.soft_terms::<S, FLAGS, true>(channel, count),
                    false => epilogue.soft_terms::<S, FLAGS, false>(channel, count),
                }
            };
            for y in 0..block.rows {
                for x in 0..block.pixels {
                    let pixel = block.pixel + y * block.row_stride + x * block.pixel_step;
                    // SAFETY: the caller's, see `Epilogue::store_region`.
                    unsafe {
                        let sums = S::load(sums.add(y * row + x * step + c));
                        if count >= S::LANES {
                            epilogue.put::<S, FLAGS, true>(pixel, channel, &terms, sums, count);
                        } else {
                            epilogue.put::<S, FLAGS, false>(pixel, channel, &terms, sums, count);
                        }
                    }
                }
            }
            c += S::LANES;
        }
    }
}
