//! The sealed segment: Parquet, compressed with zstd, so that DuckDB, pandas and polars open it as it is.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::live::{Row, TraceError};
use super::record::{Op, Record, TierServed};
use crate::types::FileId;

/// Version of the schema, in the file's metadata under `tierdav.trace.version`.
pub const SCHEMA_VERSION: &str = "1";

/// Rows per row group: what a reader holds at once.
pub const ROW_GROUP_ROWS: usize = 65_536;

const SCHEMA: &str = "message tierdav_trace {
    required int64 at_ns (INTEGER(64,false));
    required int64 wall_us (TIMESTAMP(MICROS,true));
    required binary client (STRING);
    required binary op (STRING);
    required binary path (STRING);
    required binary path2 (STRING);
    required int64 file_id (INTEGER(64,false));
    required int32 object (INTEGER(32,false));
    required int64 offset (INTEGER(64,false));
    required int64 len (INTEGER(64,false));
    required binary tier (STRING);
    required int64 latency_ns (INTEGER(64,false));
    required int32 status (INTEGER(32,false));
}";

fn sealed(e: impl std::fmt::Display) -> TraceError {
    TraceError::Sealed(e.to_string())
}

fn tier_name(tier: TierServed) -> &'static str {
    tier.tier().map_or("none", crate::types::Tier::as_str)
}

/// Writes rows as Parquet; memory is bounded by one row group.
///
/// # Errors
/// What the writer or the rows' source reports; the file is then not usable.
pub fn write_parquet<W: Write + Send>(
    out: W,
    rows: impl Iterator<Item = Result<Row, TraceError>>,
) -> Result<W, TraceError> {
    let schema = Arc::new(parse_message_type(SCHEMA).map_err(sealed)?);
    let version = KeyValue::new(
        "tierdav.trace.version".to_string(),
        SCHEMA_VERSION.to_string(),
    );
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(sealed)?))
        .set_key_value_metadata(Some(vec![version]));
    // Nobody looks for a range of names, and comparing each with the least and the greatest so far takes most of the time.
    for name in ["client", "op", "path", "path2", "tier"] {
        properties = properties.set_column_statistics_enabled(name.into(), EnabledStatistics::None);
    }
    // Each value is another one: no dictionary of them would be kept.
    for name in ["at_ns", "wall_us", "latency_ns"] {
        properties = properties
            .set_column_dictionary_enabled(name.into(), false)
            .set_column_encoding(name.into(), Encoding::DELTA_BINARY_PACKED);
    }
    let properties = properties.build();
    let mut writer =
        SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(sealed)?;
    let mut batch = Vec::new();
    for row in rows {
        batch.push(row?);
        if batch.len() == ROW_GROUP_ROWS {
            write_group(&mut writer, &batch)?;
            batch.clear();
        }
    }
    if !batch.is_empty() {
        write_group(&mut writer, &batch)?;
    }
    writer.into_inner().map_err(sealed)
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    rows: &[Row],
) -> Result<(), TraceError> {
    let mut group = writer.next_row_group().map_err(sealed)?;
    longs(&mut group, rows, |r| r.record.at_ns)?;
    longs(&mut group, rows, |r| r.wall_us)?;
    texts(&mut group, rows, |r| &r.client)?;
    texts(&mut group, rows, |r| r.record.op.as_str())?;
    texts(&mut group, rows, |r| &r.path)?;
    texts(&mut group, rows, |r| &r.path2)?;
    longs(&mut group, rows, |r| r.record.file.0)?;
    ints(&mut group, rows, |r| r.record.object)?;
    longs(&mut group, rows, |r| r.record.offset)?;
    longs(&mut group, rows, |r| r.record.len)?;
    texts(&mut group, rows, |r| tier_name(r.record.tier))?;
    longs(&mut group, rows, |r| r.record.latency_ns)?;
    ints(&mut group, rows, |r| u32::from(r.record.status))?;
    group.close().map_err(sealed)?;
    Ok(())
}

/// Parquet's unsigned columns are signed ones of the same bits.
macro_rules! column {
    ($name:ident, $type:ty, $value:ty, $to:expr) => {
        fn $name<W: Write + Send>(
            group: &mut SerializedRowGroupWriter<'_, W>,
            rows: &[Row],
            pick: impl Fn(&Row) -> $value,
        ) -> Result<(), TraceError> {
            let values: Vec<_> = rows.iter().map(|r| $to(pick(r))).collect();
            let mut column = group
                .next_column()
                .map_err(sealed)?
                .ok_or_else(|| sealed("a column too many"))?;
            column
                .typed::<$type>()
                .write_batch(&values, None, None)
                .map_err(sealed)?;
            column.close().map_err(sealed)
        }
    };
}

column!(longs, Int64Type, u64, |v: u64| v.cast_signed());
column!(ints, Int32Type, u32, |v: u32| v.cast_signed());

fn texts<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[Row],
    pick: impl Fn(&Row) -> &str,
) -> Result<(), TraceError> {
    // Rows share their names: one copy of each.
    let mut copies: HashMap<(*const u8, usize), ByteArray> = HashMap::new();
    let copy = |row| {
        let text: &str = pick(row);
        let copy = copies.entry((text.as_ptr(), text.len()));
        copy.or_insert_with(|| ByteArray::from(text)).clone()
    };
    let values: Vec<ByteArray> = rows.iter().map(copy).collect();
    let mut column = group
        .next_column()
        .map_err(sealed)?
        .ok_or_else(|| sealed("a column too many"))?;
    column
        .typed::<ByteArrayType>()
        .write_batch(&values, None, None)
        .map_err(sealed)?;
    column.close().map_err(sealed)
}

/// Reads a sealed segment, one row group at a time.
pub struct ParquetReader<R: ChunkReader> {
    file: SerializedFileReader<R>,
    group: usize,
    rows: std::vec::IntoIter<Row>,
    failed: bool,
}

impl<R: ChunkReader + 'static> ParquetReader<R> {
    /// Opens a segment.
    ///
    /// # Errors
    /// When it is not Parquet or not a trace of this version.
    pub fn new(source: R) -> Result<Self, TraceError> {
        let file = SerializedFileReader::new(source).map_err(sealed)?;
        let metadata = file.metadata().file_metadata();
        let pairs = metadata.key_value_metadata().map_or(&[][..], Vec::as_slice);
        let version = pairs
            .iter()
            .find(|kv| kv.key == "tierdav.trace.version")
            .and_then(|kv| kv.value.as_deref());
        if version != Some(SCHEMA_VERSION) {
            return Err(sealed(format!(
                "trace version {version:?}, wanted {SCHEMA_VERSION}"
            )));
        }
        Ok(ParquetReader {
            file,
            group: 0,
            rows: Vec::new().into_iter(),
            failed: false,
        })
    }

    fn next_group(&mut self) -> Result<Vec<Row>, TraceError> {
        let group = self.file.get_row_group(self.group).map_err(sealed)?;
        let n = usize::try_from(group.metadata().num_rows()).map_err(sealed)?;
        let group = &*group;
        let (at_ns, wall_us) = (read_longs(group, 0, n)?, read_longs(group, 1, n)?);
        let (client, op) = (read_texts(group, 2, n)?, read_texts(group, 3, n)?);
        let (path, path2) = (read_texts(group, 4, n)?, read_texts(group, 5, n)?);
        let (file, object) = (read_longs(group, 6, n)?, read_ints(group, 7, n)?);
        let (offset, len) = (read_longs(group, 8, n)?, read_longs(group, 9, n)?);
        let tier = read_texts(group, 10, n)?;
        let (latency, status) = (read_longs(group, 11, n)?, read_ints(group, 12, n)?);
        (0..n)
            .map(|i| {
                Ok(Row {
                    record: Record {
                        at_ns: at_ns[i],
                        client: 0,
                        op: Op::from_name(&op[i])
                            .ok_or_else(|| sealed(format!("unknown operation {}", op[i])))?,
                        path: 0,
                        path2: 0,
                        file: FileId(file[i]),
                        object: object[i],
                        offset: offset[i],
                        len: len[i],
                        tier: match &*tier[i] {
                            "cache" => TierServed::Cache,
                            "backing" => TierServed::Backing,
                            _ => TierServed::None,
                        },
                        latency_ns: latency[i],
                        status: u16::try_from(status[i]).map_err(sealed)?,
                    },
                    wall_us: wall_us[i],
                    client: Arc::clone(&client[i]),
                    path: Arc::clone(&path[i]),
                    path2: Arc::clone(&path2[i]),
                })
            })
            .collect()
    }
}

impl<R: ChunkReader + 'static> Iterator for ParquetReader<R> {
    type Item = Result<Row, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            if self.failed || self.group == self.file.num_row_groups() {
                return None;
            }
            match self.next_group() {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
            self.group += 1;
        }
    }
}

macro_rules! read_column {
    ($name:ident, $variant:ident, $out:ty, $from:expr) => {
        fn $name(
            group: &dyn RowGroupReader,
            column: usize,
            rows: usize,
        ) -> Result<Vec<$out>, TraceError> {
            let ColumnReader::$variant(mut reader) =
                group.get_column_reader(column).map_err(sealed)?
            else {
                return Err(sealed(format!("column {column} has another type")));
            };
            let mut values = Vec::new();
            while values.len() < rows {
                let before = values.len();
                reader
                    .read_records(rows - before, None, None, &mut values)
                    .map_err(sealed)?;
                if values.len() == before {
                    return Err(sealed(format!("column {column} is short")));
                }
            }
            values.into_iter().map($from).collect()
        }
    };
}

read_column!(read_longs, Int64ColumnReader, u64, |v: i64| Ok(
    v.cast_unsigned()
));
read_column!(read_ints, Int32ColumnReader, u32, |v: i32| Ok(
    v.cast_unsigned()
));
read_column!(
    read_texts,
    ByteArrayColumnReader,
    Arc<str>,
    |v: ByteArray| v.as_utf8().map(Arc::from).map_err(sealed)
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::live::tests::any_record;
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_sealed_is_read(records in proptest::collection::vec((any_record(), "[a-z/]{0,9}", "\\PC{0,5}"), 0..60)) {
            let rows: Vec<Row> = records
                .into_iter()
                .map(|(record, path, client)| Row {
                    record: Record { client: 0, path: 0, path2: 0, ..record },
                    wall_us: record.at_ns,
                    client: client.into(),
                    path2: path.clone().into(),
                    path: path.into(),
                })
                .collect();
            let bytes = write_parquet(Vec::new(), rows.iter().cloned().map(Ok)).unwrap();
            let read: Vec<Row> = ParquetReader::new(Bytes::from(bytes)).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(read, rows);
        }

        #[test]
        fn other_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ParquetReader::new(Bytes::from(bytes)).is_err());
        }
    }
}
