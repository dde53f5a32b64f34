//! Chunks of a Parquet file of states whose checksums are right: of any bytes, and of a file that was written and changed in some places.
//! An error or as many rows as the manifest says.

#![no_main]

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidemill_fuzz::checkpoint::content::StoredChunk;
use tidemill_fuzz::checkpoint::parquet::read::ParquetLayer;
use xxhash_rust::xxh3::Xxh3Default;

/// A file, and where its chunks are.
struct File {
    schema: SchemaRef,
    bytes: Vec<u8>,
    chunks: Vec<StoredChunk>,
    end: usize,
}

static FILE: LazyLock<File> = LazyLock::new(|| File::write([3, 40]));

impl File {
    fn write(counts: [usize; 2]) -> Self {
        let batches = counts.map(batch);
        let schema = batches[0].schema();
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).expect("such columns");
        let (mut chunks, mut end) = (Vec::new(), 0);
        for batch in &batches {
            writer.write(batch).expect("rows");
            writer.flush().expect("a row group");
            let (offset, rows) = (end as u64, batch.num_rows() as u64);
            end = writer.bytes_written();
            chunks.push(StoredChunk { offset, length: end as u64 - offset, rows, checksum: 0, groups: None });
        }
        Self { schema, bytes: writer.into_inner().expect("a footer"), chunks, end }
    }
}

/// Rows as states have them: texts, lists, and the variants of an enum.
fn batch(rows: usize) -> RecordBatch {
    let some = |row: usize| (row % 5 > 0).then_some(row as i64 / 3);
    let variant = Arc::new(Field::new("variant", DataType::Utf8, false));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|row| ["A", "B"][row % 2])));
    let of_b = Arc::new(Field::new("B", DataType::Boolean, true));
    let flags: ArrayRef =
        Arc::new(BooleanArray::from_iter((0..rows).map(|row| (row % 2 == 1).then_some(row % 4 == 1))));
    let lists = (0..rows).map(|row| some(row).map(|_| (0..row % 4).map(some).collect::<Vec<_>>()));
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("key_group", Arc::new(UInt32Array::from_iter_values(0..rows as u32)), false),
        ("number", Arc::new(Int64Array::from_iter((0..rows).map(some))), true),
        ("text", Arc::new(StringArray::from_iter((0..rows).map(|row| some(row).map(|n| n.to_string())))), true),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)), true),
        ("enum", Arc::new(StructArray::from(vec![(variant, names), (of_b, flags)])), false),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column, null)| Field::new(*name, column.data_type().clone(), *null)).collect();
    let columns = columns.into_iter().map(|(_, column, _)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}

fn check(place: usize, chunk: &StoredChunk, bytes: &[u8], end: u64, footer: &[u8]) {
    let layer = ParquetLayer::new(FILE.schema.clone(), end, Bytes::copy_from_slice(footer));
    let mut checksum = Xxh3Default::new();
    checksum.update(bytes);
    checksum.update(footer);
    let chunk = StoredChunk { checksum: checksum.digest(), ..*chunk };
    if let Ok(batches) = layer.decode(place, &chunk, Bytes::copy_from_slice(bytes)) {
        assert_eq!(batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>(), chunk.rows);
    }
}

/// Places and what is different there, three bytes each.
fn changed(edits: &[u8]) {
    let mut bytes = FILE.bytes.clone();
    for edit in edits.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[place] ^= edit[2];
    }
    let footer = &bytes[FILE.end..];
    for (place, chunk) in FILE.chunks.iter().enumerate() {
        let begin = chunk.offset as usize;
        check(place, chunk, &bytes[begin..begin + chunk.length as usize], FILE.end as u64, footer);
    }
}

/// The length of a chunk in two bytes, the chunk, and a footer.
fn made_up(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (bytes, footer) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let length = bytes.len() as u64;
    for rows in [1, 3] {
        check(0, &StoredChunk { offset: 0, length, rows, checksum: 0, groups: None }, bytes, length, footer);
    }
}

fuzz_target!(init: tidemill_fuzz::let_panics_unwind(), |bytes: &[u8]| {
    match bytes.split_first() {
        Some((kind, edits)) if kind % 2 == 0 => changed(edits),
        Some((_, bytes)) => made_up(bytes),
        None => {}
    }
});
