//! The accumulators that there are: counters, least and greatest, average, histogram, list (SHR-03).
//!
//! Integers that overflow stay at the end of their range: a count that is too large to be told must not fail a job that is right.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::shared::accumulator::Accumulator;
use crate::shared::values::encoded_bytes;

/// What an entry of a histogram occupies: a value, its count, and their share of the nodes of the tree.
const COUNT_BYTES: usize = size_of::<(i64, u64)>() + 16;

/// Declares an accumulator of one field, and what that keeps on the heap, if anything.
macro_rules! accumulator {
    ($(#[$doc:meta])* $name:ident($state:ty), $kind:literal, $input:ty => $output:ty, $add:expr, $merge:expr, $value:expr
     $(, $heap_bytes:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct $name($state);

        impl Accumulator for $name {
            type Input = $input;
            type Output = $output;

            fn add(&mut self, input: $input) {
                let add: fn(&mut $state, $input) = $add;
                add(&mut self.0, input);
            }

            fn merge(&mut self, other: Self) {
                let merge: fn(&mut $state, $state) = $merge;
                merge(&mut self.0, other.0);
            }

            fn value(&self) -> $output {
                let value: fn(&$state) -> $output = $value;
                value(&self.0)
            }

            fn kind() -> &'static str {
                $kind
            }

            $(fn memory_bytes(&self) -> usize {
                let heap_bytes: fn(&$state) -> usize = $heap_bytes;
                size_of::<Self>() + heap_bytes(&self.0)
            })?
        }
    };
}

/// The greater or lesser of what is there and what comes.
fn better<T: Copy>(kept: &mut Option<T>, input: T, is_better: impl Fn(T, T) -> bool) {
    if kept.is_none_or(|kept| is_better(input, kept)) {
        *kept = Some(input);
    }
}

accumulator!(
    /// The sum of 32-bit integers.
    IntCounter(i32), "int counter", i32 => i32,
    |sum, input| *sum = sum.saturating_add(input),
    |sum, other| *sum = sum.saturating_add(other),
    |sum| *sum
);
accumulator!(
    /// The sum of 64-bit integers.
    LongCounter(i64), "long counter", i64 => i64,
    |sum, input| *sum = sum.saturating_add(input),
    |sum, other| *sum = sum.saturating_add(other),
    |sum| *sum
);
accumulator!(
    /// The sum of doubles. Its last digits depend on the order in which subtasks were merged.
    DoubleCounter(f64), "double counter", f64 => f64,
    |sum, input| *sum += input,
    |sum, other| *sum += other,
    |sum| *sum
);
accumulator!(
    /// The least of 32-bit integers; `None` of none.
    IntMinimum(Option<i32>), "int minimum", i32 => Option<i32>,
    |least, input| better(least, input, |new, old| new < old),
    |least, other| other.into_iter().for_each(|input| better(least, input, |new, old| new < old)),
    |least| *least
);
accumulator!(
    /// The greatest of 32-bit integers; `None` of none.
    IntMaximum(Option<i32>), "int maximum", i32 => Option<i32>,
    |most, input| better(most, input, |new, old| new > old),
    |most, other| other.into_iter().for_each(|input| better(most, input, |new, old| new > old)),
    |most| *most
);
accumulator!(
    /// The least of 64-bit integers; `None` of none.
    LongMinimum(Option<i64>), "long minimum", i64 => Option<i64>,
    |least, input| better(least, input, |new, old| new < old),
    |least, other| other.into_iter().for_each(|input| better(least, input, |new, old| new < old)),
    |least| *least
);
accumulator!(
    /// The greatest of 64-bit integers; `None` of none.
    LongMaximum(Option<i64>), "long maximum", i64 => Option<i64>,
    |most, input| better(most, input, |new, old| new > old),
    |most, other| other.into_iter().for_each(|input| better(most, input, |new, old| new > old)),
    |most| *most
);
accumulator!(
    /// The least of doubles in their total order, so that it does not depend on who is merged first; `None` of none.
    DoubleMinimum(Option<f64>), "double minimum", f64 => Option<f64>,
    |least, input| better(least, input, |new, old| new.total_cmp(&old).is_lt()),
    |least, other| other.into_iter().for_each(|input| better(least, input, |new, old| new.total_cmp(&old).is_lt())),
    |least| *least
);
accumulator!(
    /// The greatest of doubles in their total order, in which NaN is above all; `None` of none.
    DoubleMaximum(Option<f64>), "double maximum", f64 => Option<f64>,
    |most, input| better(most, input, |new, old| new.total_cmp(&old).is_gt()),
    |most, other| other.into_iter().for_each(|input| better(most, input, |new, old| new.total_cmp(&old).is_gt())),
    |most| *most
);
accumulator!(
    /// The mean of doubles; `None` of none.
    Average((f64, u64)), "average", f64 => Option<f64>,
    |(sum, count), input| {
        *sum += input;
        *count += 1;
    },
    |(sum, count), other| {
        *sum += other.0;
        *count += other.1;
    },
    |(sum, count)| (*count > 0).then(|| sum / *count as f64)
);
accumulator!(
    /// How often each integer was added. It holds an entry for every one, so it is for few.
    Histogram(BTreeMap<i64, u64>), "histogram", i64 => BTreeMap<i64, u64>,
    |counts, input| *counts.entry(input).or_default() += 1,
    |counts, other| other.into_iter().for_each(|(value, count)| *counts.entry(value).or_default() += count),
    BTreeMap::clone,
    |counts| counts.len() * COUNT_BYTES
);

/// What a list of one subtask may occupy: the job holds those of all of them at its end, and copies of them.
pub(super) const LIST_BYTES_MAX: usize = 64 << 20;

/// Everything that was added, in no order between subtasks. It is held in memory until the job has ended, so it is for little: 64 MB
/// a subtask, and to add more is an error.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct ListAccumulator<T: Serialize + DeserializeOwned> {
    values: Vec<T>,
    /// What serde writes of the values. Not known of those that were read back.
    #[serde(skip)]
    encoded_bytes: usize,
}

impl<T: Serialize + DeserializeOwned> Default for ListAccumulator<T> {
    fn default() -> Self {
        Self { values: Vec::new(), encoded_bytes: 0 }
    }
}

impl<T: PartialEq + Serialize + DeserializeOwned> PartialEq for ListAccumulator<T> {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl<T: Clone + Serialize + DeserializeOwned + Send + 'static> Accumulator for ListAccumulator<T> {
    type Input = T;
    type Output = Vec<T>;

    fn add(&mut self, input: T) {
        self.encoded_bytes += encoded_bytes(&input);
        self.values.push(input);
    }

    fn merge(&mut self, other: Self) {
        self.encoded_bytes += other.encoded_bytes;
        self.values.extend(other.values);
    }

    fn value(&self) -> Vec<T> {
        self.values.clone()
    }

    /// What the list takes, or what serde writes of its values if that is more: then they have it elsewhere.
    fn memory_bytes(&self) -> usize {
        (self.values.capacity() * size_of::<T>()).max(self.encoded_bytes)
    }

    fn memory_bytes_max() -> usize {
        LIST_BYTES_MAX
    }
}
