//! Rows in flight: what the barrier of an unaligned checkpoint overtook on its way into a subtask, at rest and on the way back
//! (NCK-01).
//!
//! ```text
//! $in-flight 0     list    rows of the first input edge in the order in which they would have been read, and their kinds
//! $in-flight 1     list    those of the second …
//! $in-flight time  list    how far event time had come before all of them, and behind them
//! ```
//!
//! They are filed under the first operator of the task that was to read them. Of control events only event time is kept, as
//! what holds for all channels together: the splits of a source may be dealt to other readers after a restore, so what one
//! channel was told need not be true of it any more. Who is idle says so again.
//!
//! A subtask reads what was in flight on an edge before anything new from that edge, whichever channel it came through, so that
//! no row is overtaken by a later one of its key. Where there are other subtasks than before the edge's partitioning deals the
//! rows again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use tidemill_core::graph::Partitioning;
use tidemill_core::state::{EncodeState, StateDescriptor, StateKind};
use tidemill_core::{Batch, Error, Result, Watermark};

use crate::state::stored_rows::{stored_columns, stored_fields, thawed};

/// How the names of these states begin; no state of an operator does.
const PREFIX: &str = "$in-flight ";
/// The state that holds event time.
pub const TIME: &str = "$in-flight time";

/// An input edge as one subtask sees it.
#[derive(Clone, Debug)]
pub struct InputEdge {
    /// Its number among the input edges of the task.
    pub place: usize,
    /// The input port that it feeds.
    pub port: usize,
    /// Its channels among those of the subtask.
    pub channels: Range<usize>,
    /// How rows were dealt to it.
    pub partitioning: Partitioning,
    /// How many key groups there are.
    pub max_parallelism: u32,
    /// Columns of its rows.
    pub schema: SchemaRef,
    /// Whether barriers may overtake its rows.
    pub may_be_overtaken: bool,
}

/// The rows in flight to one subtask, as an unaligned checkpoint takes them.
#[derive(Debug)]
pub struct InFlight {
    /// Each edge that has some, and its rows in order.
    pub edges: Vec<(InputEdge, Vec<Batch>)>,
    /// How far event time had come before them.
    pub begin: Watermark,
    /// How far it comes with them.
    pub end: Watermark,
}

/// The rows in flight to one subtask, on their way back.
#[derive(Debug)]
pub struct Replay {
    /// Each edge and what is left.
    pub edges: Vec<(InputEdge, VecDeque<Batch>)>,
    /// How far event time has come before them.
    pub begin: Watermark,
    /// How far it comes with them.
    pub end: Watermark,
}

impl InFlight {
    /// How many bytes the rows have.
    pub fn bytes(&self) -> usize {
        self.edges.iter().flat_map(|(_, rows)| rows).map(Batch::size_bytes).sum()
    }

    /// The states that hold them.
    pub fn freeze(self) -> Vec<(StateDescriptor, EncodeState)> {
        let times = [self.begin, self.end].map(|time| Arc::new(Int64Array::from(vec![time.0])) as ArrayRef);
        let schema = time_schema();
        let time: EncodeState = {
            let schema = schema.clone();
            Box::new(move || Ok(vec![RecordBatch::try_new(schema, times.to_vec())?]))
        };
        let mut states = vec![(descriptor(TIME.to_owned(), schema), time)];
        for (edge, rows) in self.edges {
            let schema = stored_schema(&edge.schema);
            let encode: EncodeState = {
                let schema = schema.clone();
                let stored = move |batch| Ok(RecordBatch::try_new(schema.clone(), stored_columns(batch))?);
                Box::new(move || rows.into_iter().map(stored).collect())
            };
            states.push((descriptor(name_of(edge.place), schema), encode));
        }
        states
    }
}

impl Replay {
    /// The next rows, and the input port that they belong to; with `only`, those of other ports wait.
    pub fn next(&mut self, only: Option<usize>) -> Option<(&InputEdge, Batch)> {
        let wanted = |edge: &InputEdge| only.is_none_or(|port| edge.port == port);
        let (edge, rows) = self.edges.iter_mut().find(|(edge, rows)| wanted(edge) && !rows.is_empty())?;
        Some((edge, rows.pop_front()?))
    }

    /// Whether all of them have been read.
    pub fn is_over(&self) -> bool {
        self.edges.iter().all(|(_, rows)| rows.is_empty())
    }
}

/// The name of the state of an edge's rows.
pub fn name_of(place: usize) -> String {
    format!("{PREFIX}{place}")
}

/// Whether a state of this name belongs to rows in flight.
pub fn is_in_flight(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The edge whose rows are in a state of this name.
pub fn place_of(name: &str) -> Option<usize> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Stored rows as they were in flight.
pub fn thaw(edge: &InputEdge, stored: &RecordBatch) -> Result<Batch> {
    thawed(&edge.schema, stored)
}

/// Event time before and behind the rows, in a stored batch of [`TIME`].
pub fn times(stored: &RecordBatch) -> Result<(Watermark, Watermark)> {
    let time = |place: usize| {
        let column = stored.columns().get(place).and_then(|column| column.as_primitive_opt::<Int64Type>());
        column.and_then(|times| times.iter().flatten().min()).map(Watermark)
    };
    time(0)
        .zip(time(1))
        .ok_or_else(|| Error::corrupt(format!("the state '{TIME}' of a checkpoint holds no event time")))
}

fn descriptor(name: String, schema: SchemaRef) -> StateDescriptor {
    StateDescriptor { name, kind: StateKind::List, schema }
}

fn time_schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![field("begin"), field("end")]))
}

fn stored_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(stored_fields(schema)))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn edge(place: usize, schema: SchemaRef) -> InputEdge {
        let partitioning = Partitioning::Rebalance;
        InputEdge { place, port: 0, channels: 0..2, partitioning, max_parallelism: 4, schema, may_be_overtaken: true }
    }

    #[test]
    fn rows_come_back_with_their_kinds_and_event_time_with_them() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let records = RecordBatch::try_from_iter([("name", column)]).unwrap();
        let edge = edge(3, records.schema());
        let rows = vec![
            Batch::append(records.clone()),
            Batch::changelog(records.clone(), vec![1, 2].into()).unwrap().with_hashes(vec![7, 8].into()).unwrap(),
        ];
        let in_flight = InFlight { edges: vec![(edge.clone(), rows)], begin: Watermark(5), end: Watermark::MAX };
        assert!(in_flight.bytes() > 0);
        let states: Vec<(String, Vec<RecordBatch>)> =
            in_flight.freeze().into_iter().map(|(state, encode)| (state.name, encode().unwrap())).collect();
        assert_eq!(times(&states[0].1[0]).unwrap(), (Watermark(5), Watermark::MAX));
        assert!(states.iter().all(|(name, _)| is_in_flight(name)));
        assert_eq!((place_of(&states[0].0), place_of(&states[1].0)), (None, Some(3)));
        let back: Vec<Batch> = states[1].1.iter().map(|stored| thaw(&edge, stored).unwrap()).collect();
        assert_eq!(back[0].records(), &records);
        assert_eq!((back[0].kinds().is_none(), back[1].kinds().unwrap().as_ref()), (true, &[1, 2][..]));
    }

    #[test]
    fn rows_of_other_columns_are_refused_with_both_named() {
        let schema = |data_type| Arc::new(Schema::new(vec![Field::new("price", data_type, false)]));
        let stored = RecordBatch::new_empty(stored_schema(&schema(DataType::Int32)));
        let error = thaw(&edge(0, schema(DataType::Utf8)), &stored).unwrap_err().to_string();
        assert!(error.contains("Int32") && error.contains("Utf8") && error.contains("savepoint"), "{error}");
    }

    #[test]
    fn other_ports_do_not_get_the_rows_of_an_edge() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let batch = Batch::append(RecordBatch::try_from_iter([("name", column)]).unwrap());
        let edges = vec![(edge(0, batch.schema()), VecDeque::from([batch]))];
        let mut replay = Replay { edges, begin: Watermark::MIN, end: Watermark::MIN };
        assert!(replay.next(Some(1)).is_none() && replay.next(Some(0)).is_some());
        assert!(replay.is_over());
    }
}
