//! What happens to a kernel's sums on their way to memory: everything elementwise that follows it in the network.
#![expect(unsafe_code, reason = "loads and stores through maps")]

use super::map::Map;
use super::sides::Sides;
use super::simd::{Job, Simd, exp, logistic};

/// A piecewise linear activation: slope 1 between two knees, `leak` outside. ReLU, Leaky ReLU and clips.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Knees {
    pub(super) low: f32,
    pub(super) high: f32,
    pub(super) leak: f32,
}

/// Factor on a gradient, decided by the values of the forward pass.
#[derive(Clone, Copy)]
pub(super) enum Gated<'a> {
    /// 1 everywhere.
    Open,
    /// 1 where the pre-activation lay between the knees, `outside` elsewhere.
    Knees { sides: Sides, outside: f32 },
    /// Logistic steps at the knees of the pre-activation, from `leak` to 1.
    /// Their inverse temperature is `times` one number per channel.
    Soft { input: Map, low: f32, high: f32, leak: f32, inverse_scales: &'a [f32], times: f32 },
}

/// Where sums go: `to = gate * (activation(sum + bias + add))`.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) to: Map,
    /// One value per channel.
    pub(super) bias: Option<&'a [f32]>,
    /// A map of the same shape; may be `to` itself.
    pub(super) add: Option<Map>,
    /// Where the pre-activations are kept.
    pub(super) record: Option<Map>,
    pub(super) knees: Option<Knees>,
    /// Where it is kept on which sides of the knees the pre-activations lay.
    pub(super) sides: Option<Sides>,
    pub(super) gate: Gated<'a>,
}

/// Rows of pixels and channels that are finished together.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// The first pixel.
    pub(super) pixel: usize,
    pub(super) rows: usize,
    /// Pixels from one row to the next.
    pub(super) below: usize,
    /// Pixels of a row.
    pub(super) pixels: usize,
    /// Pixels from one to the next.
    pub(super) apart: usize,
    /// The first channel.
    pub(super) channel: usize,
    pub(super) channels: usize,
}

/// What a [`Finish`] does, as a set that the compiler knows.
mod parts {
    pub(super) const NONE: u32 = 0;
    pub(super) const BIAS: u32 = 1;
    pub(super) const ADD: u32 = 2;
    pub(super) const RECORD: u32 = 4;
    /// Knees that are flat outside, with sides.
    pub(super) const CLIP: u32 = 8;
    pub(super) const KNEES: u32 = 16;
    pub(super) const SOFT: u32 = 32;
    /// Anything, to be looked up.
    pub(super) const ANY: u32 = 64;
}

impl Block {
    /// One row of neighbouring pixels.
    #[inline(always)]
    pub(super) fn row(pixel: usize, pixels: usize, channel: usize, channels: usize) -> Self {
        Self { pixel, rows: 1, below: 0, pixels, apart: 1, channel, channels }
    }
}

impl<'a> Finish<'a> {
    /// Stores the sums as they are.
    pub(super) fn plain(to: Map) -> Self {
        Self { to, bias: None, add: None, record: None, knees: None, sides: None, gate: Gated::Open }
    }

    /// Whether sums are only stored.
    pub(super) fn is_plain(&self) -> bool {
        let Self { bias, add, record, knees, gate, to: _, sides: _ } = self;
        bias.is_none() && add.is_none() && record.is_none() && knees.is_none() && matches!(gate, Gated::Open)
    }

    /// Some of the channels.
    ///
    /// # Safety
    /// `first + channels` is at most the number of channels.
    pub(super) unsafe fn slice(&self, first: usize, channels: usize) -> Self {
        // SAFETY: all maps have the same channels.
        let slice = |map: Map| unsafe { map.slice(first, channels) };
        let gate = match self.gate {
            Gated::Open => Gated::Open,
            Gated::Knees { sides, outside } => Gated::Knees { sides: sides.slice(first), outside },
            Gated::Soft { input, low, high, leak, inverse_scales, times } => {
                let inverse_scales = &inverse_scales[first..first + channels];
                Gated::Soft { input: slice(input), low, high, leak, inverse_scales, times }
            }
        };
        Self {
            to: slice(self.to),
            bias: self.bias.map(|bias| &bias[first..first + channels]),
            add: self.add.map(slice),
            record: self.record.map(slice),
            knees: self.knees,
            sides: self.sides.map(|sides| sides.slice(first)),
            gate,
        }
    }

    /// Asks for where [`Finish::row`] will write, which processors do not guess for pixels that are far apart.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(super) unsafe fn prefetch_writes<S: Simd>(&self, pixel: usize, channel: usize, count: usize) {
        for c in (channel..channel + count).step_by(16) {
            // SAFETY: only asked for, wherever it lies.
            unsafe { S::prefetch(self.to.data.wrapping_add(pixel * self.to.pixel + c)) };
        }
    }

    /// Asks for what [`Finish::row`] will read.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(super) unsafe fn prefetch<S: Simd>(&self, pixel: usize, channel: usize, count: usize) {
        let reads = self.add.is_some() || !matches!(self.gate, Gated::Open);
        let mut c = channel;
        while reads && c < channel + count {
            // SAFETY: only asked for, wherever it lies.
            unsafe {
                let at = |map: &Map| map.data.wrapping_add(pixel * map.pixel + c).cast_const();
                if let Some(add) = &self.add {
                    S::prefetch(at(add));
                }
                match &self.gate {
                    Gated::Open => {}
                    Gated::Knees { sides, .. } => sides.prefetch::<S>(pixel, c),
                    Gated::Soft { input, .. } => S::prefetch(at(input)),
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
    pub(super) unsafe fn block<S: Simd>(&self, block: Block, sums: *const f32, [row, step]: [usize; 2]) {
        use parts::*;
        macro_rules! dispatch {
            ($($kind:expr,)*) => {
                match self.parts(block.channel) {
                    // SAFETY: the caller's; the parts are those that were found.
                    $(kind if kind == const { $kind } => unsafe {
                        S::call(Rows::<'_, { $kind }> { finish: self, block, sums, row, step });
                    })*
                    // SAFETY: the caller's.
                    _ => unsafe { S::call(Rows::<'_, ANY> { finish: self, block, sums, row, step }) },
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
            KNEES,
            ADD | KNEES,
            SOFT,
            ADD | SOFT,
        );
    }

    fn parts(&self, channel: usize) -> u32 {
        let knees = match (self.knees, self.sides) {
            (None, _) => parts::NONE,
            (Some(Knees { leak: 0.0, .. }), Some(_)) => parts::CLIP,
            _ => parts::ANY,
        };
        let gate = match self.gate {
            Gated::Open => parts::NONE,
            Gated::Knees { sides, .. } if sides.is_aligned(channel) => parts::KNEES,
            Gated::Knees { .. } => parts::ANY,
            Gated::Soft { .. } => parts::SOFT,
        };
        let or_none = |part: u32, there: bool| if there { part } else { parts::NONE };
        knees
            | gate
            | or_none(parts::BIAS, self.bias.is_some())
            | or_none(parts::ADD, self.add.is_some())
            | or_none(parts::RECORD, self.record.is_some())
    }

    /// Takes in the sums of `count` channels, from `channel`, of one pixel.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps, `sums` holds `count` values and is readable up to a whole
    /// number of vectors.
    #[inline(always)]
    pub(super) unsafe fn row<S: Simd>(&self, pixel: usize, channel: usize, sums: *const f32, count: usize) {
        let mut c = 0;
        while c < count {
            // SAFETY: the caller's.
            unsafe { self.vector::<S>(pixel, channel + c, S::load(sums.add(c)), count - c) };
            c += S::LANES;
        }
    }

    /// Takes in the sums of `count` channels, at most a whole vector counts.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps.
    #[inline(always)]
    pub(super) unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, sums: S::V, count: usize) {
        // SAFETY: the caller's.
        unsafe {
            if count >= S::LANES {
                let steps = self.steps::<S, { parts::ANY }, true>(channel, count);
                self.put::<S, { parts::ANY }, true>(pixel, channel, &steps, sums, count);
            } else {
                let steps = self.steps::<S, { parts::ANY }, false>(channel, count);
                self.put::<S, { parts::ANY }, false>(pixel, channel, &steps, sums, count);
            }
        }
    }

    /// The steps of a soft gate in some channels; of no use under other gates.
    #[inline(always)]
    unsafe fn steps<S: Simd, const PARTS: u32, const WHOLE: bool>(&self, channel: usize, count: usize) -> Steps<S> {
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let Gated::Soft { low, high, inverse_scales, times, .. } = self.gate else { return Steps([zero; 3]) };
            if PARTS & (parts::SOFT | parts::ANY) == 0 {
                return Steps([zero; 3]);
            }
            let scale = load::<S, WHOLE>(inverse_scales.as_ptr().add(channel), count);
            let scale = S::min(S::mul(scale, S::splat(times)), S::splat(SHARPEST));
            if !(low > f32::NEG_INFINITY && high < f32::INFINITY) {
                return Steps([scale, zero, zero]);
            }
            let half = S::mul(scale, S::splat(0.5 * (high - low)));
            // What the exponential cuts off is 0.
            let both = S::sub(exp::<S>(S::mul(S::splat(-2.0), half)), S::splat(2e-38));
            Steps([scale, half, S::max(both, zero)])
        }
    }

    /// [`Finish::vector`] of a finish with these parts, for a whole vector or a part of one.
    #[inline(always)]
    unsafe fn put<S: Simd, const PARTS: u32, const WHOLE: bool>(
        &self,
        pixel: usize,
        channel: usize,
        steps: &Steps<S>,
        sums: S::V,
        count: usize,
    ) {
        // SAFETY: all maps have this pixel and these channels; partial vectors are loaded and stored as such.
        unsafe {
            let value = self.value::<S, PARTS, WHOLE>(pixel, channel, steps, sums, count);
            let to = self.to.at(pixel).add(channel);
            if WHOLE { S::store(to, value) } else { S::store_some(to, value, count) }
        }
    }

    #[inline(always)]
    unsafe fn value<S: Simd, const PARTS: u32, const WHOLE: bool>(
        &self,
        pixel: usize,
        channel: usize,
        &Steps([scale, half, both]): &Steps<S>,
        mut value: S::V,
        count: usize,
    ) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            if let Some(bias) = known::<PARTS, _>(parts::BIAS, self.bias) {
                value = S::add(value, load::<S, WHOLE>(bias.as_ptr().add(channel), count));
            }
            if let Some(add) = known::<PARTS, _>(parts::ADD, self.add) {
                value = S::add(value, load::<S, WHOLE>(add.at(pixel).add(channel), count));
            }
            if let Some(record) = known::<PARTS, _>(parts::RECORD, self.record) {
                let to = record.at(pixel).add(channel);
                if WHOLE { S::store(to, value) } else { S::store_some(to, value, count) }
            }
            if let Some(Knees { low, high, leak }) = known::<PARTS, _>(parts::CLIP, self.knees) {
                if let Some(sides) = known::<PARTS, _>(parts::CLIP, self.sides) {
                    sides.mark::<S>(pixel, channel, value, &Knees { low, high, leak }, count);
                }
                // The value stands second: what is not a number stays so.
                let inside = S::min(S::splat(high), S::max(S::splat(low), value));
                value = match PARTS != parts::ANY || leak == 0.0 {
                    true => inside,
                    false => S::mul_add(S::splat(leak), S::sub(value, inside), inside),
                };
            }
            match self.gate {
                Gated::Knees { sides, outside } if PARTS & (parts::KNEES | parts::ANY) != 0 => {
                    let gated = S::mul(value, S::splat(outside));
                    match PARTS {
                        parts::ANY => sides.choose::<S>(pixel, channel, gated, value),
                        _ => sides.choose_aligned::<S>(pixel, channel, gated, value),
                    }
                }
                Gated::Soft { input, low, high, leak, .. } if PARTS & (parts::SOFT | parts::ANY) != 0 => {
                    let z = load::<S, WHOLE>(input.at(pixel).add(channel), count);
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
/// of two knees times that, and `exp(-2 *` the same`)`.
struct Steps<S: Simd>([S::V; 3]);

/// A part of a finish, which is there when `PARTS` says so.
///
/// # Safety
/// `PARTS` are those of the finish, or [`parts::ANY`].
#[inline(always)]
unsafe fn known<const PARTS: u32, T>(which: u32, part: Option<T>) -> Option<T> {
    if PARTS == parts::ANY {
        return part;
    }
    // SAFETY: the caller's.
    (PARTS & which != 0).then(|| unsafe { part.unwrap_unchecked() })
}

/// The sums of a [`Block`] under a finish of these parts.
struct Rows<'a, const PARTS: u32> {
    finish: &'a Finish<'a>,
    block: Block,
    sums: *const f32,
    row: usize,
    step: usize,
}

impl<const PARTS: u32> Job for Rows<'_, PARTS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // A copy, which stays in registers while memory is written.
        let finish = *self.finish;
        let Self { block, sums, row, step, .. } = self;
        let mut c = 0;
        while c < block.channels {
            let (channel, count) = (block.channel + c, block.channels - c);
            // SAFETY: the caller's.
            let steps = unsafe {
                match count >= S::LANES {
                    true => finish.steps::<S, PARTS, true>(channel, count),
                    false => finish.steps::<S, PARTS, false>(channel, count),
                }
            };
            for y in 0..block.rows {
                for x in 0..block.pixels {
                    let pixel = block.pixel + y * block.below + x * block.apart;
                    // SAFETY: the caller's, see `Finish::block`.
                    unsafe {
                        let sums = S::load(sums.add(y * row + x * step + c));
                        if count >= S::LANES {
                            finish.put::<S, PARTS, true>(pixel, channel, &steps, sums, count);
                        } else {
                            finish.put::<S, PARTS, false>(pixel, channel, &steps, sums, count);
                        }
                    }
                }
            }
            c += S::LANES;
        }
    }
}

/// A whole vector, or its first `count` values.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn load<S: Simd, const WHOLE: bool>(from: *const f32, count: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { if WHOLE { S::load(from) } else { S::load_some(from, count) } }
}
