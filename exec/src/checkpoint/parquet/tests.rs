//! Files whose checksums are right and whose content is not: whatever they say of themselves, an error and not a process that is gone.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ColumnChunkMetaData;
use tidemill_core::ErrorKind;
use tidemill_core::state::{Extent, StateKind};
use xxhash_rust::xxh3::Xxh3Default;

use super::measure::{has_values_max, measure_column, measure_footer};
use super::{ParquetLayer, write_file};
use crate::checkpoint::content::{StoredChunk, StoredLayer};
use crate::checkpoint::segment::read_layer;
use crate::checkpoint::tests::{Chance, descriptor, memory, overwrite, rows, run};
use crate::checkpoint::upload::Upload;

const KINDS: [u64; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const NAME: &str = "state.parquet";

/// A file in a store, and the layer that is in it.
struct Written {
    store: Arc<dyn ObjectStore>,
    layer: StoredLayer,
    bytes: Vec<u8>,
}

fn written(kinds: &[u64], count: usize, chunk_rows: usize) -> Written {
    let descriptor = descriptor("count", StateKind::Keyed, kinds);
    let batches = rows(&descriptor, kinds, count, 0..8, &mut Chance(3));
    run(async {
        let store = memory();
        let mut upload = Upload::new(store.clone(), Path::from(NAME));
        let (chunks, _) = write_file(&mut upload, Vec::new(), &descriptor, &batches, chunk_rows).await.unwrap();
        let bytes = store.get(&Path::from(NAME)).await.unwrap().bytes().await.unwrap().to_vec();
        let schema = descriptor.schema.clone();
        Written { store, layer: StoredLayer { extent: Extent::Whole, schema, segment: NAME.into(), chunks }, bytes }
    })
}

impl Written {
    fn end(&self) -> usize {
        self.layer.chunks.last().unwrap().end() as usize
    }

    /// The chunk with the checksum that it has in these bytes.
    fn chunk(&self, place: usize, bytes: &[u8]) -> (StoredChunk, Bytes) {
        let chunk = self.layer.chunks[place];
        let own = &bytes[chunk.offset as usize..chunk.end() as usize];
        let mut checksum = Xxh3Default::new();
        checksum.update(own);
        checksum.update(&bytes[self.end()..]);
        (StoredChunk { checksum: checksum.digest(), ..chunk }, Bytes::copy_from_slice(own))
    }

    fn decode(&self, place: usize, bytes: &[u8]) -> Result<Vec<RecordBatch>, String> {
        let footer = Bytes::copy_from_slice(&bytes[self.end()..]);
        let layer = ParquetLayer::new(self.layer.schema.clone(), self.end() as u64, footer);
        let (chunk, own) = self.chunk(place, bytes);
        layer.decode(place, &chunk, own)
    }
}

fn rows_in(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

#[test]
fn what_was_written_measures_up() {
    for kind in KINDS {
        for (count, chunk_rows) in [(1, 1), (500, 64), (30_000, 30_000)] {
            let file = written(&[0, kind], count, chunk_rows);
            for (place, chunk) in file.layer.chunks.iter().enumerate() {
                let rows = file.decode(place, &file.bytes).unwrap_or_else(|error| panic!("{kind}: {error}"));
                assert_eq!(rows_in(&rows), chunk.rows);
            }
        }
    }
}

/// Every byte of a file is another one, some of them in a way that no decoder of its own notices.
#[test]
fn a_changed_byte_is_an_error_or_as_many_rows() {
    let file = written(&KINDS, 12, 6);
    let mut refused = 0;
    for place in 0..file.bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = file.bytes.clone();
            bytes[place] ^= change;
            match file.decode(0, &bytes) {
                Ok(batches) => assert_eq!(rows_in(&batches), file.layer.chunks[0].rows, "byte {place}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1000, "{refused} of {} bytes", file.bytes.len());
}

#[test]
fn the_error_of_a_file_that_cannot_be_read_names_it() {
    let mut file = written(&KINDS, 12, 6);
    // The magic at its end.
    *file.bytes.last_mut().unwrap() ^= 1;
    let bytes = file.bytes.clone();
    file.layer.chunks = (0..file.layer.chunks.len()).map(|place| file.chunk(place, &bytes).0).collect();
    run(async {
        overwrite(file.store.as_ref(), &Path::from(NAME), |stored| *stored = bytes).await;
        let error = read_layer(file.store.as_ref(), &Path::default(), &file.layer, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.starts_with(&format!("'{NAME}' at 0, ")) && text.ends_with("no Parquet file"), "{text}");

        overwrite(file.store.as_ref(), &Path::from(NAME), |stored| stored.resize(100 << 20, 0)).await;
        let error = read_layer(file.store.as_ref(), &Path::default(), &file.layer, None).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("'{NAME}': ")) && text.ends_with(" bytes behind its rows"), "{text}");
    });
}

/// Unsigned, as Thrift has lengths.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn number(number: i32) -> Vec<u8> {
    varint(u64::from(((number << 1) ^ (number >> 31)) as u32))
}

/// What is wrong with metadata of these fields; the last is closed.
fn measured(fields: &[&[u8]]) -> String {
    let metadata = [fields.concat(), vec![0]].concat();
    let length = (metadata.len() as u32).to_le_bytes();
    measure_footer(&[&b"page indexes"[..], &metadata[..], &length[..], b"PAR1"].concat()).unwrap_err()
}

#[test]
fn metadata_takes_no_more_than_it_has() {
    const VERSION: &[u8] = &[0x15, 0x02];
    // A list of one element called `r`.
    const SCHEMA: &[u8] = &[0x19, 0x1c, 0x48, 1, b'r', 0];
    const ROWS: &[u8] = &[0x16, 0];
    let many = varint(i32::MAX as u64);
    let row_groups = [&[0x19, 0xfc][..], &many].concat();
    assert_eq!(measured(&[VERSION, SCHEMA, ROWS, &row_groups]), "a list of 2147483647 items in 1 bytes");
    let lists = [&[0x99, 0x19, 0xf1][..], &many].concat();
    assert_eq!(measured(&[VERSION, &lists]), "a list of 2147483647 items in 1 bytes", "of a field that nobody knows");

    let children = [&[0x19, 0x1c, 0x48, 1, b'r', 0x15][..], &number(i32::MAX), &[0]].concat();
    assert_eq!(measured(&[VERSION, &children]), "an element of the schema with 2147483647 children");
    let depth = 100_000;
    let mut deep = [&[0x19, 0xfc][..], &varint(depth + 1)].concat();
    (0..depth).for_each(|_| deep.extend([0x48, 1, b'g', 0x15, 0x02, 0]));
    deep.extend([0x48, 1, b'x', 0]);
    assert_eq!(measured(&[VERSION, &deep]), "a schema that is too deep");
    let nested = [vec![0x9c], vec![0x1c; 100_000]].concat();
    assert_eq!(measured(&[VERSION, &nested]), "metadata that is too deep");

    assert_eq!(measured(&[&[0x18, 1, b'2']]), "metadata that no file has", "a version that is a text");
    assert_eq!(measured(&[VERSION, &[0x18, 9, b'x']]), "metadata that no file has", "a schema that is a text");
    assert_eq!(measured(&[VERSION, SCHEMA, &[0x96]]), "metadata that is cut off");
    for footer in [&b""[..], b"PAR1", b"\x09\0\0\0PAR1", b"\xff\xff\xff\xffPAR1"] {
        assert_eq!(measure_footer(footer).unwrap_err(), "metadata that is cut off", "{footer:?}");
    }
}

fn page(decoded: i32, encoded: i32, values: i32, bytes: &[u8]) -> Vec<u8> {
    let data_page = [&[0x2c, 0x15][..], &number(values), &[0x15, 0, 0x15, 6, 0x15, 6, 0]].concat();
    [&[0x15, 0, 0x15][..], &number(decoded), &[0x15], &number(encoded), &data_page, &[0], bytes].concat()
}

#[test]
fn pages_take_no_more_than_they_have() {
    let fields = vec![Field::new("value", DataType::new_list(DataType::Int64, true), true)];
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let descriptor = ArrowSchemaConverter::new().convert(&schema).unwrap().column(0);
    let measured = |compression: Compression, pages: &[Vec<u8>]| {
        let bytes = pages.concat();
        let column = ColumnChunkMetaData::builder(descriptor.clone()).set_compression(compression);
        let column = column.set_data_page_offset(4).set_total_compressed_size(bytes.len() as i64).build().unwrap();
        assert_eq!(measure_column(&column, &bytes[1..], 4).unwrap_err(), "a column outside of its chunk");
        measure_column(&column, &bytes, 4)
    };
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let ten = [0; 10];
    measured(zstd, &[page(100, 10, 5, &ten), page(10, 10, 5, &ten)]).unwrap();
    measured(Compression::UNCOMPRESSED, &[page(10, 10, 5, &ten)]).unwrap();
    let refused = |compression, pages: &[Vec<u8>]| measured(compression, pages).unwrap_err();
    let whole = page(10, 10, 5, &ten);
    assert_eq!(refused(zstd, &[whole.clone(), page(i32::MAX, 10, 5, &ten)]), "a page of 2147483647 bytes in 10");
    assert_eq!(refused(Compression::UNCOMPRESSED, &[page(11, 10, 5, &ten)]), "a page of 11 bytes in 10");
    assert_eq!(refused(zstd, &[page(10, 11, 5, &ten)]), "a page that is cut off");
    assert_eq!(refused(zstd, &[page(-1, 10, 5, &ten)]), "a page with -1 of something");
    let many = refused(zstd, &[page(10, 10, i32::MAX, &ten), page(10, 10, i32::MAX, &ten)]);
    assert!(many.starts_with("a column of 4294967294 values in "), "{many}");
    assert_eq!(refused(Compression::SNAPPY, &[whole]), "a column that is compressed as SNAPPY");
    assert!(!has_values_max(100_000_000, 1 << 20) && has_values_max(200_000_000, 1 << 20));
}
