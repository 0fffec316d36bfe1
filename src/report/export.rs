//! Records as CSV, long and wide.

use std::io;

use jiff::tz::TimeZone;

use super::aggregate::Aggregate;
use super::summary::{self, Shown};
use super::table::{self, io_error};
use super::times::{self, Rows};
use crate::archive::reader::{Maker, OperationView, RecordView, Sink};
use crate::histogram;
use crate::record::Operations;

/// Text that is handed on at once, bytes.
const PIECE: usize = 1 << 18;

/// The long form's columns.
const LONG: [&str; 12] = [
    "timestamp",
    "time",
    "window_s",
    "host",
    "boot_id",
    "seq",
    "device",
    "layer",
    "operation",
    "low_us",
    "high_us",
    "count",
];

/// Makes lines of CSV from records: without the header, which is [`CsvMaker::header`].
pub struct CsvMaker {
    /// The wide form, of these operations.
    wide: Option<Shown>,
    zone: TimeZone,
    lines: csv::Writer<Vec<u8>>,
    /// Lines since the last piece, by an estimate from below.
    bytes: usize,
    result: io::Result<()>,
}

impl CsvMaker {
    /// The long form, one line per host, window, device, operation and bucket; or the wide one,
    /// one line per host, window, device and operation with the columns of `report` and the rows
    /// that `wide` says.
    #[must_use]
    pub fn new(wide: Option<Shown>, zone: TimeZone) -> Self {
        Self { wide, zone, lines: lines(), bytes: 0, result: Ok(()) }
    }

    /// The header.
    ///
    /// # Errors
    /// None but those of memory.
    pub fn header(wide: bool) -> io::Result<Vec<u8>> {
        if wide {
            return table::csv_header();
        }
        let mut lines = lines();
        lines.write_record(LONG).map_err(io_error)?;
        bytes_of(lines)
    }

    fn write(&mut self, record: &RecordView<'_>) -> io::Result<()> {
        let Some(shown) = self.wide else {
            self.bytes += write_long(&mut self.lines, record, &self.zone)?;
            return Ok(());
        };
        // A record is an archive of one window.
        let mut aggregate = Aggregate::new(Rows::default());
        aggregate.take(record);
        let time = times::rfc3339(record.end_us(), &self.zone);
        for mut row in summary::rows(&aggregate, shown) {
            row.time = Some(time.clone());
            table::write_csv_row(&mut self.lines, &row)?;
            self.bytes += size_of::<summary::Row>();
        }
        Ok(())
    }
}

/// A writer of lines into memory.
fn lines() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new())
}

fn bytes_of(lines: csv::Writer<Vec<u8>>) -> io::Result<Vec<u8>> {
    lines.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

impl Sink for CsvMaker {
    fn take(&mut self, record: &RecordView<'_>) {
        if self.result.is_ok() {
            self.result = self.write(record);
        }
    }
}

impl Maker for CsvMaker {
    type Piece = io::Result<Vec<u8>>;

    fn piece(&mut self, end: bool) -> Option<Self::Piece> {
        if self.bytes < PIECE && !(end && self.bytes > 0) && self.result.is_ok() {
            return None;
        }
        self.bytes = 0;
        let lines = bytes_of(std::mem::replace(&mut self.lines, lines()));
        Some(std::mem::replace(&mut self.result, Ok(())).and(lines))
    }
}

/// Writes the lines of `record`, and says about how long they are.
fn write_long(
    writer: &mut csv::Writer<Vec<u8>>,
    record: &RecordView<'_>,
    zone: &TimeZone,
) -> io::Result<usize> {
    let seconds = |us: u64| us as f64 / 1e6;
    let front = [
        (record.end_us() as f64 / 1e6).to_string(),
        times::rfc3339(record.end_us(), zone),
        seconds(record.length_us()).to_string(),
        record.host.to_string(),
        record.boot_id.to_string(),
        record.seq.to_string(),
    ];
    let length: usize = front.iter().map(|field| field.len() + 1).sum();
    let mut written = 0;
    for device in record.devices() {
        for operation in device.operations() {
            for (low, high, count) in bounds(&operation) {
                for field in &front {
                    writer.write_field(field).map_err(io_error)?;
                }
                let high = high.map_or(String::new(), |us| us.to_string());
                let rest = [
                    device.name,
                    record.layer.name(),
                    Operations::NAMES[operation.place],
                    &low.to_string(),
                    &high,
                    &count.to_string(),
                ];
                for field in rest {
                    writer.write_field(field).map_err(io_error)?;
                }
                writer.write_record(None::<&[u8]>).map_err(io_error)?;
                written += length;
            }
        }
    }
    Ok(written)
}

/// Bounds (µs, the upper one exclusive, none for the last bucket) and counts of what was recorded.
pub(super) fn bounds<'a>(
    operation: &OperationView<'a>,
) -> impl Iterator<Item = (f64, Option<f64>, u64)> + Clone + use<'a> {
    let fine = operation.fine;
    operation.pairs.iter().map(move |&(index, count)| {
        if fine {
            let (low, high) = histogram::bucket_bounds_ns(index.into());
            let high = (high != u64::MAX).then_some(high as f64 / 1e3);
            return (low as f64 / 1e3, high, count);
        }
        let (low, high) = histogram::slot_bounds_us(index.into());
        let last = usize::from(index) == histogram::SLOTS - 1;
        (low as f64, (!last).then_some(high as f64 + 1.0), count)
    })
}
