//! What a checkpoint holds: a row for each state of each subtask.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Schema;
use tidemill_core::Result;
use tidemill_exec::checkpoint::{FoundCheckpoint, StoredOperator, StoredState, StoredSubtask};

use crate::sql::catalog::type_name;

/// The states of a checkpoint, with what they are called, how much is stored of them, and the columns they are shown in.
/// Rows and bytes are those of all layers: a key that has changed counts once more in each that has it.
pub fn overview(found: &FoundCheckpoint) -> Result<RecordBatch> {
    let content = &found.content;
    let mut states: Vec<(&StoredOperator, &StoredSubtask, &StoredState)> = Vec::new();
    for operator in &content.operators {
        for subtask in &operator.subtasks {
            states.extend(subtask.states.iter().map(|state| (operator, subtask, state)));
        }
    }
    let text = |of: &dyn Fn(&(&StoredOperator, &StoredSubtask, &StoredState)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(states.iter().map(of)))
    };
    let sum = |of: &dyn Fn(&tidemill_exec::checkpoint::StoredChunk) -> u64| -> ArrayRef {
        let chunks = |state: &StoredState| state.layers.iter().flat_map(|layer| &layer.chunks).map(of).sum::<u64>();
        Arc::new(Int64Array::from_iter_values(states.iter().map(|(_, _, state)| chunks(state) as i64)))
    };
    let subtasks = states.iter().map(|(_, subtask, _)| subtask.index as i32);
    let checkpoints = Int64Array::from(vec![content.checkpoint as i64; states.len()]);
    let times = TimestampMillisecondArray::from(vec![content.timestamp_millis; states.len()]).with_timezone("UTC");
    Ok(RecordBatch::try_from_iter([
        ("checkpoint", Arc::new(checkpoints) as ArrayRef),
        ("triggered_at", Arc::new(times) as ArrayRef),
        ("operator", text(&|(operator, _, _)| operator.name.clone())),
        ("id", text(&|(operator, _, _)| operator.id.to_string())),
        ("state", text(&|(_, _, state)| state.descriptor.name.clone())),
        ("kind", text(&|(_, _, state)| state.kind().to_owned())),
        ("subtask", Arc::new(Int32Array::from_iter_values(subtasks)) as ArrayRef),
        ("layers", text(&|(_, _, state)| state.extents())),
        ("rows", sum(&|chunk| chunk.rows)),
        ("bytes", sum(&|chunk| chunk.length)),
        ("columns", text(&|(_, _, state)| columns(&state.readable_schema()))),
    ])?)
}

/// Columns as a statement would declare them.
fn columns(schema: &Schema) -> String {
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let null = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{null}", field.name(), type_name(field.data_type()))
    };
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}
