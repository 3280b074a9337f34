//! Rows as files: JSON, CSV, Parquet, and a page with charts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde::Serialize;
use serde_json::Value;

/// Where rows go, and how: the ending says it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Output {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Json,
    Csv,
    Parquet,
    Html,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let kind = match path.extension().and_then(|e| e.to_str()) {
            Some("json") => Kind::Json,
            Some("csv") => Kind::Csv,
            Some("parquet") => Kind::Parquet,
            Some("html") => Kind::Html,
            _ => return Err("the name must end in .json, .csv, .parquet or .html".to_owned()),
        };
        Ok(Self { path, kind })
    }
}

impl Output {
    /// Makes the directories above the file.
    pub(super) fn make_way(&self) -> anyhow::Result<()> {
        crate::cli::make_way(&self.path)
    }

    /// Writes the rows; `page` makes the page of them.
    pub(super) fn write<R: Serialize>(
        &self,
        rows: &[R],
        page: impl FnOnce(&[R]) -> String,
    ) -> anyhow::Result<()> {
        let text = match self.kind {
            Kind::Json => json(rows)?,
            Kind::Csv => csv(rows)?,
            Kind::Html => page(rows),
            Kind::Parquet => {
                return parquet(rows, &self.path)
                    .with_context(|| format!("{}", self.path.display()));
            }
        };
        std::fs::write(&self.path, text).with_context(|| format!("{}", self.path.display()))
    }
}

/// An array of objects.
pub(super) fn json<R: Serialize>(rows: &[R]) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(rows)? + "\n")
}

/// A header line, and one line for each row; what does not apply is empty.
pub(super) fn csv<R: Serialize>(rows: &[R]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// A column for each field, in their order; what does not apply is null.
fn parquet<R: Serialize>(rows: &[R], path: &Path) -> anyhow::Result<()> {
    let table = csv(rows)?;
    let names = csv::Reader::from_reader(table.as_bytes())
        .headers()?
        .clone();
    let values: Vec<Value> = rows
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    let columns: Vec<Column> = names
        .iter()
        .map(|name| Column::new(name, &values))
        .collect();
    let fields: String = columns.iter().map(|c| c.declared() + "\n").collect();
    let schema = parse_message_type(&format!("message simulation {{\n{fields}}}"))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let file = File::create(path)?;
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for column in &columns {
        column.write(&mut group)?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

/// One field of all rows.
struct Column<'a> {
    name: &'a str,
    values: Vec<&'a Value>,
}

impl<'a> Column<'a> {
    fn new(name: &'a str, rows: &'a [Value]) -> Self {
        let values = rows.iter().map(|row| &row[name]).collect();
        Self { name, values }
    }

    fn all(&self, is: impl Fn(&Value) -> bool) -> bool {
        self.values.iter().all(|v| v.is_null() || is(v))
    }

    fn is_count(&self) -> bool {
        self.all(Value::is_u64)
    }

    fn is_number(&self) -> bool {
        self.all(Value::is_number)
    }

    fn declared(&self) -> String {
        let kind = match (self.is_count(), self.is_number()) {
            (true, _) => ["int64", " (INTEGER(64,false))"],
            (_, true) => ["double", ""],
            _ => ["binary", " (STRING)"],
        };
        format!("optional {} {}{};", kind[0], self.name, kind[1])
    }

    fn write(&self, group: &mut SerializedRowGroupWriter<'_, File>) -> anyhow::Result<()> {
        let levels: Vec<i16> = self
            .values
            .iter()
            .map(|v| i16::from(!v.is_null()))
            .collect();
        let levels = Some(&levels[..]);
        let there = self.values.iter().filter(|v| !v.is_null());
        let mut column = group.next_column()?.context("a column too many")?;
        if self.is_count() {
            // Parquet's unsigned columns are signed ones of the same bits.
            let values: Vec<i64> = there
                .filter_map(|v| Some(v.as_u64()?.cast_signed()))
                .collect();
            column
                .typed::<Int64Type>()
                .write_batch(&values, levels, None)?;
        } else if self.is_number() {
            let values: Vec<f64> = there.filter_map(|v| v.as_f64()).collect();
            column
                .typed::<DoubleType>()
                .write_batch(&values, levels, None)?;
        } else {
            let values: Vec<ByteArray> = there.filter_map(|v| Some(v.as_str()?.into())).collect();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, levels, None)?;
        }
        column.close()?;
        Ok(())
    }
}
