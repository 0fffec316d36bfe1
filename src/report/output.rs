//! Files that are whole or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that takes its name only when it is complete. Dropped before, it leaves nothing behind.
#[derive(Debug)]
pub struct Output {
    writer: Option<BufWriter<File>>,
    temporary: PathBuf,
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
        let file = File::create_new(&temporary)?;
        Ok(Self { writer: Some(BufWriter::new(file)), temporary, path: path.to_owned() })
    }

    /// Gives the file its name, in place of whatever had it.
    ///
    /// # Errors
    /// When what was written cannot be stored; then nothing is left behind.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(writer) = self.writer.take() {
            writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
        fs::rename(&self.temporary, &self.path)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().map_or(Ok(0), |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // After `finish` there is nothing of that name; any other failure has no remedy here.
        let _ = fs::remove_file(&self.temporary);
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
