//! Vector code of epilogues: one branch-free loop for each combination of parts that occurs.
#![expect(unsafe_code, reason = "loads and stores through maps")]

use crate::engine::cpu::activation::{ActivationBlock, Strided, Task};
use crate::engine::cpu::breakpoints::Breakpoints;
use crate::engine::cpu::epilogue::{Epilogue, FusedGate, OutputRegion, SmoothActivation};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::simd::math::{exp, logistic};
use crate::engine::cpu::simd::vector::{Simd, SimdOp, load_vector};

/// The parts of an [`Epilogue`] as bits, known at compile time.
mod flags {
    pub(crate) const NONE: u32 = 0;
    pub(crate) const BIAS: u32 = 1;
    pub(crate) const ADD: u32 = 2;
    pub(crate) const RECORD: u32 = 4;
    /// An activation that is flat outside its breakpoints, with a mask.
    pub(crate) const CLIP: u32 = 8;
    pub(crate) const MASK: u32 = 16;
    pub(crate) const SOFT: u32 = 32;
    /// Any parts, checked at run time.
    pub(crate) const ANY: u32 = 64;
}

impl Epilogue<'_> {
    /// Prefetches what will be written, which processors do not predict for pixels far apart.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn prefetch_writes<S: Simd>(&self, pixel: usize, channel: usize, count: usize) {
        for c in (channel..channel + count).step_by(16) {
            // SAFETY: a prefetch never faults.
            unsafe { S::prefetch(self.to.data.wrapping_add(pixel * self.to.pixel_stride + c)) };
        }
    }

    /// Prefetches what will be read.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn prefetch<S: Simd>(&self, pixel: usize, channel: usize, count: usize) {
        let reads = self.addend.is_some() || !matches!(self.gate, FusedGate::None);
        let mut c = channel;
        while reads && c < channel + count {
            // SAFETY: a prefetch never faults.
            unsafe {
                let at = |map: &FeatureMap| map.data.wrapping_add(pixel * map.pixel_stride + c).cast_const();
                if let Some(addend) = &self.addend {
                    S::prefetch(at(addend));
                }
                match &self.gate {
                    FusedGate::None => {}
                    FusedGate::Masked { mask, .. } => mask.prefetch::<S>(pixel, c),
                    FusedGate::Soft { input, .. } | FusedGate::Smooth { input, .. } => S::prefetch(at(input)),
                }
            }
            c += 16;
        }
    }

    /// Stores the sums of a region: `row_stride` values of `sums` from one row to the next, `pixel_stride` from one
    /// pixel to the next.
    ///
    /// # Safety
    /// As [`Simd`]; the region lies in the maps, and the sums of each pixel are readable up to a whole number of
    /// vectors.
    #[inline(always)]
    pub(crate) unsafe fn store_region<S: Simd>(&self, region: OutputRegion, sums: *const f32, strides: [usize; 2]) {
        use flags::*;
        macro_rules! dispatch {
            ($($kind:expr,)*) => {
                match self.flags(region.channel) {
                    // SAFETY: the caller's; the flags are those of this epilogue.
                    $(kind if kind == const { $kind } => unsafe {
                        S::call(RegionStore::<'_, { $kind }> { epilogue: self, region, sums, strides });
                    })*
                    // SAFETY: the caller's.
                    _ => unsafe { S::call(RegionStore::<'_, ANY> { epilogue: self, region, sums, strides }) },
                }
            };
        }
        dispatch!(
            NONE,
            BIAS,
            BIAS | ADD,
            BIAS | CLIP,
            BIAS | ADD | CLIP,
            BIAS | RECORD,
            BIAS | ADD | RECORD,
            BIAS | CLIP | RECORD,
            BIAS | ADD | CLIP | RECORD,
            ADD,
            MASK,
            ADD | MASK,
            SOFT,
            ADD | SOFT,
        );
        // SAFETY: the caller's.
        unsafe { self.store_smooth::<S>(region) };
    }

    /// Applies a smooth activation and the derivative of one to what has just been stored.
    ///
    /// # Safety
    /// As [`Simd`]; the region lies in the maps.
    #[inline(always)]
    pub(crate) unsafe fn store_smooth<S: Simd>(&self, region: OutputRegion) {
        if self.smooth.is_none() && !matches!(self.gate, FusedGate::Smooth { .. }) {
            return;
        }
        let strided = |map: &FeatureMap| Strided {
            first: map.at(region.pixel).wrapping_add(region.channel),
            row: region.row_stride * map.pixel_stride,
            pixel: region.pixel_step * map.pixel_stride,
        };
        let to = strided(&self.to);
        let block = |SmoothActivation { activation, first }, task, z, inverse_scales| ActivationBlock {
            activation,
            task,
            z,
            to,
            rows: region.rows,
            pixels: region.pixels,
            channel: first + region.channel,
            channels: region.channels,
            inverse_scales,
        };
        // SAFETY: the caller's.
        unsafe {
            if let Some((activation, forward)) = self.smooth {
                S::call(block(activation, Task::Value(forward), to, &[]));
            }
            if let FusedGate::Smooth { input, activation, gate, inverse_scales } = self.gate {
                let inverse_scales = &inverse_scales[region.channel..];
                S::call(block(activation, Task::Gradient(to, gate), strided(&input), inverse_scales));
            }
        }
    }

    fn flags(&self, channel: usize) -> u32 {
        let breakpoints = match (self.breakpoints, self.mask) {
            (None, _) => flags::NONE,
            (Some(Breakpoints { leak: 0.0, .. }), Some(_)) => flags::CLIP,
            _ => flags::ANY,
        };
        let gate = match self.gate {
            FusedGate::None | FusedGate::Smooth { .. } => flags::NONE,
            FusedGate::Masked { mask, .. } if mask.is_aligned(channel) => flags::MASK,
            FusedGate::Masked { .. } => flags::ANY,
            FusedGate::Soft { .. } => flags::SOFT,
        };
        let when = |flag: u32, set: bool| if set { flag } else { flags::NONE };
        breakpoints
            | gate
            | when(flags::BIAS, self.bias.is_some())
            | when(flags::ADD, self.addend.is_some())
            | when(flags::RECORD, self.record.is_some())
    }

    /// Stores the sums of `count` channels, from `channel`, of one pixel.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps, `sums` holds `count` values and is readable up to a whole
    /// number of vectors.
    #[inline(always)]
    pub(crate) unsafe fn store_row<S: Simd>(&self, pixel: usize, channel: usize, sums: *const f32, count: usize) {
        let mut c = 0;
        while c < count {
            // SAFETY: the caller's.
            unsafe { self.store_linear::<S>(pixel, channel + c, S::load(sums.add(c)), count - c) };
            c += S::LANES;
        }
        // SAFETY: the caller's.
        unsafe { self.store_smooth::<S>(OutputRegion::row(pixel, 1, channel, count)) };
    }

    /// Stores one vector of sums, of which the first `count` values count.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps.
    #[inline(always)]
    pub(crate) unsafe fn store_vector<S: Simd>(&self, pixel: usize, channel: usize, sums: S::V, count: usize) {
        // SAFETY: the caller's.
        unsafe {
            self.store_linear::<S>(pixel, channel, sums, count);
            self.store_smooth::<S>(OutputRegion::row(pixel, 1, channel, count.min(S::LANES)));
        }
    }

    /// Stores one vector of sums, of which the first `count` values count, without smooth activations, for which
    /// [`Epilogue::store_smooth`] must follow.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps.
    #[inline(always)]
    pub(crate) unsafe fn store_linear<S: Simd>(&self, pixel: usize, channel: usize, sums: S::V, count: usize) {
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

    /// The terms of a soft gate for a vector of channels; unused with other gates.
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
            let scale = S::min(S::mul(scale, S::splat(inverse_temperature)), S::splat(MAX_INVERSE_TEMPERATURE));
            if !(low > f32::NEG_INFINITY && high < f32::INFINITY) {
                return SoftTerms([scale, zero, zero]);
            }
            let half = S::mul(scale, S::splat(0.5 * (high - low)));
            SoftTerms([scale, half, exp::<S>(S::mul(S::splat(-2.0), half))])
        }
    }

    /// [`Epilogue::store_linear`] with these flags, for a whole or a partial vector.
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
            if let Some(addend) = flagged::<FLAGS, _>(flags::ADD, self.addend) {
                value = S::add(value, load_vector::<S, WHOLE>(addend.at(pixel).add(channel), count));
            }
            if let Some(record) = flagged::<FLAGS, _>(flags::RECORD, self.record) {
                let to = record.at(pixel).add(channel);
                if WHOLE { S::store(to, value) } else { S::store_some(to, value, count) }
            }
            if let Some(Breakpoints { low, high, leak }) = flagged::<FLAGS, _>(flags::CLIP, self.breakpoints) {
                if let Some(mask) = flagged::<FLAGS, _>(flags::CLIP, self.mask) {
                    mask.record::<S>(pixel, channel, value, &Breakpoints { low, high, leak }, count);
                }
                // The value is the second operand, so NaN stays NaN.
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
                            // With t = exp(|z - middle| * scale - half) both steps are t / ((1 + t) (t + exp(-2
                            // half))).
                            let off = S::mul(S::sub(z, S::splat(0.5 * (low + high))), scale);
                            let off = S::max(off, S::sub(S::splat(0.0), off));
                            let off = S::sub(off, half);
                            // t neither infinite nor 0.
                            let t = exp::<S>(S::max(S::splat(-87.0), S::min(S::splat(87.0), off)));
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

/// Largest inverse temperature, at which products stay finite.
const MAX_INVERSE_TEMPERATURE: f32 = 1e30;

/// Terms of a soft gate for a vector of channels: the inverse temperature, half the distance of the breakpoints times
/// that, and `exp(-2 * half)` of this second term.
struct SoftTerms<S: Simd>([S::V; 3]);

/// A part of an epilogue, which is present if `FLAGS` says so.
///
/// # Safety
/// `FLAGS` are those of the epilogue, or [`flags::ANY`].
#[inline(always)]
unsafe fn flagged<const FLAGS: u32, T>(flag: u32, part: Option<T>) -> Option<T> {
    if FLAGS == flags::ANY {
        return part;
    }
    // SAFETY: the caller's.
    (FLAGS & flag != 0).then(|| unsafe { part.unwrap_unchecked() })
}

/// Stores a region with an epilogue of these flags.
struct RegionStore<'a, const FLAGS: u32> {
    epilogue: &'a Epilogue<'a>,
    region: OutputRegion,
    sums: *const f32,
    /// Values of `sums` from one row, and from one pixel, to the next.
    strides: [usize; 2],
}

impl<const FLAGS: u32> SimdOp for RegionStore<'_, FLAGS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // A copy, which stays in registers while memory is written.
        let epilogue = *self.epilogue;
        let Self { region, sums, strides: [row, step], .. } = self;
        let mut c = 0;
        while c < region.channels {
            let (channel, count) = (region.channel + c, region.channels - c);
            // SAFETY: the caller's.
            let terms = unsafe {
                match count >= S::LANES {
                    true => epilogue.soft_terms::<S, FLAGS, true>(channel, count),
                    false => epilogue.soft_terms::<S, FLAGS, false>(channel, count),
                }
            };
            for y in 0..region.rows {
                for x in 0..region.pixels {
                    let pixel = region.pixel + y * region.row_stride + x * region.pixel_step;
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
