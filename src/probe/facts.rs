//! What this machine and its kernel are: read once before a plan is made.
//!
//! The readers take a root directory, so that tests can show them another machine.

use std::fs;
use std::path::{Path, PathBuf};

use libbpf_rs::btf::types::{Enum, FuncProto, Struct};
use libbpf_rs::btf::{Btf, BtfType};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::format::{Format, FormatError};

/// The facts that decide how requests are measured.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`, for messages only: nothing is decided by it.
    pub kernel_release: String,
    /// What the kernel's BTF says, or why there is none.
    pub btf: Result<BtfFacts, String>,
    /// What the bio layer needs of the kernel's BTF, or why it cannot be had.
    pub bio: Result<BioFacts, String>,
    /// Whether BPF has an atomic compare-and-exchange (91c960b00566, 5.12).
    pub atomic_exchange: bool,
    /// Offsets in the records of the classic tracepoints, or why they cannot be had.
    pub classic: Result<ClassicFormats, String>,
    /// Numbers of the machine that sizes follow from.
    pub machine: Machine,
}

/// What the kernel's BTF says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BtfFacts {
    /// Arguments of `block_rq_issue`, the leading `void *` left out.
    pub issue_arguments: Vec<String>,
    /// Arguments of `block_rq_complete`.
    pub complete_arguments: Vec<String>,
    /// Size of `struct request`, in bytes.
    pub request_size: usize,
    /// Whether a program cannot interrupt itself on a CPU (05b24ff9b2cf, 6.1).
    pub recursion_guard: bool,
}

/// What the kernel's BTF says of bios.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BioFacts {
    /// Arguments of `block_bio_queue`; since 5.11 without the first, the queue.
    pub queue_arguments: Vec<String>,
    /// Arguments of `block_bio_complete`.
    pub complete_arguments: Vec<String>,
    /// `1 << BIO_CLONED`; the enumeration has no name and other members from time to time.
    pub cloned_flag: u32,
    /// `1 << BIO_CHAIN`.
    pub chain_flag: u32,
    /// `RQF_FLUSH_SEQ`: a macro, bit 4, until the flags became an enumeration (6.11 or 6.12).
    pub flush_sequence_flag: u32,
}

/// Offsets, in bytes, of what is read from the classic tracepoints' records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassicFormats {
    /// `block_rq_issue`.
    pub issue: IssueFormat,
    /// `block_rq_requeue`.
    pub requeue: RequeueFormat,
    /// `block_rq_complete`.
    pub complete: CompleteFormat,
}

/// Offsets in the record of `block_rq_issue`.
#[allow(missing_docs, reason = "the names are the kernel's")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IssueFormat {
    pub dev: u32,
    pub sector: u32,
    pub bytes: u32,
    pub rwbs: u32,
}

/// Offsets in the record of `block_rq_requeue`.
#[allow(missing_docs, reason = "the names are the kernel's")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequeueFormat {
    pub dev: u32,
    pub sector: u32,
    pub nr_sector: u32,
    pub rwbs: u32,
}

/// Offsets in the record of `block_rq_complete`.
#[allow(missing_docs, reason = "the names are the kernel's")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompleteFormat {
    pub dev: u32,
    pub sector: u32,
    pub nr_sector: u32,
    pub error: u32,
    pub rwbs: u32,
}

/// Numbers of the machine that sizes follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Highest CPU number that can ever appear, plus one.
    pub possible_cpus: u32,
    /// Highest CPU number that is online, plus one.
    pub online_cpus: u32,
    /// Disks present.
    pub disks: u32,
    /// Requests that all disks together can have in flight: Σ hardware queues × depth.
    pub request_capacity: u64,
}

impl Facts {
    /// Reads the facts of the running machine. Never fails: what cannot be read says why.
    #[must_use]
    pub fn read() -> Self {
        Self {
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            btf: read_btf(),
            bio: read_bio(),
            atomic_exchange: has_atomic_exchange(),
            classic: tracing_directory().and_then(|directory| read_classic_formats(&directory)),
            machine: Machine::read(Path::new("/")),
        }
    }
}

const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

fn open_btf() -> Result<Btf<'static>, String> {
    let path = VMLINUX_BTF;
    if let Err(error) = fs::File::open(path) {
        return Err(format!(
            "{path}: {error} (a kernel built with CONFIG_DEBUG_INFO_BTF=y has it)"
        ));
    }
    Btf::from_path(path).map_err(|error| format!("{path}: {error}"))
}

fn read_bio() -> Result<BioFacts, String> {
    let btf = open_btf()?;
    let flag = |name: &str| {
        let bit = enumerator(&btf, name)?;
        (0..32).contains(&bit).then(|| 1 << bit)
    };
    let needed = |name: &str| {
        flag(name).ok_or_else(|| format!("{VMLINUX_BTF} does not describe the flag {name}"))
    };
    if enumerator(&btf, "BPF_FUNC_loop").is_none() {
        return Err("the kernel has no bpf_loop(), which Linux 5.17 and newer have".into());
    }
    Ok(BioFacts {
        queue_arguments: tracepoint_arguments(&btf, "block_bio_queue")?,
        complete_arguments: tracepoint_arguments(&btf, "block_bio_complete")?,
        cloned_flag: needed("BIO_CLONED")?,
        chain_flag: needed("BIO_CHAIN")?,
        flush_sequence_flag: flag("__RQF_FLUSH_SEQ").unwrap_or(1 << 4),
    })
}

/// The value of a member of any enumeration, which may have no name of its own.
fn enumerator(btf: &Btf<'_>, name: &str) -> Option<i64> {
    btf.type_by_kind::<Enum<'_>>().find_map(|of| {
        let mut members = of.iter();
        members.find(|member| member.name.is_some_and(|n| n == name)).map(|member| member.value)
    })
}

fn read_btf() -> Result<BtfFacts, String> {
    let btf = open_btf()?;
    let request = btf
        .type_by_name::<Struct<'_>>("request")
        .or_else(|| {
            btf.type_by_kind::<Struct<'_>>().find(|t| t.name().is_some_and(|n| n == "request"))
        })
        .ok_or_else(|| format!("{VMLINUX_BTF} does not describe `struct request`"))?;
    Ok(BtfFacts {
        issue_arguments: tracepoint_arguments(&btf, "block_rq_issue")?,
        complete_arguments: tracepoint_arguments(&btf, "block_rq_complete")?,
        request_size: libbpf_rs::btf::HasSize::size(&request),
        recursion_guard: btf.type_by_name::<BtfType<'_>>("bpf_prog_inc_misses_counter").is_some(),
    })
}

/// Type names of a tracepoint's arguments; `typedef void (*btf_trace_NAME)(void *, ...)`.
fn tracepoint_arguments(btf: &Btf<'_>, name: &str) -> Result<Vec<String>, String> {
    let missing = || format!("the kernel's BTF does not describe the tracepoint {name}");
    let pointer = btf
        .type_by_name::<BtfType<'_>>(&format!("btf_trace_{name}"))
        .ok_or_else(missing)?
        .skip_mods_and_typedefs();
    let prototype = pointer.next_type().ok_or_else(missing)?;
    let prototype = FuncProto::try_from(prototype).map_err(|_| missing())?;
    let describe = |id| {
        let mut text = String::new();
        let mut next = btf.type_by_id::<BtfType<'_>>(id);
        while let Some(t) = next {
            if let Some(name) = t.name().filter(|name| !name.is_empty()) {
                text.insert_str(0, &name.to_string_lossy());
                break;
            }
            if t.kind() == libbpf_rs::btf::BtfKind::Ptr {
                text.push_str(" *");
            }
            next = t.next_type();
        }
        text
    };
    Ok(prototype.iter().skip(1).map(|parameter| describe(parameter.ty)).collect())
}

/// Loads and drops a program of four instructions that needs the feature.
fn has_atomic_exchange() -> bool {
    /// `enum bpf_prog_type` and opcodes of `uapi/linux/bpf.h`.
    const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
    let instruction = |code, registers, off, imm| libbpf_sys::bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: libbpf_sys::__BindgenBitfieldUnit::new([registers]),
        off,
        imm,
    };
    let program = [
        instruction(0xb7, 0x00, 0, 0),     // r0 = 0
        instruction(0x7b, 0x0a, -8, 0),    // *(u64 *)(r10 - 8) = r0
        instruction(0xb7, 0x01, 0, 1),     // r1 = 1
        instruction(0xdb, 0x1a, -8, 0xf1), // r0 = cmpxchg((u64 *)(r10 - 8), r0, r1)
        instruction(0xb7, 0x00, 0, 0),     // r0 = 0
        instruction(0x95, 0x00, 0, 0),     // exit
    ];
    // SAFETY: both strings are NUL-terminated, the instructions outlive the call, and no options
    // are given.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            BPF_PROG_TYPE_SOCKET_FILTER,
            c"cmpxchg".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as _,
            std::ptr::null_mut(),
        )
    };
    if fd < 0 {
        return false;
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
    true
}

/// Whether this process may create BPF maps at all, and why not.
///
/// # Errors
/// The kernel's answer to an attempt.
pub fn try_bpf() -> Result<(), libbpf_rs::Error> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
        ..Default::default()
    };
    let map = MapHandle::create(MapType::Array, Some("blkiolat_probe"), 4, 4, 1, &options)?;
    map.update(&0u32.to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY)
}

/// Where tracefs is mounted.
///
/// # Errors
/// Says what to do when it is mounted nowhere or cannot be read.
pub fn tracing_directory() -> Result<PathBuf, String> {
    let mut reason = String::from("is empty");
    for candidate in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        let path = Path::new(candidate);
        match fs::metadata(path.join("events/block")) {
            Ok(_) => return Ok(path.to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                reason = format!("{candidate}: {error}");
            }
            Err(_) => {}
        }
    }
    Err(format!(
        "tracefs is not mounted or not readable ({reason}); \
         `mount -t tracefs tracefs /sys/kernel/tracing` as root mounts it"
    ))
}

fn read_classic_formats(tracing: &Path) -> Result<ClassicFormats, String> {
    let read = |event: &str| {
        let path = tracing.join("events/block").join(event).join("format");
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, Format::parse(&text))),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    };
    let in_file = |path: &Path, error: FormatError| format!("{} {error}", path.display());
    let dev = |f: &Format| f.offset("dev", 4..=4, "4");
    let sector = |f: &Format| f.offset("sector", 8..=8, "8");
    let nr_sector = |f: &Format| f.offset("nr_sector", 4..=4, "4");
    let rwbs = |f: &Format| f.offset("rwbs", 4..=64, "4 or more");
    let (path, format) = read("block_rq_issue")?;
    let issue = (|| {
        Ok(IssueFormat {
            dev: dev(&format)?,
            sector: sector(&format)?,
            bytes: format.offset("bytes", 4..=4, "4")?,
            rwbs: rwbs(&format)?,
        })
    })()
    .map_err(|error| in_file(&path, error))?;
    let (path, format) = read("block_rq_requeue")?;
    let requeue = (|| {
        Ok(RequeueFormat {
            dev: dev(&format)?,
            sector: sector(&format)?,
            nr_sector: nr_sector(&format)?,
            rwbs: rwbs(&format)?,
        })
    })()
    .map_err(|error| in_file(&path, error))?;
    let (path, format) = read("block_rq_complete")?;
    let complete = (|| {
        Ok(CompleteFormat {
            dev: dev(&format)?,
            sector: sector(&format)?,
            nr_sector: nr_sector(&format)?,
            // `errors` before 5.16 (8a7d267b4a2c renamed it with its type).
            error: format
                .offset("error", 4..=4, "4")
                .or_else(|_| format.offset("errors", 4..=4, "4"))?,
            rwbs: rwbs(&format)?,
        })
    })()
    .map_err(|error| in_file(&path, error))?;
    Ok(ClassicFormats { issue, requeue, complete })
}

impl Machine {
    /// Reads the machine whose `/sys` is under `root`. What cannot be read counts as small, and a disk without a size not at all.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let cpus = |name: &str| {
            fs::read_to_string(root.join("sys/devices/system/cpu").join(name))
                .ok()
                .and_then(|text| cpu_list_end(&text))
        };
        let online_cpus = cpus("online").unwrap_or(1);
        let mut disks = 0;
        let mut request_capacity = 0;
        for disk in fs::read_dir(root.join("sys/block")).into_iter().flatten().flatten() {
            // A loop node without a file, or a card reader without a card: 64 of the first are common.
            if fs::read_to_string(disk.path().join("size")).is_ok_and(|size| size.trim() == "0") {
                continue;
            }
            disks += 1;
            request_capacity += disk_capacity(&disk.path());
        }
        Self {
            possible_cpus: cpus("possible").unwrap_or(online_cpus).max(online_cpus),
            online_cpus,
            disks,
            request_capacity,
        }
    }
}

/// Requests that one disk can have in flight; 0 for a bio-based disk, which has no queues.
fn disk_capacity(disk: &Path) -> u64 {
    let queues = fs::read_dir(disk.join("mq")).map_or(0, |queues| queues.flatten().count() as u64);
    let depth = fs::read_to_string(disk.join("queue/nr_requests"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0u64);
    queues * depth
}

/// The highest CPU number in a list like `0-3,8`, plus one.
fn cpu_list_end(text: &str) -> Option<u32> {
    let last = text.trim().rsplit([',', '-']).next()?;
    last.parse::<u32>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_lists() {
        assert_eq!(cpu_list_end("0\n"), Some(1));
        assert_eq!(cpu_list_end("0-3\n"), Some(4));
        assert_eq!(cpu_list_end("0-3,8,12-15\n"), Some(16));
        assert_eq!(cpu_list_end("\n"), None);
    }

    #[test]
    fn reads_another_machine() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("sys/devices/system/cpu/possible", "0-239\n");
        put("sys/devices/system/cpu/online", "0-7\n");
        put("sys/block/nvme0n1/queue/nr_requests", "1023\n");
        for queue in 0..8 {
            put(&format!("sys/block/nvme0n1/mq/{queue}/nr_tags"), "1023\n");
        }
        put("sys/block/dm-0/queue/nr_requests", "128\n");
        put("sys/block/loop0/size", "0\n");
        put("sys/block/loop0/queue/nr_requests", "128\n");
        put("sys/block/loop0/mq/0/nr_tags", "128\n");
        let machine = Machine::read(root.path());
        assert_eq!(
            machine,
            Machine { possible_cpus: 240, online_cpus: 8, disks: 2, request_capacity: 8184 }
        );
    }
}
