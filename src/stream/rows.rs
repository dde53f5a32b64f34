//! Rows inside a task: decoded once, passed through fused functions, encoded once.

use std::any::Any;

use tidemill_core::{Error, Result};

/// The event time of a row that has none.
pub(super) const NO_TIME: i64 = i64::MIN;

/// Typed rows of one batch.
#[derive(Debug)]
pub(super) struct Rows<T> {
    /// The records.
    pub values: Vec<T>,
    /// The event time of each in milliseconds; empty if the stream has no event time.
    pub times: Vec<i64>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { values: Vec::new(), times: Vec::new() }
    }
}

/// [`Rows`] of a type that only the functions around them know.
pub(super) type AnyRows = Box<dyn Any + Send>;

impl<T: Send + 'static> Rows<T> {
    /// These rows without their type.
    pub fn erase(self) -> AnyRows {
        Box::new(self)
    }

    /// The rows with their type again. The builder connects functions by type, so another type is our slip.
    pub fn typed(rows: AnyRows) -> Result<Self> {
        match rows.downcast::<Self>() {
            Ok(rows) => Ok(*rows),
            Err(_) => Err(Error::internal(format!("rows are not of type {}", std::any::type_name::<T>()))),
        }
    }
}

/// Where a function puts its results: none, one or many a call.
#[derive(Debug)]
pub struct Collector<T> {
    pub(super) values: Vec<T>,
}

impl<T> Collector<T> {
    pub(super) fn new() -> Self {
        Self { values: Vec::new() }
    }

    /// Emits a record.
    pub fn collect(&mut self, value: T) {
        self.values.push(value);
    }
}

impl<T> Extend<T> for Collector<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        self.values.extend(values);
    }
}
