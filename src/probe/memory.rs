//! The memory of a mmap-able BPF array, seen from user space.
//!
//! The BPF programs write it at any time from any CPU, so every access here is atomic; there are no
//! references to plain data. This is the only module that maps memory.

use std::cell::OnceCell;
use std::marker::PhantomData;
use std::os::fd::AsFd;
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
        let entries = map.max_entries() as usize * elements_per_value::<T>(map)?;
        Self::map_part(map, 0, entries)
    }

    /// Maps `entries` elements from element `first` on, which must begin a page.
    fn map_part(map: &impl AsFd, first: usize, entries: usize) -> std::io::Result<Self> {
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
                (first * size_of::<T>()) as u64,
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

/// A large BPF array map of which little is used, mapped in parts as they are asked for: all pages of a
/// mapping are resident from its first moment (`remap_vmalloc_range`).
#[derive(Debug)]
pub struct SharedParts<T> {
    elements_per_value: usize,
    values_per_part: usize,
    values: usize,
    parts: Vec<OnceCell<SharedArray<T>>>,
}

impl<T: Shared> SharedParts<T> {
    /// Prepares for `map`, which must have been created with `BPF_F_MMAPABLE`; a value holds a power of two
    /// of `T`.
    ///
    /// # Errors
    /// When the map's values are not made of `T`s.
    pub fn of(map: &impl MapCore) -> std::io::Result<Self> {
        Ok(Self::new(map.max_entries() as usize, elements_per_value::<T>(map)?))
    }

    fn new(values: usize, elements_per_value: usize) -> Self {
        let values_per_part =
            values_per_part(size_of::<T>(), elements_per_value, rustix::param::page_size());
        let parts = (0..values.div_ceil(values_per_part)).map(|_| OnceCell::new()).collect();
        Self { elements_per_value, values_per_part, values, parts }
    }

    /// The elements of value number `index` of `map`, the map that this was made for.
    ///
    /// # Errors
    /// When there is no such value, or the kernel refuses to map it.
    pub fn value(&self, map: &impl AsFd, index: usize) -> std::io::Result<&[T]> {
        let (number, place) = (index / self.values_per_part, index % self.values_per_part);
        let part = self.parts.get(number).filter(|_| index < self.values);
        let part =
            part.ok_or_else(|| std::io::Error::other(format!("a map has no value {index}")))?;
        if part.get().is_none() {
            let first = number * self.values_per_part;
            let values = self.values_per_part.min(self.values - first);
            let per_value = self.elements_per_value;
            let mapped = SharedArray::map_part(map, first * per_value, values * per_value)?;
            // Nobody else can have set it since: this is not shared between threads.
            let _ = part.set(mapped);
        }
        let elements = part.get().map_or(&[][..], SharedArray::as_slice);
        Ok(&elements[place * self.elements_per_value..][..self.elements_per_value])
    }
}

fn elements_per_value<T>(map: &impl MapCore) -> std::io::Result<usize> {
    let value_size = map.value_size() as usize;
    if value_size == 0 || !value_size.is_multiple_of(size_of::<T>()) {
        return Err(std::io::Error::other(format!(
            "map {} has values of {value_size} bytes, expected a multiple of {}",
            map.name().to_string_lossy(),
            size_of::<T>()
        )));
    }
    Ok(value_size / size_of::<T>())
}

/// The fewest values, a power of two, that fill whole pages, so that each part begins with one; the elements
/// in a value and the bytes of a page are powers of two.
fn values_per_part(element_size: usize, elements_per_value: usize, page: usize) -> usize {
    let power_of_two_in_size = 1 << element_size.trailing_zeros();
    (page / power_of_two_in_size / elements_per_value).max(1)
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

#[cfg(test)]
mod tests {
    use super::{Cell, SharedParts, values_per_part};
    use std::io::Write;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn parts_begin_with_a_page_and_are_as_small_as_that_allows() {
        for page in [4096, 16_384, 65_536] {
            for elements in [1, 2, 4, 32, 256] {
                for size in [64, 128, size_of::<Cell>()] {
                    let values = values_per_part(size, elements, page);
                    assert_eq!(values * elements * size % page, 0, "{size} {elements} {page}");
                    let half = values / 2 * elements * size;
                    assert!(values == 1 || !half.is_multiple_of(page), "{size} {elements} {page}");
                }
            }
        }
        assert_eq!(values_per_part(size_of::<Cell>(), 4, 4096), 8);
    }

    /// A file stands for the BPF map, which is mapped in the same way.
    #[test]
    fn a_value_is_found_in_its_part_and_no_other_part_is_mapped() {
        const VALUES: usize = 1000;
        const ELEMENTS: usize = 4;
        let mut file = tempfile::tempfile().unwrap();
        for number in 0..VALUES * ELEMENTS {
            let mut cell = [0; size_of::<Cell>()];
            cell[..8].copy_from_slice(&number.to_ne_bytes());
            file.write_all(&cell).unwrap();
        }
        let parts = SharedParts::<Cell>::new(VALUES, ELEMENTS);
        let in_a_part = parts.values_per_part;
        for index in [0, in_a_part - 1, in_a_part, VALUES - 1] {
            let value = parts.value(&file, index).unwrap();
            let numbers: Vec<u64> = value.iter().map(|cell| cell.bytes.load(Relaxed)).collect();
            let first = (index * ELEMENTS) as u64;
            assert_eq!(numbers, (first..first + ELEMENTS as u64).collect::<Vec<_>>());
        }
        let mapped = |part: usize| parts.parts[part].get().is_some();
        let expected = [0, 1, (VALUES - 1) / in_a_part];
        for part in 0..parts.parts.len() {
            assert_eq!(mapped(part), expected.contains(&part), "{part}");
        }
        assert!(parts.value(&file, VALUES).is_err());
    }
}
