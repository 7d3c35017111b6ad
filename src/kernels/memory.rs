//! Keeping freed memory: a training step frees and asks for the same large blocks again and again.
//!
//! glibc gives such blocks back to the system at once, which then has to clear every page anew: an
//! eighth of a step on four threads. [`keep_freed_memory`] tells it not to. Peak memory stays the
//! same; on other systems this does nothing.

/// Lets the allocator keep what is freed, for the rest of the process.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // SAFETY: mallopt may be called at any time; it takes two numbers.
            unsafe {
                libc::mallopt(libc::M_MMAP_MAX, 0);
                libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
            }
        });
    }
}
