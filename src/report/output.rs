//! Files that are whole or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// A file that takes its name only when it is complete. Dropped before, or killed, it leaves
/// nothing behind: until then it has no name at all, where the file system can do that.
#[derive(Debug)]
pub struct Output {
    writer: BufWriter<File>,
    temporary: PathBuf,
    /// Whether the temporary name is taken: always, where a file cannot be without a name.
    named: bool,
    path: PathBuf,
}

impl Output {
    /// Begins a file that will be `path`.
    ///
    /// # Errors
    /// When it cannot be created beside its place.
    pub fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::other("it does not name a file"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let (file, named) = match rustix::fs::open(directory, flags, Mode::from(0o666)) {
            Ok(file) => (File::from(file), false),
            // How file systems and kernels without O_TMPFILE answer.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                (File::create_new(&temporary)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { writer: BufWriter::new(file), temporary, named, path: path.to_owned() })
    }

    /// Gives the file its name, in place of whatever had it.
    ///
    /// # Errors
    /// When what was written cannot be stored; then nothing is left behind.
    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()?;
        let file = self.writer.get_ref();
        file.sync_all()?;
        if !self.named {
            // A link cannot replace a file, a rename can: hence the name in between.
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, link, CWD, &self.temporary, AtFlags::SYMLINK_FOLLOW)?;
            self.named = true;
        }
        fs::rename(&self.temporary, &self.path)?;
        self.named = false;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.named {
            // If that fails too, there is no further remedy.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `bytes` to `path`, whole or not at all.
///
/// # Errors
/// When the file cannot be written; what was there stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut output = Output::create(path)?;
    output.write_all(bytes)?;
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_absent() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.csv");
        let files = || fs::read_dir(root.path()).unwrap().count();
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"half").unwrap();
        output.flush().unwrap();
        assert!(!path.exists());
        drop(output);
        assert_eq!(files(), 0);
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(files(), 1);
        assert!(replace(Path::new("/"), b"").is_err());
    }
}
