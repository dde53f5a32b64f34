//! The states of rows that have no key: there are none, and whoever uses one is told why.

use arrow::array::ArrayRef;
use tidemill_core::state::{KeyedStates, RestoredState, Snapshot, SnapshotScope, StateColumn, StateId, StateTtl};
use tidemill_core::{Error, Result};

/// No states.
#[derive(Debug)]
pub struct NoKeys;

fn no_key<T>() -> Result<T> {
    Err(Error::request("keyed state is used where there is no current key")
        .with_hint("it is there in functions of keyed streams, for their rows and timers"))
}

impl KeyedStates for NoKeys {
    fn lookup(&mut self, _keys: &[ArrayRef], _hashes: &[u64], _slots: &mut Vec<usize>) -> Result<()> {
        no_key()
    }

    fn find(&mut self, _keys: &[ArrayRef], _hashes: &[u64], _slots: &mut Vec<Option<usize>>) -> Result<()> {
        no_key()
    }

    fn remove(&mut self, _slot: usize) {}

    fn release(&mut self) -> Result<()> {
        Ok(())
    }

    fn key_group(&self, _slot: usize) -> u32 {
        0
    }

    fn keys(&self, _slots: &[usize]) -> Result<Vec<ArrayRef>> {
        no_key()
    }

    fn all(&mut self, _slots: &mut Vec<usize>) -> Result<()> {
        Ok(())
    }

    fn len(&self) -> usize {
        0
    }

    fn register(&mut self, _name: &str, _ttl: Option<StateTtl>, _column: Box<dyn StateColumn>) -> Result<StateId> {
        no_key()
    }

    fn column(&mut self, _id: StateId) -> Result<&mut (dyn StateColumn + 'static)> {
        no_key()
    }

    fn touch(&mut self, _id: StateId, _slots: &[usize], _now_millis: i64) -> Result<()> {
        no_key()
    }

    fn expire(&mut self, _now_millis: i64, _slots_max: usize) -> Result<usize> {
        Ok(0)
    }

    fn snapshot(&mut self, _scope: SnapshotScope) -> Result<Snapshot> {
        Ok(Snapshot::default())
    }

    fn restore(&mut self, _state: &mut RestoredState) -> Result<()> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}
