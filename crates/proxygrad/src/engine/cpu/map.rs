//! Memory of a pass: aligned buffers, and channels-last maps in them.
#![expect(unsafe_code, reason = "maps are shared by the threads of a pass, which write disjoint pieces")]

/// Values of a cache line.
const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Values that start at a cache line, zero at first.
pub(super) struct Buffer(Vec<Line>);

impl Buffer {
    pub(super) fn new(length: usize) -> Self {
        let count = length.div_ceil(LINE);
        let mut lines: Vec<Line> = Vec::with_capacity(count);
        prefer_large_pages(lines.spare_capacity_mut());
        lines.resize(count, Line([0.0; LINE]));
        Self(lines)
    }

    /// Bytes of a buffer for so many values.
    pub(super) fn bytes(length: usize) -> usize {
        length.div_ceil(LINE) * size_of::<Line>()
    }

    /// All values, a whole number of cache lines.
    pub(super) fn values(&self) -> &[f32] {
        // SAFETY: `Line` is exactly `LINE` values without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LINE) }
    }

    /// All values, a whole number of cache lines.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * LINE) }
    }
}

/// Asks for large pages before memory is touched for the first time: weights and maps are read in long strides.
fn prefer_large_pages<T>(memory: &mut [T]) {
    const PAGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(PAGE), range.end as usize / PAGE * PAGE);
    if start < end {
        #[cfg(target_os = "linux")]
        // SAFETY: whole pages inside a borrowed block; the advice changes no values. A refusal does no harm.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE);
        }
    }
}

/// A pointer that threads share: to scratch memory, or to results of which each writes its own pieces.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub(super) *mut f32);

// SAFETY: only a pointer; whoever makes one answers for the memory to live as long as the pass.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn of(buffer: &mut Buffer) -> Self {
        Self(buffer.values_mut().as_mut_ptr())
    }

    pub(super) fn pointer(self) -> *mut f32 {
        self.0
    }
}

/// A batch of maps `[N,H,W,C]` somewhere in a buffer; a slice of the channels of wider maps, when `pixel > channels`.
/// What is not a feature map is a map of one pixel.
///
/// A thread's map may have only some rows in memory: `data` then lies where the first pixel would, and is only formed.
///
/// A `Map` is a pointer: whoever makes one answers for its buffer to live as long as the pass, and for the threads of the
/// pass to write disjoint pieces and to meet before they read.
#[derive(Clone, Copy)]
pub(super) struct Map {
    pub(super) data: *mut f32,
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Values between two neighbouring pixels.
    pub(super) pixel: usize,
}

// SAFETY: a map is only a pointer; its documentation says who answers for the accesses.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Pixels of one image.
    #[inline(always)]
    pub(super) fn size(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of all images.
    #[inline(always)]
    pub(super) fn pixels(&self) -> usize {
        self.images * self.size()
    }

    /// The values of a pixel, counted over all images.
    ///
    #[inline(always)]
    pub(super) fn at(&self, index: usize) -> *mut f32 {
        self.data.wrapping_add(index * self.pixel)
    }

    /// Whether pixels touch.
    #[inline(always)]
    pub(super) fn is_dense(&self) -> bool {
        self.pixel == self.channels
    }

    /// Values of one image of a dense map.
    ///
    /// # Safety
    /// The map is dense, `image < self.images`, and nobody writes the image meanwhile.
    pub(super) unsafe fn image(&self, image: usize) -> &[f32] {
        let length = self.size() * self.channels;
        // SAFETY: the caller's; a dense image is contiguous.
        unsafe { std::slice::from_raw_parts(self.data.add(image * length), length) }
    }

    /// Values of one image of a dense map.
    ///
    /// # Safety
    /// The map is dense, `image < self.images`, and nobody else reads or writes the image meanwhile.
    #[expect(clippy::mut_from_ref, reason = "a map is a pointer")]
    pub(super) unsafe fn image_mut(&self, image: usize) -> &mut [f32] {
        let length = self.size() * self.channels;
        // SAFETY: the caller's; a dense image is contiguous.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(image * length), length) }
    }

    /// Some of the channels of every pixel.
    ///
    /// # Safety
    /// `first + channels <= self.channels`.
    #[inline(always)]
    pub(super) unsafe fn slice(&self, first: usize, channels: usize) -> Self {
        // SAFETY: the first channel lies in the map.
        Self { data: unsafe { self.data.add(first) }, channels, ..*self }
    }
}
