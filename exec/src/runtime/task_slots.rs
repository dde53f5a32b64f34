//! The slots of a worker: how many tasks of one slot sharing group it holds at once (ARC-09).
//!
//! A slot is a right, not a thread: it bounds how much is begun. The jobs of a worker share its slots, and a job gets all that it
//! needs or none.

use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::{Error, Result};

/// The slots of one worker.
#[derive(Debug)]
pub struct TaskSlots {
    total: usize,
    free: Mutex<usize>,
}

/// TaskSlots that a job has; they are free again when this is dropped.
#[derive(Debug)]
pub struct SlotLease {
    slots: Arc<TaskSlots>,
    count: usize,
}

impl TaskSlots {
    /// A worker with so many slots.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, free: Mutex::new(total) })
    }

    /// A worker that begins whatever it is asked to.
    pub fn unlimited() -> Arc<Self> {
        Self::new(usize::MAX)
    }

    /// `count` slots, or an error that says what there is.
    pub fn take(self: &Arc<Self>, count: usize) -> Result<SlotLease> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let left = free.checked_sub(count).ok_or_else(|| self.too_few(count, *free))?;
        *free = left;
        Ok(SlotLease { slots: self.clone(), count })
    }

    fn too_few(&self, wanted: usize, free: usize) -> Error {
        let error = format!("the job needs {wanted} of {} slots, and {free} are free", self.total);
        Error::exhausted(error).with_hint(match wanted > self.total {
            true => "lower parallelism.default or raise taskmanager.numberOfTaskSlots",
            false => "wait for another job to end, or raise taskmanager.numberOfTaskSlots",
        })
    }
}

impl Drop for SlotLease {
    fn drop(&mut self) {
        *self.slots.free.lock().unwrap_or_else(PoisonError::into_inner) += self.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_all_its_slots_or_none_and_gives_them_back() {
        let slots = TaskSlots::new(3);
        let first = slots.take(2).unwrap();
        let error = slots.take(2).unwrap_err().to_string();
        assert!(error.starts_with("the job needs 2 of 3 slots, and 1 are free; wait for another job"), "{error}");
        let error = slots.take(4).unwrap_err().to_string();
        assert!(error.contains("lower parallelism.default"), "{error}");
        let second = slots.take(1).unwrap();
        drop(first);
        assert!(slots.take(2).is_ok());
        drop(second);
        assert!(slots.take(3).is_ok());
    }
}
