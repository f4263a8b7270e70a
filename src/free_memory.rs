//! Returns free heap memory to the operating system.
#![expect(unsafe_code, reason = "a call of the C library")]

/// Asks the allocator to release unused memory: glibc otherwise keeps large freed buffers and weights for reuse.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it only touches free memory, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
