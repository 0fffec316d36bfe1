//! Reads the format file of a classic tracepoint: where each field stands in its record.
//!
//! Pure; the files are `/sys/kernel/tracing/events/*/*/format`. The offsets differ between kernels
//! (`ioprio` moved `rwbs` in 6.11, aa6ff4eb7c10), so they are never assumed.

use std::collections::BTreeMap;

use thiserror::Error;

/// Why a format file is of no use.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// A field that is needed is not described.
    #[error("has no field `{0}`")]
    Missing(&'static str),
    /// A field has another size than expected.
    #[error("field `{name}` has {size} bytes, expected {expected}")]
    Size {
        /// Name of the field.
        name: &'static str,
        /// Its size in the file, in bytes.
        size: u32,
        /// What the program can read.
        expected: &'static str,
    },
    /// A field stands where the program does not look.
    #[error("field `{name}` ends at byte {end}, expected {RECORD_BYTES} at most")]
    Beyond {
        /// Name of the field.
        name: &'static str,
        /// Offset of the byte after it.
        end: u64,
    },
}

/// How much of a record is described to the programs, in bytes; what they read ends before on every kernel.
pub(super) const RECORD_BYTES: u32 = 64;

/// Offset and size, in bytes, of each field of a tracepoint's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format(BTreeMap<String, (u32, u32)>);

impl Format {
    /// Reads the text of a format file. Lines that describe no field are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(parse_field).collect())
    }

    /// Offset of field `name`, which must have one of `sizes` bytes (`expected` says so in words).
    ///
    /// # Errors
    /// When the field is missing or has another size.
    pub fn offset(
        &self,
        name: &'static str,
        sizes: std::ops::RangeInclusive<u32>,
        expected: &'static str,
    ) -> Result<u32, FormatError> {
        let &(offset, size) = self.0.get(name).ok_or(FormatError::Missing(name))?;
        let end = u64::from(offset) + u64::from(size);
        if !sizes.contains(&size) {
            Err(FormatError::Size { name, size, expected })
        } else if end > RECORD_BYTES.into() {
            Err(FormatError::Beyond { name, end })
        } else {
            Ok(offset)
        }
    }
}

/// `\tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;` as `("sector", (16, 8))`.
fn parse_field(line: &str) -> Option<(String, (u32, u32))> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?;
    let name = declaration.rsplit([' ', '*']).next()?;
    let name = name.split('[').next()?;
    let (mut offset, mut size) = (None, None);
    for part in parts {
        if let Some(value) = part.strip_prefix("offset:") {
            offset = value.parse().ok();
        } else if let Some(value) = part.strip_prefix("size:") {
            size = value.parse().ok();
        }
    }
    Some((name.to_owned(), (offset?, size?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE_6_18: &str = "\
name: block_rq_complete
ID: 2107
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;
\tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;
\tfield:int error;\toffset:28;\tsize:4;\tsigned:1;
\tfield:unsigned short ioprio;\toffset:32;\tsize:2;\tsigned:0;
\tfield:char rwbs[10];\toffset:34;\tsize:10;\tsigned:0;
\tfield:__data_loc char[] cmd;\toffset:44;\tsize:4;\tsigned:0;

print fmt: \"%d,%d %s (%s) %llu + %u %s,%u,%u [%d]\", REC->x;
";

    #[test]
    fn finds_fields() {
        let format = Format::parse(COMPLETE_6_18);
        assert_eq!(format.offset("dev", 4..=4, "4"), Ok(8));
        assert_eq!(format.offset("rwbs", 4..=32, "4 or more"), Ok(34));
        assert_eq!(format.offset("cmd", 4..=4, "4"), Ok(44));
    }

    #[test]
    fn says_what_is_wrong() {
        let format = Format::parse(COMPLETE_6_18);
        assert_eq!(format.offset("bytes", 4..=4, "4"), Err(FormatError::Missing("bytes")));
        let far = Format::parse("field:dev_t dev;\toffset:61;\tsize:4;\tsigned:0;");
        assert_eq!(
            far.offset("dev", 4..=4, "4").unwrap_err().to_string(),
            "field `dev` ends at byte 65, expected 64 at most"
        );
        assert_eq!(
            format.offset("sector", 4..=4, "4").unwrap_err().to_string(),
            "field `sector` has 8 bytes, expected 4"
        );
    }

    proptest::proptest! {
        #[test]
        fn survives_any_text(text in "\\PC{0,200}") {
            let _ = Format::parse(&text);
        }
    }
}
