//! Feature maps: channels-last views `[N,H,W,C]` of memory that the threads of a pass share.
#![expect(unsafe_code, reason = "maps are shared by the threads of a pass, which write disjoint pieces")]

use std::ops::Range;

/// A batch of maps `[N,H,W,C]`, or a slice of the channels of wider maps, where `pixel_stride > channels`. A tensor
/// that is not a feature map has one pixel.
///
/// A row buffer holds only some rows: `data` then points to where the first pixel would be, and is not read there.
///
/// This is a pointer. Its creator guarantees that the buffer outlives the pass, and that the threads write disjoint
/// pieces and meet at a barrier before they read them.
#[derive(Clone, Copy)]
pub(crate) struct FeatureMap {
    pub(crate) data: *mut f32,
    pub(crate) images: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    /// Values from one pixel to the next.
    pub(crate) pixel_stride: usize,
}

// SAFETY: a map is only a pointer; its documentation says who guarantees the accesses.
unsafe impl Send for FeatureMap {}
// SAFETY: as above.
unsafe impl Sync for FeatureMap {}

impl FeatureMap {
    /// Pixels of one image.
    #[inline(always)]
    pub(crate) fn size(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of all images.
    #[inline(always)]
    pub(crate) fn pixels(&self) -> usize {
        self.images * self.size()
    }

    /// First value of a pixel, counted over all images.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> *mut f32 {
        self.data.wrapping_add(index * self.pixel_stride)
    }

    /// Whether pixels are contiguous in memory.
    #[inline(always)]
    pub(crate) fn is_dense(&self) -> bool {
        self.pixel_stride == self.channels
    }

    /// Values of one image of a dense map.
    ///
    /// # Safety
    /// The map is dense, `image < self.images`, and the image is not written meanwhile.
    pub(crate) unsafe fn image(&self, image: usize) -> &[f32] {
        let length = self.size() * self.channels;
        // SAFETY: the caller's; a dense image is contiguous.
        unsafe { std::slice::from_raw_parts(self.data.add(image * length), length) }
    }

    /// Values of one image of a dense map.
    ///
    /// # Safety
    /// The map is dense, `image < self.images`, and the image is not read or written elsewhere meanwhile.
    #[expect(clippy::mut_from_ref, reason = "a map is a pointer")]
    pub(crate) unsafe fn image_mut(&self, image: usize) -> &mut [f32] {
        let length = self.size() * self.channels;
        // SAFETY: the caller's; a dense image is contiguous.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(image * length), length) }
    }

    /// Some of the channels of every pixel.
    ///
    /// # Safety
    /// `first + channels <= self.channels`.
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, first: usize, channels: usize) -> Self {
        // SAFETY: the first channel lies in the map.
        Self { data: unsafe { self.data.add(first) }, channels, ..*self }
    }

    /// Whether some pixels, counted over all images, are zero in all channels.
    ///
    /// # Safety
    /// The pixels are in memory and not written meanwhile.
    pub(crate) unsafe fn is_zero(&self, mut pixels: Range<usize>) -> bool {
        pixels.all(|pixel| {
            // SAFETY: the caller's.
            unsafe { std::slice::from_raw_parts(self.at(pixel), self.channels) }.iter().all(|&value| value == 0.0)
        })
    }
}
