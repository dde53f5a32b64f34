//! The laws of sinks that write by key ([`Delivery::Idempotent`]): rows that are written again after a crash leave what they would have
//! left written once. In between a reader may see earlier values again, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidemill_core::batch::Batch;
use tidemill_core::error::Result;
use tidemill_core::sink::{ChangelogMode, Delivery, Sink};

use super::recovery::{Life, Step};
use super::rows_as_text;

/// A table as text: the row of each key.
type Table = BTreeMap<String, String>;

/// Runs a sink through `history`, and to its end. `open` opens the same sink again, `changes` gives the changes with these numbers,
/// `visible` the rows that a reader sees; there are none before.
pub async fn check_upserts(
    open: &dyn Fn() -> Result<Arc<dyn Sink>>,
    changes: &dyn Fn(Range<u64>) -> Batch,
    history: &[Step],
    parallelism_max: usize,
    visible: impl AsyncFn() -> RecordBatch,
) -> Result<()> {
    let sink = open()?;
    let keys = sink.key_columns().to_vec();
    assert_eq!((sink.delivery(), keys.is_empty()), (Delivery::Idempotent, false), "who writes by key says so");
    assert_eq!(sink.changelog_mode(), ChangelogMode::Upsert, "the old row of a key is not asked for");
    let mut life = Life::begin(open, changes, parallelism_max).await?;
    for (at, step) in history.iter().enumerate() {
        life.step(*step).await?;
        let seen = table(&visible().await, &keys)?;
        let (durable, written) = life.numbers();
        let moments = moments(&changes(0..written), &keys, durable)?;
        for key in moments.iter().chain([&seen]).flat_map(Table::keys).collect::<BTreeSet<_>>() {
            let row = seen.get(key);
            assert!(
                moments.iter().any(|moment| moment.get(key) == row),
                "{key} is {row:?}, which it never was from the last checkpoint on, after step {at} of {history:?}"
            );
        }
    }
    life.catch_up().await?;
    let end = life.end().await?;
    let expected = moments(&changes(0..end), &keys, end)?.pop().unwrap_or_default();
    assert_eq!(table(&visible().await, &keys)?, expected, "as written once, after {history:?}");
    Ok(())
}

/// What the table is at each moment: behind the first `from` changes, and behind each later one.
fn moments(changes: &Batch, keys: &[usize], from: u64) -> Result<Vec<Table>> {
    let (keys, rows) = (rows_as_text(&changes.records().project(keys)?)?, rows_as_text(changes.records())?);
    let (mut table, mut moments) = (Table::new(), Vec::new());
    for (number, (key, row)) in keys.into_iter().zip(rows).enumerate() {
        if number as u64 >= from {
            moments.push(table.clone());
        }
        match changes.kind(number)?.is_addition() {
            true => table.insert(key, row),
            false => table.remove(&key),
        };
    }
    moments.push(table);
    Ok(moments)
}

fn table(rows: &RecordBatch, keys: &[usize]) -> Result<Table> {
    let keys = rows_as_text(&rows.project(keys)?)?;
    let table: Table = keys.into_iter().zip(rows_as_text(rows)?).collect();
    assert_eq!(table.len(), rows.num_rows(), "a key has one row");
    Ok(table)
}
