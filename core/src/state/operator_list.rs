//! A list that belongs to a subtask rather than to a key, and how it is dealt out again (SUB-10).
//!
//! ```text
//!                a b c | d e | (none)         three subtasks
//! split  to 2:   a c e | b d                  dealt one by one
//! union  to 2:   a b c d e | a b c d e        everyone has everything, and takes what is its own
//! ```

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::state::{EncodeState, StateDescriptor, StateKind};

/// Rows that a subtask remembers; each is dealt out as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorList {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

/// How lists are dealt to subtasks on restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dealing {
    /// Every element goes to one subtask.
    Split,
    /// Every element goes to every subtask.
    Union,
}

impl OperatorList {
    /// An empty list of rows with these columns.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new() }
    }

    /// The list that these batches were taken from.
    pub fn restore(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let mut list = Self::new(schema);
        batches.into_iter().try_for_each(|batch| list.add(batch))?;
        Ok(list)
    }

    /// Adds rows at the end.
    pub fn add(&mut self, rows: RecordBatch) -> Result<()> {
        if rows.schema_ref().fields() != self.schema.fields() {
            return Err(Error::internal("rows that do not belong into a list of other columns"));
        }
        if rows.num_rows() > 0 {
            self.batches.push(rows);
        }
        Ok(())
    }

    /// Replaces all rows.
    pub fn set(&mut self, rows: Vec<RecordBatch>) -> Result<()> {
        *self = Self::restore(self.schema.clone(), rows)?;
        Ok(())
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.batches.clear();
    }

    /// The rows, in the order in which they were added.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The list frozen under a name, for a snapshot.
    pub fn freeze(&self, name: &str, dealing: Dealing) -> (StateDescriptor, EncodeState) {
        let kind = match dealing {
            Dealing::Split => StateKind::List,
            Dealing::Union => StateKind::UnionList,
        };
        let batches = self.batches.clone();
        let descriptor = StateDescriptor { name: name.to_owned(), kind, schema: self.schema.clone() };
        (descriptor, Box::new(move || Ok(batches)))
    }

    /// The lists of all subtasks for `parallelism` new ones; of no lists there are none. With [`Dealing::Split`] and as many
    /// subtasks as before, lists stay where they are.
    pub fn deal(lists: &[Self], dealing: Dealing, parallelism: usize) -> Result<Vec<Self>> {
        match dealing {
            Dealing::Split => Self::split(lists, parallelism),
            Dealing::Union => Ok(Self::union(lists, parallelism)),
        }
    }

    /// All rows dealt round-robin.
    fn split(lists: &[Self], parallelism: usize) -> Result<Vec<Self>> {
        let Some(first) = lists.first() else { return Ok(Vec::new()) };
        if lists.len() == parallelism {
            return Ok(lists.to_vec());
        }
        let mut dealt = vec![Self::new(first.schema.clone()); parallelism];
        let mut begin = 0;
        for batch in lists.iter().flat_map(|list| &list.batches) {
            let rows = batch.num_rows();
            for (subtask, list) in dealt.iter_mut().enumerate() {
                // The first row of this batch whose number, counted over all batches, falls to the subtask.
                let offset = (subtask + parallelism - begin % parallelism) % parallelism;
                let own: UInt32Array = (offset..rows).step_by(parallelism).map(|row| row as u32).collect();
                list.add(take_record_batch(batch, &own)?)?;
            }
            begin += rows;
        }
        Ok(dealt)
    }

    /// All rows to everyone.
    fn union(lists: &[Self], parallelism: usize) -> Vec<Self> {
        let Some(first) = lists.first() else { return Vec::new() };
        let batches = lists.iter().flat_map(|list| list.batches.iter().cloned()).collect();
        vec![Self { schema: first.schema.clone(), batches }; parallelism]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;

    fn rows(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("value", column)]).unwrap()
    }

    fn list(batches: &[Vec<i64>]) -> OperatorList {
        OperatorList::restore(rows(&[]).schema(), batches.iter().map(|batch| rows(batch)).collect()).unwrap()
    }

    fn values(list: &OperatorList) -> Vec<i64> {
        let of_batch = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        list.batches().iter().flat_map(of_batch).collect()
    }

    #[test]
    fn elements_are_dealt_one_by_one() {
        let lists = [list(&[vec![1, 2], vec![3]]), list(&[vec![4, 5]]), list(&[])];
        let dealt = OperatorList::deal(&lists, Dealing::Split, 2).unwrap();
        assert_eq!(dealt.iter().map(values).collect::<Vec<_>>(), [vec![1, 3, 5], vec![2, 4]]);
        let all = OperatorList::deal(&lists, Dealing::Union, 2).unwrap();
        assert_eq!(all.iter().map(values).collect::<Vec<_>>(), [vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4, 5]]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_there_twice(sizes in prop::collection::vec(prop::collection::vec(0..5usize, 0..4), 1..6),
                                                      parallelism in 1..8usize) {
            let mut next = 0..;
            let lists: Vec<OperatorList> = sizes.iter().map(|batches| {
                list(&batches.iter().map(|size| next.by_ref().take(*size).collect()).collect::<Vec<_>>())
            }).collect();
            let all: Vec<i64> = (0..next.start).collect();

            let dealt = OperatorList::deal(&lists, Dealing::Split, parallelism).unwrap();
            prop_assert_eq!(dealt.len(), parallelism);
            let mut back: Vec<i64> = dealt.iter().flat_map(values).collect();
            back.sort();
            prop_assert_eq!(&back, &all);
            if parallelism == lists.len() {
                prop_assert_eq!(&dealt, &lists);
            } else {
                let sizes: Vec<usize> = dealt.iter().map(OperatorList::len).collect();
                prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{:?}", sizes);
            }

            let union = OperatorList::deal(&lists, Dealing::Union, parallelism).unwrap();
            prop_assert_eq!(union.len(), parallelism);
            prop_assert!(union.iter().all(|list| values(list) == all));
        }
    }

    #[test]
    fn other_columns_are_refused() {
        let other: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["x"]));
        assert!(list(&[]).add(RecordBatch::try_from_iter([("value", other)]).unwrap()).is_err());
    }

    #[test]
    fn a_frozen_list_does_not_change() {
        let mut numbers = list(&[vec![1]]);
        let (descriptor, encode) = numbers.freeze("offsets", Dealing::Union);
        numbers.set(vec![rows(&[2, 3])]).unwrap();
        assert_eq!((descriptor.kind, encode().unwrap()), (StateKind::UnionList, vec![rows(&[1])]));
        assert_eq!((values(&numbers), numbers.len()), (vec![2, 3], 2));
    }
}
