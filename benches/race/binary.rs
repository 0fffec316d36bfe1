//! What was built: its size, and whether the daemon carries what only `blkiolat` needs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Binaries {
    pub daemon_bytes: u64,
    pub reader_bytes: u64,
    /// What of `blkiolat`'s was found in the daemon.
    pub needless: Vec<String>,
}

/// # Errors
/// When the binaries are not there, or `blkiolat` lacks what it must have.
pub fn examine(daemon: &Path) -> Result<Binaries> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let (daemon, reader) = (read(daemon)?, read(&daemon.with_file_name("blkiolat"))?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Symbols are stripped, so data is looked for: it is linked if the code that needs it is.
    let page = read(&root.join("src/report/heatmap/page.html"))?;
    let font = read(&root.join("assets/DejaVuSans-subset.ttf"))?;
    let marks: [(&str, &[u8]); 6] = [
        ("the heat map's page", page.get(..64).context("page.html is short")?),
        ("the pictures' font", font.get(..256).context("the font is short")?),
        ("the PNG encoder", b"IDAT"),
        ("SVG", b"<svg "),
        ("the Parquet writer", b"PAR1"),
        // The paths of sources stand in the messages of panics.
        ("the screen of top", b"/ratatui-"),
    ];
    let mut needless = Vec::new();
    for (name, mark) in marks {
        let holds = |binary: &[u8]| binary.windows(mark.len()).any(|window| window == mark);
        ensure!(holds(&reader), "blkiolat does not hold {name}: nothing can be said of the daemon");
        if holds(&daemon) {
            needless.push(name.to_owned());
        }
    }
    Ok(Binaries { daemon_bytes: daemon.len() as u64, reader_bytes: reader.len() as u64, needless })
}
