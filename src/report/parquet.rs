//! Records as Parquet, long and wide: what SQL engines read fastest.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::aggregate::Aggregate;
use super::export::bounds;
use super::summary::{self, Row, Shown};
use super::times::Rows;
use crate::archive::reader::{RecordView, Sink};
use crate::record::Operations;

/// Rows that are held in memory and written together.
const GROUP: usize = 1 << 17;
/// Texts that are passed to the writer at a time.
const TEXTS: usize = 1 << 12;

/// One row per host, window, device, operation and bucket. The bucket's upper bound is exclusive,
/// and null for the last, which has none.
const LONG: &str = "message blkiolat {
    required int64 time (TIMESTAMP(MICROS, true));
    required double window_s;
    required binary host (STRING);
    required binary boot_id (STRING);
    required int64 seq;
    required binary device (STRING);
    required binary layer (STRING);
    required binary operation (STRING);
    required binary resolution (STRING);
    required int32 bucket;
    required double low_us;
    optional double high_us;
    required int64 count;
}";

/// One row per host, window, device and operation.
const WIDE: &str = "message blkiolat {
    required int64 time (TIMESTAMP(MICROS, true));
    required double window_s;
    required binary host (STRING);
    required binary boot_id (STRING);
    required int64 seq;
    required binary device (STRING);
    required binary layer (STRING);
    required binary operation (STRING);
    required binary resolution (STRING);
    required int64 count;
    required double iops;
    required int64 bytes;
    required double mb_per_s;
    optional double mean_us;
    optional double p50_us;
    optional double p90_us;
    optional double p99_us;
    optional double p999_us;
    optional double max_us;
    required int64 errors;
    optional int64 requeues;
    optional double inflight_mean;
    optional int64 inflight_max;
    optional double oldest_us;
}";

/// Writes each record as it comes; the first error of the output ends the writing.
pub struct ParquetExport<W: Write + Send> {
    table: Table<W>,
    /// The wide form, of these operations.
    wide: Option<Shown>,
    result: io::Result<()>,
}

impl<W: Write + Send> ParquetExport<W> {
    /// Begins a file: the long form, or the wide one with the rows that `wide` says.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W, wide: Option<Shown>) -> io::Result<Self> {
        let table = Table::new(out, if wide.is_some() { WIDE } else { LONG })?;
        Ok(Self { table, wide, result: Ok(()) })
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The first that the output had.
    pub fn finish(self) -> io::Result<()> {
        self.result?;
        self.table.finish()
    }

    fn write(&mut self, record: &RecordView<'_>) -> io::Result<()> {
        match self.wide {
            None => self.write_long(record),
            Some(shown) => {
                // A record is an archive of one window.
                let mut aggregate = Aggregate::new(Rows::default());
                aggregate.take(record);
                let rows = summary::rows(&aggregate, shown);
                rows.iter().try_for_each(|row| self.write_wide(record, row))
            }
        }
    }

    fn write_long(&mut self, record: &RecordView<'_>) -> io::Result<()> {
        let table = &mut self.table;
        for device in record.devices() {
            for operation in device.operations() {
                let resolution = if operation.fine { "fine" } else { "log2" };
                for (&(index, _), (low_us, high_us, count)) in
                    operation.pairs.iter().zip(bounds(&operation))
                {
                    let mut row = table.row();
                    row.front(record, device.name, Operations::NAMES[operation.place], resolution);
                    row.int32(index.into());
                    row.double(low_us);
                    row.optional_double(high_us);
                    row.int64(count);
                    table.end_row()?;
                }
            }
        }
        Ok(())
    }

    fn write_wide(&mut self, record: &RecordView<'_>, from: &Row) -> io::Result<()> {
        let mut row = self.table.row();
        row.front(record, &from.device, from.operation, from.resolution);
        row.int64(from.count);
        row.double(from.iops);
        row.int64(from.bytes);
        row.double(from.mb_per_s);
        for us in
            [from.mean_us, from.p50_us, from.p90_us, from.p99_us, from.p999_us, from.max_us]
        {
            row.optional_double(us);
        }
        row.int64(from.errors);
        row.optional_int64(from.requeues);
        row.optional_double(from.inflight_mean);
        row.optional_int64(from.inflight_max);
        row.optional_double(from.oldest_us);
        self.table.end_row()
    }
}

impl<W: Write + Send> Sink for ParquetExport<W> {
    fn take(&mut self, record: &RecordView<'_>) {
        if self.result.is_ok() {
            self.result = self.write(record);
        }
    }
}

/// Rows on their way into a file.
struct Table<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    texts: Texts,
    rows: usize,
}

/// The values of one column that are still to be written.
#[derive(Debug, Default)]
struct Column {
    values: Values,
    /// Of an optional column, for each row: 1 where there is a value, 0 where there is none.
    there: Vec<i16>,
}

#[derive(Debug, Default)]
enum Values {
    #[default]
    Empty,
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Double(Vec<f64>),
    /// Places in [`Texts`].
    Text(Vec<u32>),
}

/// Each text once.
#[derive(Debug, Default)]
struct Texts {
    places: HashMap<String, u32>,
    texts: Vec<ByteArray>,
}

impl Texts {
    fn place(&mut self, text: &str) -> u32 {
        if let Some(&place) = self.places.get(text) {
            return place;
        }
        let place = self.texts.len() as u32;
        self.texts.push(ByteArray::from(text.as_bytes().to_vec()));
        self.places.insert(text.to_owned(), place);
        place
    }
}

impl<W: Write + Send> Table<W> {
    fn new(out: W, schema: &str) -> io::Result<Self> {
        let schema = parse_message_type(schema).map_err(io_error)?;
        let columns = schema.get_fields().iter().map(|_| Column::default()).collect();
        let properties = WriterProperties::builder()
            .set_created_by(concat!("blkiolat ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(Compression::SNAPPY)
            .build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))
            .map_err(io_error)?;
        Ok(Self { writer, columns, texts: Texts::default(), rows: 0 })
    }

    /// The next row, whose columns have to be given in their order.
    fn row(&mut self) -> NextRow<'_> {
        NextRow { columns: self.columns.iter_mut(), texts: &mut self.texts }
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.rows += 1;
        if self.rows < GROUP { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let mut group = self.writer.next_row_group().map_err(io_error)?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column().map_err(io_error)? else { break };
            column.write(&mut writer, &self.texts.texts).map_err(io_error)?;
            writer.close().map_err(io_error)?;
            column.clear();
        }
        group.close().map_err(io_error)?;
        // Texts do not outlive their rows: a fleet has many.
        self.texts = Texts::default();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.writer.close().map(drop).map_err(io_error)
    }
}

/// The I/O error in one of the writer's; a closed pipe must stay recognisable.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

impl Column {
    fn write(
        &self,
        writer: &mut SerializedColumnWriter<'_>,
        texts: &[ByteArray],
    ) -> parquet::errors::Result<()> {
        let there = (!self.there.is_empty()).then_some(self.there.as_slice());
        match (&self.values, writer.untyped()) {
            (Values::Int32(values), ColumnWriter::Int32ColumnWriter(writer)) => {
                writer.write_batch(values, there, None)?;
            }
            (Values::Int64(values), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(values, there, None)?;
            }
            (Values::Double(values), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(values, there, None)?;
            }
            (Values::Text(places), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                for some in places.chunks(TEXTS) {
                    let some: Vec<_> =
                        some.iter().map(|&place| texts[place as usize].clone()).collect();
                    writer.write_batch(&some, None, None)?;
                }
            }
            (Values::Empty, ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(&[], there, None)?;
            }
            (Values::Empty, ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(&[], there, None)?;
            }
            (values, _) => {
                return Err(ParquetError::General(format!("a column cannot take {values:?}")));
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.there.clear();
        match &mut self.values {
            Values::Empty => {}
            Values::Int32(values) => values.clear(),
            Values::Int64(values) => values.clear(),
            Values::Double(values) => values.clear(),
            Values::Text(values) => values.clear(),
        }
    }
}

/// Takes the values of one row, column by column.
struct NextRow<'t> {
    columns: std::slice::IterMut<'t, Column>,
    texts: &'t mut Texts,
}

/// Appends to the values of one kind, which a column is of from its first value on.
macro_rules! push {
    ($column:expr, $kind:ident, $value:expr) => {{
        let values = &mut $column.values;
        if matches!(values, Values::Empty) {
            *values = Values::$kind(Vec::new());
        }
        if let Values::$kind(values) = values {
            values.push($value);
        }
    }};
}

impl NextRow<'_> {
    /// The columns that both forms begin with.
    fn front(
        &mut self,
        record: &RecordView<'_>,
        device: &str,
        operation: &str,
        resolution: &str,
    ) {
        self.time(record.end_us());
        self.double(record.length_us() as f64 / 1e6);
        self.text(&record.host);
        self.text(&record.boot_id);
        self.int64(record.seq);
        self.text(device);
        self.text(record.layer.name());
        self.text(operation);
        self.text(resolution);
    }

    fn time(&mut self, us: i64) {
        if let Some(column) = self.columns.next() {
            push!(column, Int64, us);
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(column) = self.columns.next() {
            push!(column, Text, self.texts.place(text));
        }
    }

    fn int32(&mut self, value: i32) {
        if let Some(column) = self.columns.next() {
            push!(column, Int32, value);
        }
    }

    /// Parquet's integers are signed: what is larger is the largest.
    fn int64(&mut self, value: u64) {
        if let Some(column) = self.columns.next() {
            push!(column, Int64, i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    fn double(&mut self, value: f64) {
        if let Some(column) = self.columns.next() {
            push!(column, Double, value);
        }
    }

    fn optional_int64(&mut self, value: Option<u64>) {
        if let Some(column) = self.columns.next() {
            column.there.push(value.is_some().into());
            if let Some(value) = value {
                push!(column, Int64, i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
    }

    fn optional_double(&mut self, value: Option<f64>) {
        if let Some(column) = self.columns.next() {
            column.there.push(value.is_some().into());
            if let Some(value) = value {
                push!(column, Double, value);
            }
        }
    }
}
