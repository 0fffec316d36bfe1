//! Lines on their way to the active file.

use std::path::Path;

use super::disk::Disk;
use super::error::{OpenError, WriteError};
use super::writer::Settings;
use crate::record::Record;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

pub(crate) struct Recorder {
    disk: Disk,
    settings: Settings,
    pending: Vec<u8>,
    lines: usize,
    totals: Totals,
}

impl Recorder {
    pub(crate) fn new(disk: Disk, settings: Settings) -> Self {
        Self { disk, settings, pending: Vec::new(), lines: 0, totals: Totals::default() }
    }
    pub(crate) fn open(&mut self) -> Result<(), OpenError> {
        Ok(())
    }
    pub(crate) fn append(&mut self, record: &Record) {
        record.write_line(&mut self.pending);
        self.lines += 1;
    }
    pub(crate) fn is_full(&self) -> bool {
        self.lines >= self.settings.output.flush_every as usize
    }
    pub(crate) fn is_off(&self) -> bool {
        !self.settings.output.enabled
    }
    pub(crate) fn flush(&mut self) -> Result<(), WriteError> {
        self.totals.records += self.lines as u64;
        self.lines = 0;
        self.pending.clear();
        let _ = &self.disk;
        Ok(())
    }
    pub(crate) fn rotate_next(&mut self) {}
    pub(crate) fn reconfigure(&mut self, settings: Settings) -> Result<(), OpenError> {
        self.settings = settings;
        Ok(())
    }
    pub(crate) fn path(&self) -> &Path {
        &self.settings.output.path
    }
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }
    pub(crate) fn unflushed(&self) -> usize {
        self.lines
    }
    pub(crate) fn close(&mut self) {}
}
