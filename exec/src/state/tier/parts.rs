//! Parts of state that operators keep in forms of their own: batches, cut by key group.
//!
//! A part is a range of its own, with an Arrow IPC stream under each key group. Nothing is read to write one, and the parts of a
//! key are put together when they are read, key group by key group.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt32Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use tidemill_core::Result;
use tidemill_core::state::{PartStore, StatePart};

use super::{Family, Share, Tier, TierRange, Writes};

/// How many bytes are written together.
const WRITE_BYTES: usize = 4 << 20;

/// The parts of one operator in one subtask.
#[derive(Debug)]
pub struct TierParts {
    tier: Tier,
    share: Share,
}

impl TierParts {
    /// No parts yet.
    pub fn new(tier: Tier) -> Self {
        Self { share: tier.share(), tier }
    }
}

impl PartStore for TierParts {
    fn excess(&mut self, held_bytes: usize) -> Option<usize> {
        self.share.note(held_bytes);
        self.share.excess(held_bytes)
    }

    fn put(&mut self, rows: &RecordBatch) -> Result<Arc<dyn StatePart>> {
        let range = self.tier.range()?;
        let (mut bytes_of, mut batch) = (Vec::new(), Writes::default());
        let mut begin = 0;
        for same in rows.column(0).as_primitive::<UInt32Type>().values().chunk_by(|left, right| left == right) {
            let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
            writer.write(&rows.slice(begin, same.len()))?;
            let bytes = writer.into_inner()?;
            begin += same.len();
            batch.put(&range.key(Family::Rows, same[0], &[]), &bytes);
            bytes_of.push((same[0], bytes.len() as u64));
            if batch.size_bytes() >= WRITE_BYTES {
                range.write(std::mem::take(&mut batch))?;
            }
        }
        range.write(batch)?;
        Ok(Arc::new(Part { range, bytes_of }))
    }
}

#[derive(Debug)]
struct Part {
    range: TierRange,
    /// Key groups and the bytes that each has.
    bytes_of: Vec<(u32, u64)>,
}

impl StatePart for Part {
    fn add_bytes(&self, by_group: &mut [u64]) {
        for (group, bytes) in &self.bytes_of {
            if let Some(sum) = by_group.get_mut(*group as usize) {
                *sum += bytes;
            }
        }
    }

    fn read(&self, groups: Range<u32>) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let from = self.range.key(Family::Rows, groups.start, &[]);
        self.range.scan(Family::Rows, &from, &mut |group, bytes| {
            if group >= groups.end {
                return Ok(false);
            }
            for batch in StreamReader::try_new(Cursor::new(bytes), None)? {
                batches.push(batch?);
            }
            Ok(true)
        })?;
        Ok(batches)
    }
}
