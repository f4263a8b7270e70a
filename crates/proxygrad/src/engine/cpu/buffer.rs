//! Aligned memory for weights, feature maps and scratch space.
#![expect(unsafe_code, reason = "memory is shared by the threads of a pass, which write disjoint pieces")]

/// Values of a cache line.
pub(crate) const CACHE_LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; CACHE_LINE]);

/// Values that start at a cache line, initially zero.
pub(crate) struct Buffer(Vec<CacheLine>);

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        let count = length.div_ceil(CACHE_LINE);
        let mut lines: Vec<CacheLine> = Vec::with_capacity(count);
        prefer_large_pages(lines.spare_capacity_mut());
        lines.resize(count, CacheLine([0.0; CACHE_LINE]));
        Self(lines)
    }

    /// Bytes of a buffer of this length.
    pub(crate) fn bytes(length: usize) -> usize {
        length.div_ceil(CACHE_LINE) * size_of::<CacheLine>()
    }

    /// All values, a whole number of cache lines.
    pub(crate) fn values(&self) -> &[f32] {
        // SAFETY: `CacheLine` is exactly `CACHE_LINE` values without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * CACHE_LINE) }
    }

    /// All values, a whole number of cache lines.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * CACHE_LINE) }
    }
}

/// Asks for huge pages before the first access: weights and maps are read in long strides.
fn prefer_large_pages<T>(memory: &mut [T]) {
    const PAGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(PAGE), range.end as usize / PAGE * PAGE);
    if start < end {
        #[cfg(all(target_os = "linux", not(miri)))]
        // SAFETY: whole pages of borrowed memory; the advice changes no values, and a refusal does no harm.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE);
        }
    }
}

/// A pointer that threads share: to scratch memory, or to results of which each thread writes its own pieces.
#[derive(Clone, Copy)]
pub(crate) struct SharedPtr(pub(crate) *mut f32);

// SAFETY: only a pointer; its creator guarantees that the memory outlives the pass.
unsafe impl Sync for SharedPtr {}

impl SharedPtr {
    pub(crate) fn of(buffer: &mut Buffer) -> Self {
        Self(buffer.values_mut().as_mut_ptr())
    }

    pub(crate) fn pointer(self) -> *mut f32 {
        self.0
    }
}
