//! Accumulators on their way: partial values as bytes, and what a job's subtasks have added together.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, unknown};
use crate::shared::accumulator::{Accumulator, AccumulatorCell, AccumulatorKind};

/// What part of a job has added to an accumulator, as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    kind: String,
    bytes: Vec<u8>,
}

impl Partial {
    /// The name of its kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

/// The partial value that `accumulator` holds.
pub(super) fn encode<A: Accumulator>(accumulator: &A) -> Result<Partial> {
    let bytes = rmp_serde::to_vec_named(accumulator)
        .map_err(|error| Error::data(format!("an accumulator ({}) cannot be written: {error}", A::kind())))?;
    Ok(Partial { kind: A::kind().to_owned(), bytes })
}

/// How many bytes serde writes of a value; none if it cannot be written, which whoever encodes the accumulator hears.
pub(super) fn encoded_bytes<T: Serialize>(value: &T) -> usize {
    let mut counted = Counted(0);
    match rmp_serde::encode::write(&mut counted, value) {
        Ok(()) => counted.0,
        Err(_) => 0,
    }
}

/// Counts what is written to it.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The accumulator that a partial value was written from.
pub(super) fn decode<A: Accumulator>(partial: &Partial) -> Result<A> {
    if partial.kind != A::kind() {
        return Err(Error::internal(format!("an accumulator is a {} and no {}", partial.kind, A::kind())));
    }
    rmp_serde::from_slice(&partial.bytes).map_err(|error| {
        Error::corrupt(format!("an accumulator ({}) does not read back what it wrote: {error}", A::kind()))
    })
}

/// What a job's subtasks have added together, by name. What cannot be merged is an error for who asks for it, and for nobody else.
#[derive(Clone, Debug, Default)]
pub struct AccumulatorValues(BTreeMap<Arc<str>, Result<(AccumulatorKind, Partial)>>);

impl AccumulatorValues {
    /// What these cells hold, merged by name.
    pub fn merge<'a>(cells: impl IntoIterator<Item = (Arc<str>, &'a dyn AccumulatorCell)>) -> Self {
        let mut by_name: BTreeMap<Arc<str>, (AccumulatorKind, Vec<Result<Partial>>)> = BTreeMap::new();
        for (name, cell) in cells {
            by_name.entry(name).or_insert_with(|| (cell.kind(), Vec::new())).1.push(cell.partial());
        }
        let merge = |(kind, partials): (AccumulatorKind, Vec<Result<Partial>>)| -> Result<(AccumulatorKind, Partial)> {
            let partials = partials.into_iter().collect::<Result<Vec<Partial>>>()?;
            Ok((kind, kind.merge(&partials)?))
        };
        let merged = by_name.into_iter().map(|(name, of)| {
            let merged = merge(of).map_err(|error| named(&name, error));
            (name, merged)
        });
        Self(merged.collect())
    }

    /// The result of the accumulator called `name`. An error if there is none, or if it is of another kind.
    ///
    /// A job whose functions ran has all accumulators that they registered, also those to which nothing was added.
    pub fn get<A: Accumulator>(&self, name: &str) -> Result<A::Output> {
        let found = self.0.get(name).ok_or_else(|| unknown("accumulator", name, self.names()))?;
        let (_, partial) = found.as_ref().map_err(Error::clone)?;
        if partial.kind != A::kind() {
            return Err(other_kind(name, &partial.kind, A::kind()));
        }
        Ok(decode::<A>(partial).map_err(|error| named(name, error))?.value())
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All results for people, by name: numbers, lists and maps as JSON. What cannot be shown says why.
    pub fn shown(&self) -> BTreeMap<String, serde_json::Value> {
        let show = |(name, found): (&Arc<str>, &Result<(AccumulatorKind, Partial)>)| {
            let shown = found.clone().and_then(|(kind, partial)| kind.show(&partial));
            (name.to_string(), shown.unwrap_or_else(|error| serde_json::Value::String(error.to_string())))
        };
        self.0.iter().map(show).collect()
    }
}

/// The error for a name that two kinds of accumulators have.
pub fn other_kind(name: &str, there: &str, asked: &str) -> Error {
    Error::request(format!("accumulator '{name}' is both '{there}' and '{asked}'"))
        .with_hint("an accumulator is of one kind in the whole job; give one of them another name")
}

fn named(name: &str, error: Error) -> Error {
    error.context(format_args!("accumulator '{name}'"))
}
