//! Records as CSV, long and wide.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::aggregate::{Aggregate, OPERATIONS};
use super::summary::{self, Shown};
use super::table::{CsvRows, io_error};
use super::times;
use super::times::Rows;
use crate::archive::reader::{OperationView, RecordView, Sink};
use crate::histogram;
use crate::record::Operations;

/// Writes each record as it comes; the first error of the output ends the writing.
pub struct CsvExport<W: Write> {
    shown: Shown,
    form: Form<W>,
    zone: TimeZone,
    result: io::Result<()>,
}

enum Form<W: Write> {
    Long(Box<csv::Writer<W>>),
    Wide(Box<CsvRows<W>>),
}

impl<W: Write> CsvExport<W> {
    /// One line per host, window, device, operation and bucket.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn long(out: W, zone: TimeZone) -> io::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        writer
            .write_record([
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
            ])
            .map_err(io_error)?;
        let shown = Shown { operations: [true; OPERATIONS], all: false };
        let form = Form::Long(Box::new(writer));
        Ok(Self { shown, form, zone, result: Ok(()) })
    }

    /// One line per host, window, device and operation, with percentiles; the columns are those of
    /// `report`.
    pub fn wide(out: W, shown: Shown, zone: TimeZone) -> Self {
        let form = Form::Wide(Box::new(CsvRows::new(out)));
        Self { shown, form, zone, result: Ok(()) }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The first that the output had.
    pub fn finish(self) -> io::Result<()> {
        self.result?;
        match self.form {
            Form::Long(mut writer) => writer.flush(),
            Form::Wide(rows) => rows.finish(),
        }
    }

    fn write(&mut self, record: &RecordView<'_>) -> io::Result<()> {
        match &mut self.form {
            Form::Long(writer) => write_long(writer, record, &self.zone),
            Form::Wide(rows) => {
                // A record is an archive of one window.
                let mut aggregate = Aggregate::new(Rows::default());
                aggregate.take(record);
                let time = times::rfc3339(record.end_us(), &self.zone);
                for mut row in summary::rows(&aggregate, self.shown) {
                    row.time = Some(time.clone());
                    rows.write(&row)?;
                }
                Ok(())
            }
        }
    }
}

impl<W: Write> Sink for CsvExport<W> {
    fn take(&mut self, record: &RecordView<'_>) {
        if self.result.is_ok() {
            self.result = self.write(record);
        }
    }
}

fn write_long<W: Write>(
    writer: &mut csv::Writer<W>,
    record: &RecordView<'_>,
    zone: &TimeZone,
) -> io::Result<()> {
    let seconds = |us: u64| us as f64 / 1e6;
    let front = [
        (record.end_us() as f64 / 1e6).to_string(),
        times::rfc3339(record.end_us(), zone),
        seconds(record.length_us()).to_string(),
        record.host.to_string(),
        record.boot_id.to_string(),
        record.seq.to_string(),
    ];
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
            }
        }
    }
    Ok(())
}

/// Bounds (µs, the upper one exclusive, none for the last bucket) and counts of what was recorded.
pub(super) fn bounds<'a>(
    operation: &OperationView<'a>,
) -> impl Iterator<Item = (f64, Option<f64>, u64)> + use<'a> {
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
