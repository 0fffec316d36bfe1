//! Which programs stand on the block tracepoints, by asking the kernel about other processes'
//! descriptors.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A process's programs on the tracepoints of issue and completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    pub issue: u32,
    pub complete: u32,
    /// Whether any of them is on a classic tracepoint.
    pub classic: bool,
}

/// The programs of one process.
pub fn hooks_of(pid: u32) -> Hooks {
    let mut hooks = Hooks::default();
    let Ok(entries) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return hooks; // it is gone
    };
    for entry in entries.flatten() {
        let interesting = fs::read_link(entry.path()).is_ok_and(|target| {
            let target = target.to_string_lossy();
            target.contains("bpf") || target.contains("perf_event")
        });
        let fd = entry.file_name().to_string_lossy().parse();
        let (true, Ok(fd)) = (interesting, fd) else { continue };
        let Some((name, kind)) = tracepoint_of(pid, fd) else { continue };
        match name.as_str() {
            "block_rq_issue" => hooks.issue += 1,
            "block_rq_complete" => hooks.complete += 1,
            _ => continue,
        }
        hooks.classic |= kind == libbpf_sys::BPF_FD_TYPE_TRACEPOINT;
    }
    hooks
}

/// The tracepoint that a descriptor of another process has a program on.
fn tracepoint_of(pid: u32, fd: i32) -> Option<(String, u32)> {
    let mut name = [0u8; 64];
    let mut length = name.len() as u32;
    let (mut program, mut kind, mut offset, mut address) = (0, 0, 0, 0);
    // SAFETY: the buffer is as long as it is said to be, and all pointers are valid for the call.
    let result = unsafe {
        libbpf_sys::bpf_task_fd_query(
            pid.cast_signed(),
            fd,
            0,
            name.as_mut_ptr().cast(),
            &raw mut length,
            &raw mut program,
            &raw mut kind,
            &raw mut offset,
            &raw mut address,
        )
    };
    let known = [libbpf_sys::BPF_FD_TYPE_RAW_TRACEPOINT, libbpf_sys::BPF_FD_TYPE_TRACEPOINT]
        .contains(&kind);
    let text = name.get(..length as usize)?;
    (result == 0 && known).then(|| (String::from_utf8_lossy(text).into_owned(), kind))
}

/// Programs of processes that are none of ours, by process.
pub fn strangers(ours: &[u32]) -> BTreeMap<u32, Hooks> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() || ours.contains(&pid) {
            continue;
        }
        let hooks = hooks_of(pid);
        if hooks != Hooks::default() {
            found.insert(pid, hooks);
        }
    }
    found
}
