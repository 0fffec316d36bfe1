//! An empty set of kernel types, for kernels that publish none.
//!
//! libbpf asks for the kernel's types as soon as an object has relocations, even if no program that
//! is loaded has one.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Result;

/// A file in memory with BTF that has no types.
pub(super) struct EmptyBtf {
    _file: OwnedFd,
    path: CString,
}

impl EmptyBtf {
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new() -> Result<Self> {
        let file = rustix::fs::memfd_create("no-btf", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut bytes = Vec::with_capacity(25);
        bytes.extend(0xeb9f_u16.to_ne_bytes()); // magic
        bytes.extend([1, 0]); // version, flags
        for field in [24u32, 0, 0, 0, 1] {
            // header length; types: offset, length; strings: offset, length
            bytes.extend(field.to_ne_bytes());
        }
        bytes.push(0); // the empty string
        rustix::io::write(&file, &bytes)?;
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(Self { _file: file, path })
    }

    /// Where libbpf can open it.
    pub(super) fn path(&self) -> &CStr {
        &self.path
    }
}
