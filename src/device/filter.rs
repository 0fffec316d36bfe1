//! Which disks are measured: globs of names. Pure but for the look-up of `/dev` paths.

use std::path::Path;

use globset::{Glob, GlobSet, GlobSetBuilder};
use thiserror::Error;

use super::sysfs::Sysfs;

/// A pattern that is no glob.
#[derive(Debug, Error)]
#[error("`{pattern}` is no valid device glob: {reason}; expected for example `nvme*` or `sd[ab]`")]
pub struct FilterError {
    /// As it was given.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Accepts disks by name.
#[derive(Clone, Debug)]
pub struct Filter {
    include: GlobSet,
    exclude: GlobSet,
    /// Each include pattern as it was given, with its glob.
    patterns: Vec<(String, Glob)>,
}

impl Filter {
    /// A filter that accepts what matches `include` and does not match `exclude`.
    ///
    /// A pattern may also be a path in `/dev` or the name of a partition; both stand for the disk.
    ///
    /// # Errors
    /// When a pattern is no glob.
    pub fn new(include: &[String], exclude: &[String], sysfs: &Sysfs) -> Result<Self, FilterError> {
        let globs = |patterns: &[String]| {
            patterns
                .iter()
                .map(|pattern| Ok((pattern.clone(), glob_of(pattern, sysfs)?)))
                .collect::<Result<Vec<_>, FilterError>>()
        };
        let set = |globs: &[(String, Glob)]| {
            let mut builder = GlobSetBuilder::new();
            for (_, glob) in globs {
                builder.add(glob.clone());
            }
            builder.build().map_err(|error| FilterError {
                pattern: globs.iter().map(|(p, _)| p.as_str()).collect::<Vec<_>>().join(", "),
                reason: error.to_string(),
            })
        };
        let patterns = globs(include)?;
        Ok(Self { include: set(&patterns)?, exclude: set(&globs(exclude)?)?, patterns })
    }

    /// Whether the disk called `name` is measured.
    #[must_use]
    pub fn accepts(&self, name: &str) -> bool {
        self.include.is_match(name) && !self.exclude.is_match(name)
    }

    /// The include patterns, as they were given, that match none of `names`.
    #[must_use]
    pub fn unmatched(&self, names: &[String]) -> Vec<String> {
        let matches = |glob: &Glob| {
            let matcher = glob.compile_matcher();
            names.iter().any(|name| matcher.is_match(name))
        };
        let unmatched = self.patterns.iter().filter(|(_, glob)| !matches(glob));
        unmatched.map(|(pattern, _)| pattern.clone()).collect()
    }
}

fn glob_of(pattern: &str, sysfs: &Sysfs) -> Result<Glob, FilterError> {
    let disk = if pattern.starts_with("/dev/") {
        sysfs.disk_of_node(Path::new(pattern))
    } else {
        sysfs.disk_named(pattern)
    };
    let glob = match &disk {
        Some(disk) => globset::escape(&disk.name),
        None => pattern.strip_prefix("/dev/").unwrap_or(pattern).to_owned(),
    };
    Glob::new(&glob).map_err(|error| FilterError {
        pattern: pattern.to_owned(),
        reason: error.kind().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Result<Filter, FilterError> {
        let owned = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(include), &owned(exclude), &Sysfs::new("/nonexistent".into()))
    }

    #[test]
    fn exclude_wins() {
        let filter = filter(&["*"], &["loop*", "ram*"]).unwrap();
        assert!(filter.accepts("nvme0n1") && filter.accepts("cciss/c0d0"));
        assert!(!filter.accepts("loop0") && !filter.accepts("ram15"));
    }

    #[test]
    fn says_which_patterns_match_nothing() {
        let filter = filter(&["nvme*", "sd[xy]"], &[]).unwrap();
        assert_eq!(filter.unmatched(&["nvme0n1".into(), "sda".into()]), ["sd[xy]"]);
    }

    #[test]
    fn a_bad_glob_is_named() {
        let error = filter(&["sd[a"], &[]).unwrap_err().to_string();
        assert!(error.starts_with("`sd[a` is no valid device glob:"), "{error}");
    }

    #[test]
    fn a_path_or_partition_stands_for_its_disk() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir_all(path("sys/class/block/sda/sda1")).unwrap();
        std::fs::write(path("sys/class/block/sda/sda1/partition"), "1\n").unwrap();
        std::os::unix::fs::symlink(path("sys/class/block/sda/sda1"), path("sys/class/block/sda1"))
            .unwrap();
        std::fs::create_dir_all(path("dev/disk/by-label")).unwrap();
        std::fs::write(path("dev/sda1"), "").unwrap();
        std::os::unix::fs::symlink("../../sda1", path("dev/disk/by-label/data")).unwrap();
        let sysfs = Sysfs::new(root.path().into());
        for pattern in ["sda1", "/dev/sda1", "/dev/disk/by-label/data", "/dev/sda"] {
            let filter = Filter::new(&[pattern.into()], &[], &sysfs).unwrap();
            assert!(filter.accepts("sda") && !filter.accepts("sda1"), "{pattern}");
        }
    }
}
