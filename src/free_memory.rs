//! Giving memory back to the system.
#![expect(unsafe_code, reason = "a call of the C library")]

/// Asks the allocator to return what it holds and nobody uses. Buffers of runs and weights of models come and go in sizes
/// that the allocator of the GNU C library otherwise keeps for later.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it only looks at free memory, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
