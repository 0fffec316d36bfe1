//! What glibc's heap keeps for later use goes back to the system: a daemon that works for milliseconds a minute should
//! not be resident for what it once needed. Other C libraries are left to themselves.

#[cfg(target_env = "gnu")]
mod glibc {
    use std::ffi::c_int;

    /// Of glibc's malloc.h.
    pub(super) const M_MMAP_THRESHOLD: c_int = -3;

    unsafe extern "C" {
        pub(super) fn malloc_trim(pad: usize) -> c_int;
        pub(super) fn mallopt(param: c_int, value: c_int) -> c_int;
    }
}

/// Gives back what nobody has allocated; worth it once, after something large: what looking at the kernel took
/// (its BTF alone is some MiB) leaves 0.4 MiB behind.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches only memory that nobody has allocated.
    unsafe {
        glibc::malloc_trim(0);
    }
}

/// From now on blocks of 128 KiB and more go back to the system when they are freed. That is where glibc begins, but it
/// raises the limit to the size of each such block that is freed, and keeps the next ones: compression's
/// buffers, 1.7 MiB after five archives.
pub(crate) fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator's, under the allocator's own lock.
    unsafe {
        glibc::mallopt(glibc::M_MMAP_THRESHOLD, 128 << 10);
    }
}
