//! Activation mask: one or two bits per value that record which branch of a piecewise linear activation was taken.
#![expect(unsafe_code, reason = "bits of maps that are shared by the threads of a pass")]

use crate::engine::cpu::breakpoints::Breakpoints;
use crate::engine::cpu::simd::vector::Simd;

/// All that the backward pass of a piecewise linear activation reads. One bit per value: set where the pre-activation
/// was outside the linear range (or NaN). Clipped activations have a second bit plane, after the first in each pixel,
/// for values at or above the upper breakpoint.
///
/// This is a pointer like [`FeatureMap`](super::feature_map::FeatureMap), with the same obligations. Another
/// [`ActivationMask::SLACK_BYTES`] bytes after the end must be readable.
#[derive(Clone, Copy)]
pub(crate) struct ActivationMask {
    data: *mut u8,
    /// Bytes from one pixel to the next.
    pixel_stride: usize,
    /// Bytes from a value's first bit to its second.
    plane_stride: usize,
    /// First channel.
    first: usize,
}

// SAFETY: as for feature maps.
unsafe impl Send for ActivationMask {}
// SAFETY: as for feature maps.
unsafe impl Sync for ActivationMask {}

/// Branch of a piecewise linear activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Branch {
    /// At or below the lower breakpoint, or NaN.
    Below,
    /// In the linear range.
    Between,
    /// At or above the upper breakpoint.
    Above,
}

/// Channels that share a byte. Kernels write masks starting at a multiple of it.
pub(crate) const CHANNELS_PER_BYTE: usize = 8;

impl ActivationMask {
    /// Bytes after the end that a vector may read.
    pub(crate) const SLACK_BYTES: usize = 8;

    /// Bytes per pixel.
    pub(crate) fn bytes(channels: usize, breakpoints: &Breakpoints) -> usize {
        channels.div_ceil(CHANNELS_PER_BYTE) * if breakpoints.high < f32::INFINITY { 2 } else { 1 }
    }

    /// The mask of an activation with these breakpoints, for pixels of `channels` channels.
    pub(crate) fn new(data: *mut u8, channels: usize, breakpoints: &Breakpoints) -> Self {
        let (pixel_stride, plane_stride) = (Self::bytes(channels, breakpoints), channels.div_ceil(CHANNELS_PER_BYTE));
        Self { data, pixel_stride, plane_stride, first: 0 }
    }

    /// The mask of the channels from `first` on.
    #[inline(always)]
    pub(crate) fn slice(&self, first: usize) -> Self {
        Self { first: self.first + first, ..*self }
    }

    /// The byte of a channel, and its bit there.
    #[inline(always)]
    fn at(&self, pixel: usize, channel: usize) -> (*mut u8, usize) {
        let channel = self.first + channel;
        (self.data.wrapping_add(pixel * self.pixel_stride + channel / CHANNELS_PER_BYTE), channel % CHANNELS_PER_BYTE)
    }

    /// Whether a channel starts a byte.
    #[inline(always)]
    pub(crate) fn is_aligned(&self, channel: usize) -> bool {
        (self.first + channel).is_multiple_of(CHANNELS_PER_BYTE)
    }

    /// Records the branches of the first `count` pre-activations of a vector, as far as the pixel has channels.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channel lie in the map, and the channel starts a byte.
    #[inline(always)]
    pub(crate) unsafe fn record<S: Simd>(
        &self,
        pixel: usize,
        channel: usize,
        x: S::V,
        breakpoints: &Breakpoints,
        count: usize,
    ) {
        let (to, bit) = self.at(pixel, channel);
        debug_assert_eq!(bit, 0);
        // SAFETY: the caller's; the bits of each pixel fill whole bytes.
        unsafe {
            let mut outside = S::unless_greater(x, S::splat(breakpoints.low));
            if breakpoints.high < f32::INFINITY {
                let above = S::where_at_least(x, S::splat(breakpoints.high));
                outside |= above;
                store::<S>(to.add(self.plane_stride), above, count);
            }
            store::<S>(to, outside, count);
        }
    }

    /// `outside` where the pre-activation was outside the linear range, else `between`.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channel lie in the map.
    #[inline(always)]
    pub(crate) unsafe fn select<S: Simd>(&self, pixel: usize, channel: usize, outside: S::V, between: S::V) -> S::V {
        let (from, bit) = self.at(pixel, channel);
        // SAFETY: the caller's; four bytes are readable.
        unsafe {
            if bit == 0 {
                return S::where_set(from, outside, between);
            }
            let bits = (from.cast::<u32>().read_unaligned() >> bit).to_le_bytes();
            S::where_set(bits.as_ptr(), outside, between)
        }
    }

    /// [`ActivationMask::select`] for a channel that starts a byte.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    pub(crate) unsafe fn select_aligned<S: Simd>(
        &self,
        pixel: usize,
        channel: usize,
        outside: S::V,
        between: S::V,
    ) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::where_set(self.at(pixel, channel).0, outside, between) }
    }

    /// Branch of one value.
    ///
    /// # Safety
    /// Pixel and channel lie in the map, and are not written meanwhile.
    pub(crate) unsafe fn branch(&self, pixel: usize, channel: usize) -> Branch {
        let (from, bit) = self.at(pixel, channel);
        // SAFETY: the caller's; there is a second bit plane if a pixel has more bytes than one plane.
        unsafe {
            let is_set = |at: *mut u8| *at >> bit & 1 == 1;
            match is_set(from) {
                false => Branch::Between,
                true if self.pixel_stride > self.plane_stride && is_set(from.add(self.plane_stride)) => Branch::Above,
                true => Branch::Below,
            }
        }
    }

    /// Prefetches the bits of a channel.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn prefetch<S: Simd>(&self, pixel: usize, channel: usize) {
        // SAFETY: a prefetch never faults.
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
        if S::LANES > CHANNELS_PER_BYTE && count > CHANNELS_PER_BYTE {
            to.cast::<u16>().write_unaligned(bits as u16);
        } else {
            *to = bits as u8;
        }
    }
}
