//! BTF of the classic tracepoints' records, made from their format files, for kernels that publish no types.
//!
//! libbpf relocates the classic programs' reads of `struct issue_record` and its like (`bpf/kernel.h`) against it, as
//! it does with the kernel's own types: a field costs one instruction, wherever this kernel has it.
//! The form is that of the kernel's Documentation/bpf/btf.rst.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Result;

use super::facts::{ClassicFormats, CompleteFormat, IssueFormat, RequeueFormat};
use super::format::RECORD_BYTES;

/// A file in memory that holds the types.
pub(super) struct RecordTypes {
    _file: OwnedFd,
    path: CString,
}

impl RecordTypes {
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new(formats: &ClassicFormats) -> Result<Self> {
        let file = rustix::fs::memfd_create("record-types", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::io::write(&file, &encode(formats))?;
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(Self { _file: file, path })
    }

    /// Where libbpf can open it.
    pub(super) fn path(&self) -> &CStr {
        &self.path
    }
}

/// Numbers of the types that fields have, in the order in which [`encode`] writes them; 0 is `void`.
const U32: u32 = 1;
const U64: u32 = 2;
const CHAR: u32 = 3;
const CHARS: u32 = 4;
/// Kinds of types.
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
/// Characters of `rwbs` that are looked at; every kernel has more.
const RWBS_LENGTH: u32 = 3;

fn encode(formats: &ClassicFormats) -> Vec<u8> {
    let mut btf = Builder { types: Vec::new(), strings: vec![0] };
    for (name, bytes) in [("u32", 4), ("u64", 8), ("char", 1)] {
        btf.add(name, INT, 0, bytes, &[bytes * 8]);
    }
    btf.add("", ARRAY, 0, 0, &[CHAR, U32, RWBS_LENGTH]);
    let IssueFormat { dev, sector, bytes, rwbs } = formats.issue;
    btf.add_struct(
        "issue_record",
        &[("dev", U32, dev), ("sector", U64, sector), ("bytes", U32, bytes), ("rwbs", CHARS, rwbs)],
    );
    let RequeueFormat { dev, sector, nr_sector, rwbs } = formats.requeue;
    btf.add_struct(
        "requeue_record",
        &[
            ("dev", U32, dev),
            ("sector", U64, sector),
            ("nr_sector", U32, nr_sector),
            ("rwbs", CHARS, rwbs),
        ],
    );
    let CompleteFormat { dev, sector, nr_sector, error, rwbs } = formats.complete;
    btf.add_struct(
        "complete_record",
        &[
            ("dev", U32, dev),
            ("sector", U64, sector),
            ("nr_sector", U32, nr_sector),
            ("error", U32, error),
            ("rwbs", CHARS, rwbs),
        ],
    );
    btf.finish()
}

struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
}

impl Builder {
    fn add(&mut self, name: &str, kind: u32, members: u32, size: u32, rest: &[u32]) {
        let name = self.string(name);
        self.types.extend([name, kind << 24 | members, size]);
        self.types.extend(rest);
    }

    /// `fields`: name, type, offset in bytes.
    fn add_struct(&mut self, name: &str, fields: &[(&str, u32, u32)]) {
        let members: Vec<u32> = fields
            .iter()
            .flat_map(|&(name, of_type, offset)| [self.string(name), of_type, offset * 8])
            .collect();
        self.add(name, STRUCT, fields.len() as u32, RECORD_BYTES, &members);
    }

    /// The place of a string among the strings.
    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let place = self.strings.len() as u32;
        self.strings.extend(text.bytes());
        self.strings.push(0);
        place
    }

    fn finish(self) -> Vec<u8> {
        let types: Vec<u8> = self.types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = Vec::new();
        bytes.extend(0xeb9f_u16.to_ne_bytes()); // magic
        bytes.extend([1, 0]); // version, flags
        let (types_length, strings_length) = (types.len() as u32, self.strings.len() as u32);
        for field in [24, 0, types_length, types_length, strings_length] {
            // header length; types: offset, length; strings: offset, length
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(self.strings);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::btf::Btf;
    use libbpf_rs::btf::types::{MemberAttr, Struct};

    use super::*;

    #[test]
    fn libbpf_reads_the_offsets() {
        let issue = IssueFormat { dev: 8, sector: 16, bytes: 28, rwbs: 34 };
        let requeue = RequeueFormat { dev: 8, sector: 16, nr_sector: 24, rwbs: 30 };
        let complete = CompleteFormat { dev: 8, sector: 16, nr_sector: 24, error: 28, rwbs: 34 };
        let types = RecordTypes::new(&ClassicFormats { issue, requeue, complete }).unwrap();
        let btf = Btf::from_path(types.path().to_str().unwrap()).unwrap();
        let offsets = |name: &str| {
            let record = btf.type_by_name::<Struct<'_>>(name).unwrap();
            let offset = |attribute| match attribute {
                MemberAttr::Normal { offset } => offset / 8,
                MemberAttr::BitField { .. } => panic!("a bit field"),
            };
            record
                .iter()
                .map(|member| (member.name.unwrap().to_str().unwrap(), offset(member.attr)))
                .map(|(name, offset)| format!("{name} {offset}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert_eq!(offsets("issue_record"), "dev 8, sector 16, bytes 28, rwbs 34");
        assert_eq!(offsets("requeue_record"), "dev 8, sector 16, nr_sector 24, rwbs 30");
        assert_eq!(offsets("complete_record"), "dev 8, sector 16, nr_sector 24, error 28, rwbs 34");
    }
}
