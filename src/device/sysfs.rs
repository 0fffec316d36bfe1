//! What sysfs says of disks. Takes a root directory, so that tests can show it another machine.

use std::fs;
use std::path::{Path, PathBuf};

/// One disk as sysfs publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name, for example `nvme0n1`; sysfs writes a `/` in it as `!`.
    pub name: String,
    /// `diskseq`, which is never used twice; `None` before 5.15.
    pub diskseq: Option<u64>,
}

/// A `/sys` tree.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// The tree under `root`.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The disk with number `device_id` (`major << 20 | minor`), or the disk of the partition
    /// with that number; `None` when it is not published (hidden NVMe paths are not).
    #[must_use]
    pub fn disk(&self, device_id: u32) -> Option<Disk> {
        let link =
            self.root.join(format!("sys/dev/block/{}:{}", device_id >> 20, device_id & 0xfffff));
        self.disk_of(&fs::canonicalize(link).ok()?)
    }

    /// The disk that a path in `/dev` (a disk, a partition or a link to one) belongs to.
    #[must_use]
    pub fn disk_of_node(&self, node: &Path) -> Option<Disk> {
        let node = self.root.join(node.strip_prefix("/").ok()?);
        // As a service the daemon sees the links in /dev/disk, but not the nodes they point to.
        let target = fs::canonicalize(&node).or_else(|_| fs::read_link(&node)).unwrap_or(node);
        self.disk_named(target.file_name()?.to_str()?)
    }

    /// The disk with this name, or the disk of the partition with this name.
    #[must_use]
    pub fn disk_named(&self, name: &str) -> Option<Disk> {
        let directory = self.root.join("sys/class/block").join(name.replace('/', "!"));
        self.disk_of(&fs::canonicalize(directory).ok()?)
    }

    fn disk_of(&self, directory: &Path) -> Option<Disk> {
        // A partition's directory lies in its disk's.
        let disk =
            if directory.join("partition").exists() { directory.parent()? } else { directory };
        Some(Disk {
            name: disk.file_name()?.to_str()?.replace('!', "/"),
            diskseq: read_number(&disk.join("diskseq")),
        })
    }

    /// Whether the disk that `then` was published under this number is there no longer. A disk that
    /// never was published cannot be seen to go.
    #[must_use]
    pub fn is_gone(&self, device_id: u32, then: Option<&Disk>) -> bool {
        then.is_some_and(|then| self.disk(device_id).as_ref() != Some(then))
    }

    /// Number (`major << 20 | minor`) and description of every published disk.
    #[must_use]
    pub fn disks(&self) -> Vec<(u32, Disk)> {
        let numbered = |name: String| {
            let directory = self.root.join("sys/block").join(name.replace('/', "!"));
            let dev = fs::read_to_string(directory.join("dev")).ok()?;
            let (major, minor) = dev.trim().split_once(':')?;
            let device_id = major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?;
            Some((device_id, Disk { diskseq: read_number(&directory.join("diskseq")), name }))
        };
        self.disk_names().into_iter().filter_map(numbered).collect()
    }

    /// Whether the kernel itself has nothing in flight on this disk; `None` when it does not say (its
    /// accounting is off, or the disk is not published).
    #[must_use]
    pub fn is_idle(&self, name: &str) -> Option<bool> {
        let directory = self.root.join("sys/block").join(name.replace('/', "!"));
        if read_number(&directory.join("queue/iostats"))? == 0 {
            return None;
        }
        let inflight = fs::read_to_string(directory.join("inflight")).ok()?;
        Some(inflight.split_whitespace().all(|number| number == "0"))
    }

    /// Names of all published disks.
    #[must_use]
    pub fn disk_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("sys/block"));
        let names = entries.into_iter().flatten().flatten();
        names.filter_map(|entry| Some(entry.file_name().to_str()?.replace('!', "/"))).collect()
    }
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_partitions_to_their_disk() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("sys/devices/x/cciss!c0d0/cciss!c0d0p1")).unwrap();
        fs::write(path("sys/devices/x/cciss!c0d0/diskseq"), "9\n").unwrap();
        fs::write(path("sys/devices/x/cciss!c0d0/cciss!c0d0p1/partition"), "1\n").unwrap();
        fs::create_dir_all(path("sys/dev/block")).unwrap();
        fs::create_dir_all(path("sys/class/block")).unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(path(to), path(at)).unwrap();
        link("sys/devices/x/cciss!c0d0/cciss!c0d0p1", "sys/dev/block/104:1");
        link("sys/devices/x/cciss!c0d0/cciss!c0d0p1", "sys/class/block/cciss!c0d0p1");
        let sysfs = Sysfs::new(root.path().into());
        let disk = Disk { name: "cciss/c0d0".into(), diskseq: Some(9) };
        assert_eq!(sysfs.disk(104 << 20 | 1), Some(disk.clone()));
        assert_eq!(sysfs.disk_named("cciss/c0d0p1"), Some(disk.clone()));
        fs::create_dir_all(path("dev/disk/by-id")).unwrap();
        let by_id = path("dev/disk/by-id/x-part1");
        std::os::unix::fs::symlink("../../cciss!c0d0p1", by_id).unwrap();
        for node in ["/dev/disk/by-id/x-part1", "/dev/cciss!c0d0p1"] {
            assert_eq!(sysfs.disk_of_node(Path::new(node)), Some(disk.clone()), "{node}");
        }
        assert_eq!(sysfs.disk_of_node(Path::new("/dev/disk/by-id/y")), None);
        assert_eq!(sysfs.disk(8 << 20), None);
        assert!(!sysfs.is_gone(104 << 20 | 1, Some(&disk)));
        assert!(sysfs.is_gone(8 << 20, Some(&disk)));
        assert!(!sysfs.is_gone(8 << 20, None));
    }
}
