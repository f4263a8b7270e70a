//! On which side of its activation's knees each value of a map lay.
#![expect(unsafe_code, reason = "bits of maps that are shared by the threads of a pass")]

use super::finish::Knees;
use super::simd::Simd;

/// A bit per value of a batch of maps: set where the value lay outside the knees, or was not a number. Where there is an
/// upper knee, behind the bits of each pixel another for each of its values: set at or above that knee. All that the
/// backward pass of a piecewise linear activation looks at.
///
/// A pointer like [`Map`](super::map::Map), with the same duties; [`Sides::SPARE`] bytes behind the last are readable.
#[derive(Clone, Copy)]
pub(super) struct Sides {
    data: *mut u8,
    /// Bytes between two neighbouring pixels.
    pixel: usize,
    /// Bytes from a value's first bit to its second.
    above: usize,
    /// First channel.
    first: usize,
}

// SAFETY: as for maps.
unsafe impl Send for Sides {}
// SAFETY: as for maps.
unsafe impl Sync for Sides {}

/// Where a value lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// At or below the lower knee, or not a number.
    Below,
    Between,
    /// At or above the upper knee.
    Above,
}

/// Channels that share a byte. Kernels write sides from channels on that begin one.
pub(super) const OCTET: usize = 8;

impl Sides {
    /// Bytes behind the last that a vector may read.
    pub(super) const SPARE: usize = 8;

    /// Bytes of a pixel.
    pub(super) fn bytes(channels: usize, knees: &Knees) -> usize {
        channels.div_ceil(OCTET) * if knees.high < f32::INFINITY { 2 } else { 1 }
    }

    /// Those of an activation with these knees, for pixels of so many channels.
    pub(super) fn new(data: *mut u8, channels: usize, knees: &Knees) -> Self {
        Self { data, pixel: Self::bytes(channels, knees), above: channels.div_ceil(OCTET), first: 0 }
    }

    /// From some channel on.
    #[inline(always)]
    pub(super) fn slice(&self, first: usize) -> Self {
        Self { first: self.first + first, ..*self }
    }

    /// The byte of a channel, and its bit there.
    #[inline(always)]
    fn at(&self, pixel: usize, channel: usize) -> (*mut u8, usize) {
        let channel = self.first + channel;
        (self.data.wrapping_add(pixel * self.pixel + channel / OCTET), channel % OCTET)
    }

    /// Whether vectors from this channel on begin at a byte.
    #[inline(always)]
    pub(super) fn is_aligned(&self, channel: usize) -> bool {
        (self.first + channel).is_multiple_of(OCTET)
    }

    /// Keeps where the first `count` values of a vector lay, as far as the pixel has channels.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channel lie in the maps, and the channel begins a byte.
    #[inline(always)]
    pub(super) unsafe fn mark<S: Simd>(&self, pixel: usize, channel: usize, x: S::V, knees: &Knees, count: usize) {
        let (to, bit) = self.at(pixel, channel);
        debug_assert_eq!(bit, 0);
        // SAFETY: the caller's; the bits of each pixel fill whole bytes.
        unsafe {
            let mut outside = S::unless_greater(x, S::splat(knees.low));
            if knees.high < f32::INFINITY {
                let above = S::where_at_least(x, S::splat(knees.high));
                outside |= above;
                store::<S>(to.add(self.above), above, count);
            }
            store::<S>(to, outside, count);
        }
    }

    /// `yes` where the value lay outside the knees, else `no`.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channel lie in the maps.
    #[inline(always)]
    pub(super) unsafe fn choose<S: Simd>(&self, pixel: usize, channel: usize, yes: S::V, no: S::V) -> S::V {
        let (from, bit) = self.at(pixel, channel);
        // SAFETY: the caller's; four bytes are readable.
        unsafe {
            if bit == 0 {
                return S::where_set(from, yes, no);
            }
            let bits = (from.cast::<u32>().read_unaligned() >> bit).to_le_bytes();
            S::where_set(bits.as_ptr(), yes, no)
        }
    }

    /// [`Sides::choose`] from a channel on that begins a byte.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    pub(super) unsafe fn choose_aligned<S: Simd>(&self, pixel: usize, channel: usize, yes: S::V, no: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::where_set(self.at(pixel, channel).0, yes, no) }
    }

    /// Where one value lay.
    ///
    /// # Safety
    /// Pixel and channel lie in the maps, and nobody writes them meanwhile.
    pub(super) unsafe fn side(&self, pixel: usize, channel: usize) -> Side {
        let (from, bit) = self.at(pixel, channel);
        // SAFETY: the caller's; there are second bits when the bytes of a pixel are more than those of its first.
        unsafe {
            let is_set = |at: *mut u8| *at >> bit & 1 == 1;
            match is_set(from) {
                false => Side::Between,
                true if self.pixel > self.above && is_set(from.add(self.above)) => Side::Above,
                true => Side::Below,
            }
        }
    }

    /// Asks for the bits of a channel.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(super) unsafe fn prefetch<S: Simd>(&self, pixel: usize, channel: usize) {
        // SAFETY: only asked for.
        unsafe { S::prefetch(self.at(pixel, channel).0.cast()) };
    }
}

/// Stores the bytes of `count` bits.
///
/// # Safety
/// They are writable.
#[inline(always)]
unsafe fn store<S: Simd>(to: *mut u8, bits: u32, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        if S::LANES > OCTET && count > OCTET {
            to.cast::<u16>().write_unaligned(bits as u16);
        } else {
            *to = bits as u8;
        }
    }
}
