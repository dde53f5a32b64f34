//! Accumulators: what functions add up beside the rows that they emit (SHR-02 … SHR-05, SUB-16).
//!
//! ```text
//! function ──add──> cell of its subtask ──partial──> worker ──merge──> job
//! ```
//!
//! A cell belongs to one operator of one subtask of one attempt. What it holds leaves as a [`Partial`]: bytes that whoever knows the
//! kind can merge, in this process or another. Only the partials of the attempt that ended well make the job's result, each once;
//! no checkpoint holds them, so a job that goes on from one counts from zero.

use std::any::Any;
use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::shared::values::{Partial, decode, encode};

/// A value that many subtasks add to, each for itself.
///
/// Laws: `merge` is associative and commutative, `default()` is its neutral element, and to merge two accumulators is as if all that
/// was added to either had been added to one. What serde writes, serde reads back as it was.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidemill_core::shared::Accumulator;
///
/// /// Which of 64 things were seen.
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Seen(u64);
///
/// impl Accumulator for Seen {
///     type Input = u32;
///     type Output = u32;
///
///     fn add(&mut self, thing: u32) {
///         self.0 |= 1 << (thing % 64);
///     }
///
///     fn merge(&mut self, other: Self) {
///         self.0 |= other.0;
///     }
///
///     /// How many of them.
///     fn value(&self) -> u32 {
///         self.0.count_ones()
///     }
/// }
///
/// let (mut left, mut right) = (Seen::default(), Seen::default());
/// [1, 2].into_iter().for_each(|thing| left.add(thing));
/// [2, 3].into_iter().for_each(|thing| right.add(thing));
/// left.merge(right);
/// assert_eq!(left.value(), 3);
/// ```
pub trait Accumulator: Clone + Default + Serialize + DeserializeOwned + Send + 'static {
    /// What is added.
    type Input;

    /// What the job's result says. Serde writes it for people.
    type Output: Serialize;

    /// Adds one.
    fn add(&mut self, input: Self::Input);

    /// Adds all that was added to another.
    fn merge(&mut self, other: Self);

    /// The result so far.
    fn value(&self) -> Self::Output;

    /// What it is called in errors and in lists; accumulators of one name must be of one kind.
    fn kind() -> &'static str {
        std::any::type_name::<Self>()
    }

    /// Bytes that it occupies, roughly: what the worker's budget is charged with. Must be cheap.
    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
    }

    /// How many of them it may occupy in one subtask; what is added beyond is an error. The worker's budget bounds it in any case.
    fn memory_bytes_max() -> usize {
        usize::MAX
    }
}

/// How partials of one kind are merged and shown, by whoever has no value of the type at hand.
#[derive(Clone, Copy)]
pub struct AccumulatorKind {
    name: &'static str,
    merge: fn(&[Partial]) -> Result<Partial>,
    show: fn(&Partial) -> Result<serde_json::Value>,
}

impl AccumulatorKind {
    /// The kind of `A`.
    pub fn of<A: Accumulator>() -> Self {
        Self { name: A::kind(), merge: merge::<A>, show: show::<A> }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The partials of this kind as one.
    pub fn merge(&self, partials: &[Partial]) -> Result<Partial> {
        (self.merge)(partials)
    }

    /// The result that a partial stands for, for people.
    pub fn show(&self, partial: &Partial) -> Result<serde_json::Value> {
        (self.show)(partial)
    }
}

impl Debug for AccumulatorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn merge<A: Accumulator>(partials: &[Partial]) -> Result<Partial> {
    let mut merged = A::default();
    for partial in partials {
        merged.merge(decode::<A>(partial)?);
    }
    encode(&merged)
}

fn show<A: Accumulator>(partial: &Partial) -> Result<serde_json::Value> {
    let value = decode::<A>(partial)?.value();
    serde_json::to_value(value)
        .map_err(|error| Error::data(format!("the result of {} is no JSON: {error}", A::kind())).with_source(error))
}

/// What one operator of one subtask has added up under one name.
///
/// One thread adds; the lock is for those who look at it meanwhile, and they hold it no longer than a copy takes.
pub trait AccumulatorCell: Any + Send + Sync {
    /// Of which kind it is.
    fn kind(&self) -> AccumulatorKind;

    /// What was added so far.
    fn partial(&self) -> Result<Partial>;

    /// Bytes that it occupies, roughly.
    fn memory_bytes(&self) -> usize;
}

/// A cell whose type is known.
struct TypedCell<A>(Mutex<A>);

impl<A: Accumulator> AccumulatorCell for TypedCell<A> {
    fn kind(&self) -> AccumulatorKind {
        AccumulatorKind::of::<A>()
    }

    fn partial(&self) -> Result<Partial> {
        let copy = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        encode(&copy)
    }

    fn memory_bytes(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).memory_bytes()
    }
}

/// The accumulators of one operator of one subtask.
pub trait AccumulatorSet: Send + Sync + Debug {
    /// The cell under `name`: the one that is there, else `new`. An error that names both kinds if anybody in the job has
    /// registered another kind under this name.
    fn register(&self, name: &str, new: Arc<dyn AccumulatorCell>) -> Result<Arc<dyn AccumulatorCell>>;

    /// Bytes that all of them occupy, roughly.
    fn memory_bytes(&self) -> usize;
}

/// A function's handle to an accumulator, which it gets in `open`. The default one is that of no accumulator, to be replaced.
pub struct AccumulatorRef<A> {
    pub(super) cell: Option<Arc<dyn AccumulatorCell>>,
    name: Arc<str>,
    accumulator: PhantomData<fn() -> A>,
}

impl<A: Accumulator> AccumulatorRef<A> {
    /// The accumulator called `name` among `set`, made if nobody has yet.
    pub fn register(set: &dyn AccumulatorSet, name: &str) -> Result<Self> {
        let cell = set.register(name, Arc::new(TypedCell(Mutex::new(A::default()))))?;
        Ok(Self { cell: Some(cell), name: name.into(), accumulator: PhantomData })
    }

    /// Adds one. An error if this is the handle of no accumulator, or of one that then occupies more than it may.
    pub fn add(&self, input: A::Input) -> Result<()> {
        let mut accumulator = self.cell()?.0.lock().unwrap_or_else(PoisonError::into_inner);
        accumulator.add(input);
        match accumulator.memory_bytes() > A::memory_bytes_max() {
            true => Err(self.too_large()),
            false => Ok(()),
        }
    }

    /// No want of memory, which may pass: whoever begins again adds as much again.
    fn too_large(&self) -> Error {
        let (name, max) = (&self.name, A::memory_bytes_max() >> 20);
        let error = Error::request(format!("accumulator '{name}' occupies more than {max} MB in one subtask"));
        error.with_hint("accumulators are for sums: give rows to a sink, or to a side output")
    }

    /// What this subtask has added so far: not what the others have.
    pub fn local_value(&self) -> Result<A::Output> {
        Ok(self.cell()?.0.lock().unwrap_or_else(PoisonError::into_inner).value())
    }

    fn cell(&self) -> Result<&TypedCell<A>> {
        let cell: &dyn Any = &**self.cell.as_ref().ok_or_else(|| {
            Error::request(format!("an accumulator ({}) is used that was not registered", A::kind()))
                .with_hint("register it in open, and keep the handle that the runtime context gives")
        })?;
        cell.downcast_ref().ok_or_else(|| Error::internal(format!("an accumulator that is no {}", A::kind())))
    }
}

impl<A> Default for AccumulatorRef<A> {
    fn default() -> Self {
        Self { cell: None, name: Arc::default(), accumulator: PhantomData }
    }
}

impl<A> Clone for AccumulatorRef<A> {
    fn clone(&self) -> Self {
        Self { cell: self.cell.clone(), name: self.name.clone(), accumulator: PhantomData }
    }
}

impl<A: Accumulator> Debug for AccumulatorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccumulatorRef({}, {})", A::kind(), if self.cell.is_some() { "registered" } else { "none" })
    }
}
