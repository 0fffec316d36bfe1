//! Records as Parquet, long and wide: what SQL engines read fastest.

use std::collections::HashMap;
use std::io::{self, Write};
use std::iter::repeat_n;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::writer::{ColumnCloseResult, ColumnWriter, get_column_writer};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor};

use super::aggregate::Aggregate;
use super::export::bounds;
use super::summary::{self, Row, Shown};
use super::times::Rows;
use crate::archive::reader::{Maker, RecordView, Sink};
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

/// Makes row groups of records.
pub struct ParquetMaker {
    group: Group,
    /// The wide form, of these operations.
    wide: Option<Shown>,
}

/// The rows of one group in their final, compressed form: each column's bytes and what is to be
/// said about them.
pub type Encoded = Vec<(Bytes, ColumnCloseResult)>;

impl ParquetMaker {
    /// The long form, or the wide one with the rows that `wide` says, for a file of `schema`.
    #[must_use]
    pub fn new(wide: Option<Shown>, schema: &Schema) -> Self {
        Self { group: Group::new(schema), wide }
    }

    fn write(&mut self, record: &RecordView<'_>) {
        let Some(shown) = self.wide else { return self.write_long(record) };
        // A record is an archive of one window.
        let mut aggregate = Aggregate::new(Rows::default());
        aggregate.take(record);
        for row in summary::rows(&aggregate, shown) {
            self.write_wide(record, &row);
        }
    }

    fn write_long(&mut self, record: &RecordView<'_>) {
        for device in record.devices() {
            for operation in device.operations() {
                let resolution = if operation.fine { "fine" } else { "log2" };
                let mut rows = self.group.rows(operation.pairs.len());
                rows.front(record, device.name, Operations::NAMES[operation.place], resolution);
                rows.int32s(operation.pairs.iter().map(|&(index, _)| index.into()));
                rows.doubles(bounds(&operation).map(|(low_us, _, _)| low_us));
                rows.optional_doubles(bounds(&operation).map(|(_, high_us, _)| high_us));
                rows.int64s(bounds(&operation).map(|(_, _, count)| count));
            }
        }
    }

    fn write_wide(&mut self, record: &RecordView<'_>, from: &Row) {
        let mut row = self.group.rows(1);
        row.front(record, &from.device, from.operation, from.resolution);
        row.int64(from.count);
        row.double(from.iops);
        row.int64(from.bytes);
        row.double(from.mb_per_s);
        for us in [from.mean_us, from.p50_us, from.p90_us, from.p99_us, from.p999_us, from.max_us] {
            row.optional_double(us);
        }
        row.int64(from.errors);
        row.optional_int64(from.requeues);
        row.optional_double(from.inflight_mean);
        row.optional_int64(from.inflight_max);
        row.optional_double(from.oldest_us);
    }
}

impl Sink for ParquetMaker {
    fn take(&mut self, record: &RecordView<'_>) {
        self.write(record);
    }
}

impl Maker for ParquetMaker {
    type Piece = io::Result<Encoded>;

    fn piece(&mut self, end: bool) -> Option<Self::Piece> {
        let full = self.group.length >= GROUP || (end && self.group.length > 0);
        full.then(|| self.group.encode().map_err(io_error))
    }
}

/// What a file's columns are, and how they are written.
#[derive(Clone, Debug)]
pub struct Schema {
    columns: SchemaDescPtr,
    properties: WriterPropertiesPtr,
}

impl Schema {
    /// That of the long or the wide form.
    ///
    /// # Errors
    /// None: the text that it is made from is part of the program.
    pub fn new(wide: bool) -> io::Result<Self> {
        let schema = parse_message_type(if wide { WIDE } else { LONG }).map_err(io_error)?;
        let properties = WriterProperties::builder()
            .set_created_by(concat!("blkiolat ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(Compression::SNAPPY)
            // Groups are small: what is known of their pages would only be memory until the file ends, and the file's end.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let columns = Arc::new(SchemaDescriptor::new(Arc::new(schema)));
        Ok(Self { columns, properties: Arc::new(properties) })
    }
}

/// A file that takes row groups.
pub struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W, schema: &Schema) -> io::Result<Self> {
        let (root, properties) = (schema.columns.root_schema_ptr(), schema.properties.clone());
        let writer = SerializedFileWriter::new(out, root, properties).map_err(io_error)?;
        Ok(Self { writer })
    }

    /// Appends a group.
    ///
    /// # Errors
    /// Those of the output.
    pub fn append(&mut self, group: Encoded) -> io::Result<()> {
        let mut writer = self.writer.next_row_group().map_err(io_error)?;
        for (bytes, close) in group {
            writer.append_column(&bytes, close).map_err(io_error)?;
        }
        writer.close().map(drop).map_err(io_error)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(self) -> io::Result<()> {
        self.writer.close().map(drop).map_err(io_error)
    }
}

/// Rows that will be written together.
struct Group {
    schema: Schema,
    columns: Vec<Column>,
    texts: Texts,
    /// Rows so far.
    length: usize,
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

impl Group {
    fn new(schema: &Schema) -> Self {
        let columns = (0..schema.columns.num_columns()).map(|_| Column::default()).collect();
        Self { schema: schema.clone(), columns, texts: Texts::default(), length: 0 }
    }

    /// So many new rows, whose columns have to be given in their order.
    fn rows(&mut self, count: usize) -> NextRows<'_> {
        self.length += count;
        NextRows { columns: self.columns.iter_mut(), texts: &mut self.texts, count }
    }

    /// Compresses all rows, and begins anew.
    fn encode(&mut self) -> parquet::errors::Result<Encoded> {
        self.length = 0;
        let mut encoded = Vec::with_capacity(self.columns.len());
        for (place, column) in self.columns.iter_mut().enumerate() {
            let mut bytes = TrackedWrite::new(Vec::new());
            let pages = Box::new(SerializedPageWriter::new(&mut bytes));
            let (description, properties) =
                (self.schema.columns.column(place), self.schema.properties.clone());
            let mut writer = get_column_writer(description, properties, pages);
            column.write(&mut writer, &self.texts.texts)?;
            let close = writer.close()?;
            column.clear();
            encoded.push((Bytes::from(bytes.into_inner()?), close));
        }
        // Texts do not outlive their rows: a fleet has many.
        self.texts = Texts::default();
        Ok(encoded)
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
        writer: &mut ColumnWriter<'_>,
        texts: &[ByteArray],
    ) -> parquet::errors::Result<()> {
        let there = (!self.there.is_empty()).then_some(self.there.as_slice());
        match (&self.values, writer) {
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
                // A column's texts hardly change: most of a chunk's are those of the chunk before.
                let (mut chunk, mut held) = (Vec::new(), Vec::new());
                for some in places.chunks(TEXTS) {
                    chunk.resize(some.len(), ByteArray::new());
                    held.resize(some.len(), u32::MAX);
                    for ((text, held), &place) in chunk.iter_mut().zip(&mut held).zip(some) {
                        if *held != place {
                            text.clone_from(&texts[place as usize]);
                            *held = place;
                        }
                    }
                    writer.write_batch(&chunk, None, None)?;
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

/// Takes the values of some rows, column by column: one that all of them have, or one for each.
struct NextRows<'t> {
    columns: std::slice::IterMut<'t, Column>,
    texts: &'t mut Texts,
    count: usize,
}

/// Appends to the values of one kind, which a column is of from its first value on.
macro_rules! push {
    ($column:expr, $kind:ident, $new:expr) => {{
        let values = &mut $column.values;
        if matches!(values, Values::Empty) {
            *values = Values::$kind(Vec::new());
        }
        if let Values::$kind(values) = values {
            values.extend($new);
        }
    }};
}

impl NextRows<'_> {
    /// The columns that both forms begin with.
    fn front(&mut self, record: &RecordView<'_>, device: &str, operation: &str, resolution: &str) {
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
            push!(column, Int64, repeat_n(us, self.count));
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(column) = self.columns.next() {
            push!(column, Text, repeat_n(self.texts.place(text), self.count));
        }
    }

    fn int32s(&mut self, values: impl Iterator<Item = i32>) {
        if let Some(column) = self.columns.next() {
            push!(column, Int32, values);
        }
    }

    fn int64(&mut self, value: u64) {
        self.int64s(repeat_n(value, self.count));
    }

    /// Parquet's integers are signed: what is larger is the largest.
    fn int64s(&mut self, values: impl Iterator<Item = u64>) {
        if let Some(column) = self.columns.next() {
            push!(column, Int64, values.map(signed));
        }
    }

    fn double(&mut self, value: f64) {
        self.doubles(repeat_n(value, self.count));
    }

    fn doubles(&mut self, values: impl Iterator<Item = f64>) {
        if let Some(column) = self.columns.next() {
            push!(column, Double, values);
        }
    }

    fn optional_int64(&mut self, value: Option<u64>) {
        if let Some(column) = self.columns.next() {
            column.there.extend(repeat_n(i16::from(value.is_some()), self.count));
            push!(column, Int64, value.into_iter().flat_map(|v| repeat_n(signed(v), self.count)));
        }
    }

    fn optional_double(&mut self, value: Option<f64>) {
        self.optional_doubles(repeat_n(value, self.count));
    }

    fn optional_doubles(&mut self, values: impl Iterator<Item = Option<f64>> + Clone) {
        if let Some(column) = self.columns.next() {
            column.there.extend(values.clone().map(|value| i16::from(value.is_some())));
            push!(column, Double, values.flatten());
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
