//! How serde fills a [`Parser`]: nothing is allocated for a record that is not longer than those
//! before it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::super::files::HALF_WINDOW_MS;
use super::{Device, Head, Inflight, Operation, Pairs, Parser, Wanted};

/// Implements the deserialisation of a seed that is a visitor.
macro_rules! seed {
    ($seed:ident, $value:ty, $method:ident) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<$value, D::Error> {
                json.$method(self)
            }
        }
    };
}

/// A whole record; `None` when its time is not wanted.
pub(super) struct RecordSeed<'p> {
    pub(super) parser: &'p mut Parser,
    pub(super) wanted: &'p Wanted,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum RecordKey {
    Timestamp,
    Schema,
    Host,
    BootId,
    Layer,
    Seq,
    WindowS,
    LatencyHistogram,
    Inflight,
    Audit,
    #[serde(other)]
    Unknown,
}

/// A string that is borrowed from the line unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for RecordSeed<'_> {
    type Value = Option<Head<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_> {
    type Value = Option<Head<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { parser, wanted } = self;
        let (mut timestamp, mut schema, mut host, mut boot_id) = (None, None, None, None);
        let (mut layer, mut seq, mut window_s, mut audit) = (None, None, None, None);
        let (mut latencies, mut inflight) = (false, false);
        while let Some(key) = map.next_key()? {
            match key {
                RecordKey::Timestamp => {
                    let seconds = map.next_value()?;
                    if is_outside(wanted, seconds) {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Ok(None);
                    }
                    timestamp = Some(seconds);
                }
                RecordKey::Schema => schema = Some(map.next_value()?),
                RecordKey::Host => host = Some(map.next_value::<Text<'de>>()?.0),
                RecordKey::BootId => boot_id = Some(map.next_value::<Text<'de>>()?.0),
                RecordKey::Layer => layer = Some(map.next_value::<Text<'de>>()?.0),
                RecordKey::Seq => seq = Some(map.next_value()?),
                RecordKey::WindowS => window_s = Some(map.next_value()?),
                RecordKey::Audit => audit = Some(map.next_value()?),
                RecordKey::LatencyHistogram => {
                    map.next_value_seed(DevicesSeed { parser, wanted })?;
                    latencies = true;
                }
                RecordKey::Inflight => {
                    map.next_value_seed(InflightSeed { parser, wanted })?;
                    inflight = true;
                }
                RecordKey::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let missing =
            |there: bool, name| if there { Ok(()) } else { Err(A::Error::missing_field(name)) };
        missing(latencies, "latency_histogram")?;
        missing(inflight, "inflight")?;
        let field = A::Error::missing_field;
        Ok(Some(Head {
            timestamp: timestamp.ok_or_else(|| field("timestamp"))?,
            schema: schema.ok_or_else(|| field("schema"))?,
            host: host.ok_or_else(|| field("host"))?,
            boot_id: boot_id.ok_or_else(|| field("boot_id"))?,
            layer,
            seq: seq.ok_or_else(|| field("seq"))?,
            window_s: window_s.ok_or_else(|| field("window_s"))?,
            audit: audit.ok_or_else(|| field("audit"))?,
        }))
    }
}

/// Whether no window that ends at `seconds` can have its middle in the range.
pub(super) fn is_outside(wanted: &Wanted, seconds: f64) -> bool {
    let end_us = (seconds * 1e6).round();
    let half_us = HALF_WINDOW_MS as f64 * 1e3;
    wanted.range.since_us.is_some_and(|since| end_us < since as f64)
        || wanted.range.until_us.is_some_and(|until| end_us - half_us >= until as f64)
}

/// Appends `name` and says where it is.
pub(super) fn keep(names: &mut String, name: &str) -> Range<usize> {
    let start = names.len();
    names.push_str(name);
    start..names.len()
}

struct DevicesSeed<'p> {
    parser: &'p mut Parser,
    wanted: &'p Wanted,
}

seed!(DevicesSeed, (), deserialize_seq);

impl<'de> Visitor<'de> for DevicesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of devices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { parser, wanted } = self;
        while seq.next_element_seed(DeviceSeed { parser, wanted })?.is_some() {}
        Ok(())
    }
}

struct DeviceSeed<'p> {
    parser: &'p mut Parser,
    wanted: &'p Wanted,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum DeviceKey {
    DeviceName,
    Total,
    Ops,
    Requeues,
    #[serde(other)]
    Unknown,
}

seed!(DeviceSeed, (), deserialize_map);

impl<'de> Visitor<'de> for DeviceSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { parser, wanted } = self;
        let (mut name, mut total, mut requeues, mut operations) = (None, None, None, None);
        let mut is_wanted = true;
        while let Some(key) = map.next_key()? {
            match key {
                DeviceKey::DeviceName => {
                    let Text(text) = map.next_value::<Text<'de>>()?;
                    is_wanted = wanted.device(&text);
                    name = Some(keep(&mut parser.names, &text));
                }
                DeviceKey::Total => total = Some(map.next_value()?),
                DeviceKey::Requeues => requeues = Some(map.next_value()?),
                DeviceKey::Ops if is_wanted => {
                    let start = parser.operations.len();
                    map.next_value_seed(OperationsSeed { parser, wanted })?;
                    operations = Some(start..parser.operations.len());
                }
                DeviceKey::Ops => {
                    map.next_value::<IgnoredAny>()?;
                    operations = Some(0..0);
                }
                DeviceKey::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let field = A::Error::missing_field;
        parser.devices.push(Device {
            name: name.ok_or_else(|| field("device_name"))?,
            total: total.ok_or_else(|| field("total"))?,
            requeues: requeues.ok_or_else(|| field("requeues"))?,
            operations: operations.ok_or_else(|| field("ops"))?,
            wanted: is_wanted,
        });
        Ok(())
    }
}

struct OperationsSeed<'p> {
    parser: &'p mut Parser,
    wanted: &'p Wanted,
}

/// In the order of [`Operations::NAMES`](crate::record::Operations::NAMES).
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum OperationName {
    Read,
    Write,
    Flush,
    Discard,
    Other,
    #[serde(other)]
    Unknown,
}

seed!(OperationsSeed, (), deserialize_map);

impl<'de> Visitor<'de> for OperationsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("operations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { parser, wanted } = self;
        while let Some(name) = map.next_key()? {
            if matches!(name, OperationName::Unknown) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let place = name as usize;
            let operation = map.next_value_seed(OperationSeed {
                parser,
                place,
                wanted: wanted.operation(place),
            })?;
            parser.operations.extend(operation);
        }
        Ok(())
    }
}

struct OperationSeed<'p> {
    parser: &'p mut Parser,
    place: usize,
    wanted: bool,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum OperationKey {
    Total,
    Bytes,
    SumUs,
    MaxUs,
    Errors,
    Fine,
    Slots,
    #[serde(other)]
    Unknown,
}

seed!(OperationSeed, Option<Operation>, deserialize_option);

impl<'de> Visitor<'de> for OperationSeed<'_> {
    type Value = Option<Operation>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the statistics of an operation")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { parser, place, wanted } = self;
        let (mut total, mut bytes, mut sum_us, mut max_us, mut errors) =
            (None, None, None, None, None);
        let mut pairs = Pairs::None;
        while let Some(key) = map.next_key()? {
            match key {
                OperationKey::Total => total = Some(map.next_value()?),
                OperationKey::Bytes => bytes = Some(map.next_value()?),
                OperationKey::SumUs => sum_us = Some(map.next_value()?),
                OperationKey::MaxUs => max_us = Some(map.next_value()?),
                OperationKey::Errors => errors = Some(map.next_value()?),
                OperationKey::Fine | OperationKey::Slots if !wanted => {
                    map.next_value::<IgnoredAny>()?;
                    pairs = Pairs::Skipped;
                }
                key @ (OperationKey::Fine | OperationKey::Slots) => {
                    let Some(range) = map.next_value_seed(PairsSeed(&mut parser.pairs))? else {
                        continue;
                    };
                    pairs = match (pairs, key) {
                        (Pairs::None, OperationKey::Fine) => Pairs::Fine(range),
                        (Pairs::None, _) => Pairs::Slots(range),
                        _ => Pairs::Both,
                    };
                }
                OperationKey::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let field = A::Error::missing_field;
        Ok(Some(Operation {
            place,
            total: total.ok_or_else(|| field("total"))?,
            bytes: bytes.ok_or_else(|| field("bytes"))?,
            sum_us: sum_us.ok_or_else(|| field("sum_us"))?,
            max_us: max_us.ok_or_else(|| field("max_us"))?,
            errors: errors.ok_or_else(|| field("errors"))?,
            pairs,
        }))
    }
}

/// A histogram's two columns, `[[index, ...], [count, ...]]`, as pairs; `None` for null.
struct PairsSeed<'p>(&'p mut Vec<(u16, u64)>);

seed!(PairsSeed, Option<Range<usize>>, deserialize_option);

impl<'de> Visitor<'de> for PairsSeed<'_> {
    type Value = Option<Range<usize>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[[index, ...], [count, ...]]")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Self(pairs) = self;
        let start = pairs.len();
        let missing = |column| A::Error::invalid_length(column, &"two columns of one length");
        seq.next_element_seed(Indexes(pairs))?.ok_or_else(|| missing(0))?;
        let filled =
            seq.next_element_seed(Counts(&mut pairs[start..]))?.ok_or_else(|| missing(1))?;
        if filled != pairs.len() - start || seq.next_element::<IgnoredAny>()?.is_some() {
            return Err(missing(filled));
        }
        Ok(Some(start..pairs.len()))
    }
}

/// Appends a pair for each index.
struct Indexes<'p>(&'p mut Vec<(u16, u64)>);

seed!(Indexes, (), deserialize_seq);

impl<'de> Visitor<'de> for Indexes<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("indexes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(index) = seq.next_element()? {
            self.0.push((index, 0));
        }
        Ok(())
    }
}

/// Gives pairs their counts; how many there were.
struct Counts<'p>(&'p mut [(u16, u64)]);

seed!(Counts, usize, deserialize_seq);

impl<'de> Visitor<'de> for Counts<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
        let mut filled = 0;
        while let Some(count) = seq.next_element()? {
            if let Some(pair) = self.0.get_mut(filled) {
                pair.1 = count;
            }
            filled += 1;
        }
        Ok(filled)
    }
}

struct InflightSeed<'p> {
    parser: &'p mut Parser,
    wanted: &'p Wanted,
}

#[derive(Deserialize)]
struct InflightRecord<'a> {
    #[serde(borrow)]
    device_name: Cow<'a, str>,
    count: u64,
    mean: f64,
    max: u64,
    oldest_us: f64,
}

seed!(InflightSeed, (), deserialize_seq);

impl<'de> Visitor<'de> for InflightSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of devices in flight")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { parser, wanted } = self;
        while let Some(record) = seq.next_element::<InflightRecord<'de>>()? {
            if !wanted.device(&record.device_name) {
                continue;
            }
            let InflightRecord { device_name, count, mean, max, oldest_us } = record;
            let name = keep(&mut parser.names, &device_name);
            parser.inflight.push(Inflight { name, count, mean, max, oldest_us });
        }
        Ok(())
    }
}
