//! Any bytes as a chunk of a segment whose checksum is right: an error or as many rows as the manifest says.

#![no_main]

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use libfuzzer_sys::fuzz_target;
use tidemill_fuzz::checkpoint::codec::{decode, decode_chunk};
use tidemill_fuzz::checkpoint::content::StoredChunk;
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(init: tidemill_fuzz::let_panics_unwind(), |bytes: &[u8]| {
    let fields = vec![Field::new("key_group", DataType::UInt32, false), Field::new("value", DataType::Utf8, true)];
    let declared = Arc::new(Schema::new(fields));
    let found = decode(bytes).map_or(declared.clone(), |(schema, _)| schema);
    for schema in [declared, found] {
        for (rows, groups) in [(1, Some((0, 0))), (3, Some((0, 7))), (3, None)] {
            let (length, checksum) = (bytes.len() as u64, xxh3_64(bytes));
            let chunk = StoredChunk { offset: 0, length, rows, checksum, groups };
            if let Ok(batches) = decode_chunk(bytes, &chunk, &schema) {
                assert_eq!(batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>(), rows);
            }
        }
    }
});
