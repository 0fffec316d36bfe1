//! The memory of a mmap-able BPF array, seen from user space.
//!
//! The BPF programs write it at any time from any CPU, so every access here is atomic; there are no
//! references to plain data. This is the only module that maps memory.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use libbpf_rs::MapCore;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Types that may be read from a map while the kernel writes it.
///
/// # Safety
/// Every field must be an atomic integer (or an array or struct of them), so that any bit pattern
/// is valid and a concurrent write is no data race; the layout must be that of the C type.
pub unsafe trait Shared {}

/// A BPF array map as a slice of `T`.
#[derive(Debug)]
pub struct SharedArray<T> {
    start: NonNull<T>,
    entries: usize,
    mapped_bytes: usize,
    elements: PhantomData<T>,
}

// SAFETY: `T: Shared` consists of atomics, which any thread may use; the mapping belongs to the
// process, not to a thread.
unsafe impl<T: Shared> Send for SharedArray<T> {}

impl<T: Shared> SharedArray<T> {
    /// Maps the memory of `map`, which must have been created with `BPF_F_MMAPABLE`; a value holds one
    /// or several `T`.
    ///
    /// # Errors
    /// When the map's values are not made of `T`s, or the kernel refuses.
    pub fn map(map: &impl MapCore) -> std::io::Result<Self> {
        let value_size = map.value_size() as usize;
        if value_size == 0 || !value_size.is_multiple_of(size_of::<T>()) {
            return Err(std::io::Error::other(format!(
                "map {} has values of {value_size} bytes, expected a multiple of {}",
                map.name().to_string_lossy(),
                size_of::<T>()
            )));
        }
        let entries = map.max_entries() as usize * (value_size / size_of::<T>());
        let page = rustix::param::page_size();
        let mapped_bytes = (entries * size_of::<T>()).next_multiple_of(page);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.as_fd(),
                0,
            )?
        };
        let start = NonNull::new(start.cast())
            .ok_or_else(|| std::io::Error::other("a map was mapped at address 0"))?;
        Ok(Self { start, entries, mapped_bytes, elements: PhantomData })
    }

    /// The array's elements.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the mapping holds `entries` elements, page-aligned, and lives as long as `self`;
        // `T: Shared` allows any content and concurrent writers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.entries) }
    }
}

impl<T> Drop for SharedArray<T> {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `map`, and no reference outlives `self`.
        // A failure leaves it mapped, which is harmless.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.mapped_bytes) };
    }
}

macro_rules! shared {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* } of $bytes:literal) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug)]
        #[allow(missing_docs, reason = "the fields are explained in bpf/blkiolat.h")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        // SAFETY: all fields are atomics; the size is that of the C type, asserted there too.
        unsafe impl Shared for $name {}
        const _: () = assert!(size_of::<$name>() == $bytes);
    };
}

shared! {
    /// `struct inflight`.
    Inflight { key: AtomicU64, start_ns: AtomicU64, } of 16
}
shared! {
    /// `struct inflight_set`.
    InflightSet { way: [Inflight; super::plan::WAYS as usize], } of 64
}
shared! {
    /// `struct device`.
    Device {
        identity: AtomicU64,
        major: AtomicU32,
        minor: AtomicU32,
        generation: AtomicU32,
        cell: [AtomicU32; super::OPERATIONS],
        pad: [AtomicU32; 6],
        name: [std::sync::atomic::AtomicU8; 32],
        pad_to_line: [AtomicU32; 8],
    } of 128
}
shared! {
    /// `struct flow`.
    Flow {
        issued: AtomicU64,
        completed: AtomicU64,
        requeues: AtomicU64,
        max_inflight: AtomicU64,
        checked_ns: AtomicU64,
        dropped: AtomicU64,
        cell: [AtomicU16; super::OPERATIONS],
        pad: [AtomicU16; 3],
    } of 64
}
shared! {
    /// `struct cell`.
    Cell {
        bytes: AtomicU64,
        sum_ns: AtomicU64,
        max_ns: AtomicU64,
        errors: AtomicU64,
        buckets: [AtomicU32; crate::histogram::BUCKETS],
        pad: [AtomicU32; 7],
    } of 2176
}

// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU64 {}
