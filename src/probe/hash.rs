//! Hash maps and free lists of the BPF object, by system calls.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

/// Entries that one system call reads from a hash map.
const BATCH: u32 = 256;

/// Deletes a key; false when it was absent.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn delete(map: &impl MapCore, key: &[u8]) -> Result<bool> {
    match map.delete(key) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("cannot delete from a BPF map"),
    }
}

/// Puts a number that is free on its list.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn give_back(list: &impl MapCore, number: u32) -> Result<()> {
    list.update(&[], &number.to_ne_bytes(), MapFlags::ANY).context("cannot fill a free list")
}

/// Calls `visit` with the bytes of every key and with its value. `T` must be plain data of the C type's layout.
///
/// Not by [`MapCore::lookup_batch`]: it takes a batch that is not full for the last, but the kernel also ends one where
/// the next bucket does not fit (`__htab_map_lookup_and_delete_batch`).
///
/// # Errors
/// When the kernel refuses.
pub(super) fn for_each<T: Copy>(
    map: &impl MapCore,
    entries: u32,
    mut visit: impl FnMut(&[u8], T),
) -> Result<()> {
    let batch = BATCH.min(entries);
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    anyhow::ensure!(value_size >= size_of::<T>(), "a BPF map has values of {value_size} bytes");
    let mut keys = vec![0u8; batch as usize * key_size];
    let mut values = vec![0u8; batch as usize * value_size];
    // Where the next batch begins: for a hash map the number of a bucket.
    let mut place = 0u32;
    let mut begun = false;
    loop {
        let mut count = batch;
        let mut next = 0u32;
        // SAFETY: the buffers hold `count` keys and values, and a place in a hash map is a u32.
        let status = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_fd().as_raw_fd(),
                if begun { (&raw mut place).cast() } else { std::ptr::null_mut() },
                (&raw mut next).cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &raw mut count,
                std::ptr::null(),
            )
        };
        let last = status == -rustix::io::Errno::NOENT.raw_os_error();
        if status < 0 && !last {
            return Err(libbpf_rs::Error::from_raw_os_error(-status))
                .context("cannot read the requests in flight");
        }
        let entries = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size));
        for (key, value) in entries.take(count as usize) {
            // SAFETY: the value holds a `T` written by the BPF program, at any alignment; `T` is one
            // of the generated types, which are integers throughout.
            visit(key, unsafe { std::ptr::read_unaligned(value.as_ptr().cast()) });
        }
        if last {
            return Ok(());
        }
        (place, begun) = (next, true);
    }
}

/// Deletes every entry whose value `is_wanted` says, and calls `deleted` for each that was there. `T` as in [`for_each`].
///
/// An entry that is used anew meanwhile is looked at again. One that is so between that look and its deletion is lost.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn delete_where<T: Copy>(
    map: &impl MapCore,
    entries: u32,
    deleted: impl Fn(),
    is_wanted: impl Fn(T) -> bool,
) -> Result<()> {
    let mut keys = Vec::new();
    for_each(map, entries, |key, value| {
        if is_wanted(value) {
            keys.push(key.to_vec());
        }
    })?;
    for key in keys {
        let Some(value) = map.lookup(&key, MapFlags::ANY)? else { continue };
        anyhow::ensure!(
            value.len() >= size_of::<T>(),
            "a BPF map has values of {} bytes",
            value.len()
        );
        // SAFETY: as in `for_each`.
        let value = unsafe { std::ptr::read_unaligned(value.as_ptr().cast()) };
        if is_wanted(value) && delete(map, &key)? {
            deleted();
        }
    }
    Ok(())
}
