//! The daemon as systemd and an administrator see it: notifications, signals, reloads, exit codes,
//! and what it says of its disk; with the kernel's own counts as the witness. Needs root, a kernel
//! with BPF and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod adversity;
mod disk;
mod lifecycle;
mod process;
mod records;
mod reload;
mod stuck;

use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// For a test that no other may disturb; as [`able`].
fn alone(name: &str) -> Option<RwLockWriteGuard<'static, ()>> {
    can_run(name).then(|| MACHINE.write().unwrap_or_else(PoisonError::into_inner))
}

/// Whether the test `name` can run here, beside others; if not, says so. In CI it has to.
fn able(name: &str) -> Option<RwLockReadGuard<'static, ()>> {
    can_run(name).then(|| MACHINE.read().unwrap_or_else(PoisonError::into_inner))
}

fn can_run(name: &str) -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("root")
    } else if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        Some("a kernel with BTF")
    } else {
        let tools = ["losetup", "fio", "mkfs.ext4", "fsfreeze", "gzip", "faketime"];
        tools.into_iter().find(|tool| {
            let mut version = Command::new(tool);
            version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        })
    };
    let Some(missing) = missing else { return true };
    assert!(std::env::var_os("CI").is_none(), "{name}: {missing} is missing");
    eprintln!("skipped: {name} needs {missing}");
    false
}
