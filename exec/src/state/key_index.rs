//! From keys to slots: a hash table of slot numbers, probed with the carried hash, over keys stored as columns.
//!
//! A slot is a small dense number; accumulators and rows of state are columns indexed by it. Freed slots are used again.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, new_empty_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::downcast_primitive_array;
use arrow::row::{RowConverter, SortField};
use tidemill_core::{Error, Result};

use self::table::{Place, SlotTable};

mod table;

/// The hash under which the one slot stands that there is where rows have no key: it is of the first key group.
pub const HASH_WITHOUT_KEY: u64 = 0;

/// Slots by key.
#[derive(Debug)]
pub struct KeyIndex {
    table: SlotTable,
    /// Carried hash of each slot: for growing the table, and for the key group.
    hashes: Vec<u64>,
    free: Vec<u32>,
    /// The first slot whose key was appended and is not in the table so far.
    settled: usize,
    keys: Box<dyn KeyColumns>,
}

/// The keys of all slots, as columns of one layout.
trait KeyColumns: Send + std::fmt::Debug {
    /// Makes `columns` the batch that the others speak of.
    fn begin(&mut self, columns: &[ArrayRef]) -> Result<()>;

    /// Keeps nothing of the batch.
    fn end(&mut self);

    /// Finds or adds the keys of the batch from this row on, one for each place.
    fn intern(&mut self, table: &mut Interning<'_>, begin: usize, places: &[Place], slots: &mut Vec<usize>);

    /// Stores the keys of the batch, of so many rows, in slots from this one on, behind all others.
    fn append(&mut self, slot: usize, rows: usize);

    /// Finds the key of each row of the batch.
    fn find(&self, table: &SlotTable, places: &[Place], slots: &mut Vec<Option<usize>>);

    /// The keys of these slots.
    fn gather(&self, slots: &[usize]) -> Result<Vec<ArrayRef>>;

    /// The keys of the first slots, so many.
    fn first(&self, slots: usize) -> Result<Vec<ArrayRef>> {
        self.gather(&(0..slots).collect::<Vec<_>>())
    }

    /// Makes room for so many more slots.
    fn reserve(&mut self, _slots: usize) {}

    /// The slot is free.
    fn forget(&mut self, _slot: usize) {}

    /// Bytes held.
    fn size_bytes(&self) -> usize;
}

/// The parts of the index that adding a key touches.
struct Interning<'a> {
    table: &'a mut SlotTable,
    hashes: &'a mut Vec<u64>,
    free: &'a mut Vec<u32>,
    /// Hash of each row of the batch.
    of_rows: &'a [u64],
}

impl Interning<'_> {
    /// The slot of a row's key; `store` is called with the slot of a new one.
    #[inline]
    fn slot(&mut self, row: usize, place: Place, same: impl Fn(u32) -> bool, store: impl FnOnce(u32)) -> usize {
        // No entry: what it needs to add a key would stand between two lookups.
        match self.table.find(place, |slot| same(*slot)) {
            Some(slot) => slot,
            None => {
                let slot = self.add(place, self.of_rows[row]);
                store(slot);
                slot as usize
            }
        }
    }

    /// The slot of a new key.
    #[inline(never)]
    fn add(&mut self, place: Place, hash: u64) -> u32 {
        let slot = self.free.pop().unwrap_or(self.hashes.len() as u32);
        match self.hashes.get_mut(slot as usize) {
            Some(of_slot) => *of_slot = hash,
            None => self.hashes.push(hash),
        }
        self.table.insert(place, slot, self.hashes);
        slot
    }
}

impl KeyIndex {
    /// An empty index over keys of these types.
    pub fn new(types: &[DataType]) -> Result<Self> {
        let (table, hashes, free) = (SlotTable::new(), Vec::new(), Vec::new());
        Ok(Self { table, hashes, free, settled: 0, keys: columns_for(types)? })
    }

    /// Makes room for so many keys of these key groups alone, and lays the table out in their order, which is that in which keys are
    /// stored: those that come in it meet one part of the table behind the other, each as long as it stays in the caches.
    pub fn lay_out(&mut self, groups: &Range<u32>, max_parallelism: u32, keys: usize) {
        self.table.lay_out(groups, max_parallelism, keys, &self.hashes);
        self.reserve(keys.saturating_sub(self.len()));
    }

    /// Appends the slot of each key to `slots`; new keys get one.
    pub fn intern(&mut self, columns: &[ArrayRef], hashes: &[u64], slots: &mut Vec<usize>) -> Result<()> {
        if self.unsettled() > 0 {
            return Err(Error::internal("keys are looked up while others are appended"));
        }
        self.keys.begin(columns)?;
        let Self { table, hashes: all, free, keys, .. } = self;
        let (mut places, mut begin) = (Vec::new(), 0);
        while begin < hashes.len() {
            table.places(&hashes[begin..], all, &mut places);
            keys.intern(&mut Interning { table, hashes: all, free, of_rows: hashes }, begin, &places, slots);
            begin += places.len();
        }
        self.keys.end();
        self.settled = self.hashes.len();
        Ok(())
    }

    /// Appends the slot of each key to `slots`, `None` for keys that are not there.
    pub fn find(&mut self, columns: &[ArrayRef], hashes: &[u64], slots: &mut Vec<Option<usize>>) -> Result<()> {
        self.keys.begin(columns)?;
        let places: Vec<Place> = hashes.iter().map(|hash| self.table.place(*hash)).collect();
        self.keys.find(&self.table, &places, slots);
        self.keys.end();
        Ok(())
    }

    /// Makes room for so many more keys at once.
    pub fn reserve(&mut self, keys: usize) {
        let Self { table, hashes, .. } = self;
        table.reserve(keys, hashes);
        hashes.reserve(keys);
        self.keys.reserve(keys);
    }

    /// Adds keys in slots of their own behind all others, and says in which. They are found, and counted, from [`Self::settle`] on.
    /// The caller vouches that none of them is there and each comes once: nobody looks.
    ///
    /// Errors: a key is NULL, or has no columns.
    pub fn append(&mut self, columns: &[ArrayRef], hashes: &[u64]) -> Result<Range<usize>> {
        if columns.is_empty() || columns.iter().any(|column| column.null_count() > 0) {
            return Err(Error::internal("keys that are NULL, or without columns, cannot be appended"));
        }
        self.keys.begin(columns)?;
        let begin = self.hashes.len();
        self.keys.append(begin, hashes.len());
        self.keys.end();
        self.hashes.extend_from_slice(hashes);
        Ok(begin..self.hashes.len())
    }

    /// How many keys were appended and not settled.
    pub fn unsettled(&self) -> usize {
        self.hashes.len() - self.settled
    }

    /// Brings the keys that were appended into the table: many of them with nothing in between, so that the part of it that is theirs,
    /// see [`Self::lay_out`], stays in the caches.
    pub fn settle(&mut self) {
        self.table.insert_new(self.settled, &self.hashes);
        self.settled = self.hashes.len();
    }

    /// Forgets the key of `slot`; the slot will be used again.
    pub fn remove(&mut self, slot: usize) {
        let number = slot as u32;
        if self.table.remove(self.hashes[slot], number) {
            self.free.push(number);
            self.keys.forget(slot);
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One more than the highest slot ever used: how long a column over slots has to be.
    pub fn slots(&self) -> usize {
        self.hashes.len()
    }

    /// The carried hash of a slot's key.
    pub fn hash(&self, slot: usize) -> u64 {
        self.hashes[slot]
    }

    /// The carried hash of each slot's key.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The keys of the first slots, so many, as columns: cheaper than naming each of them.
    pub fn first_keys(&self, slots: usize) -> Result<Vec<ArrayRef>> {
        self.keys.first(slots)
    }

    /// The keys of these slots, as columns.
    pub fn keys(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        self.keys.gather(slots)
    }

    /// Bytes held.
    pub fn size_bytes(&self) -> usize {
        self.keys.size_bytes() + self.hashes.capacity() * 8 + self.table.capacity() * 5 + self.free.capacity() * 4
    }
}

fn columns_for(types: &[DataType]) -> Result<Box<dyn KeyColumns>> {
    fn primitive<T: ArrowPrimitiveType>(of_type: &PrimitiveArray<T>) -> Box<dyn KeyColumns> {
        Box::new(PrimitiveKeys::<T>::new(of_type.data_type().clone()))
    }
    match types {
        [] => Ok(Box::new(NoKeys)),
        // Floats go the other way: their equality is not that of their bits.
        [DataType::Float16 | DataType::Float32 | DataType::Float64] => Ok(Box::new(RowKeys::new(types)?)),
        [single] => {
            let empty = new_empty_array(single);
            let empty = empty.as_ref();
            Ok(downcast_primitive_array!(
                empty => primitive(empty),
                _ => Box::new(RowKeys::new(types)?)
            ))
        }
        _ => Ok(Box::new(RowKeys::new(types)?)),
    }
}

/// The key of a global aggregate: one slot.
#[derive(Debug)]
struct NoKeys;

impl KeyColumns for NoKeys {
    fn begin(&mut self, _columns: &[ArrayRef]) -> Result<()> {
        Ok(())
    }

    fn end(&mut self) {}

    fn intern(&mut self, table: &mut Interning<'_>, _begin: usize, places: &[Place], slots: &mut Vec<usize>) {
        let place = table.table.place(HASH_WITHOUT_KEY);
        let slot = table.table.find(place, |_| true).unwrap_or_else(|| table.add(place, HASH_WITHOUT_KEY) as usize);
        slots.resize(slots.len() + places.len(), slot);
    }

    fn append(&mut self, _slot: usize, _rows: usize) {}

    fn find(&self, table: &SlotTable, places: &[Place], slots: &mut Vec<Option<usize>>) {
        let slot = table.find(table.place(HASH_WITHOUT_KEY), |_| true);
        slots.resize(slots.len() + places.len(), slot);
    }

    fn gather(&self, _slots: &[usize]) -> Result<Vec<ArrayRef>> {
        Ok(Vec::new())
    }

    fn size_bytes(&self) -> usize {
        0
    }
}

/// One fixed-width column.
struct PrimitiveKeys<T: ArrowPrimitiveType> {
    data_type: DataType,
    values: Vec<T::Native>,
    null_slot: Option<u32>,
    batch: Option<PrimitiveArray<T>>,
}

impl<T: ArrowPrimitiveType> std::fmt::Debug for PrimitiveKeys<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrimitiveKeys({}, {} slots)", self.data_type, self.values.len())
    }
}

impl<T: ArrowPrimitiveType> PrimitiveKeys<T> {
    fn new(data_type: DataType) -> Self {
        Self { data_type, values: Vec::new(), null_slot: None, batch: None }
    }
}

impl<T: ArrowPrimitiveType> KeyColumns for PrimitiveKeys<T> {
    fn begin(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let column = columns[0].as_primitive_opt::<T>();
        self.batch =
            Some(column.ok_or_else(|| Error::internal(format!("key of type {}", columns[0].data_type())))?.clone());
        Ok(())
    }

    fn end(&mut self) {
        self.batch = None;
    }

    fn intern(&mut self, table: &mut Interning<'_>, begin: usize, places: &[Place], slots: &mut Vec<usize>) {
        // Out of `self`, so that nothing of it is read again for each row.
        let Some(batch) = self.batch.take() else { return };
        slots.reserve(places.len());
        for (row, place) in (begin..).zip(places) {
            if batch.is_null(row) {
                let null_slot = &mut self.null_slot;
                let known = *null_slot;
                let slot = table.slot(row, *place, |slot| Some(slot) == known, |slot| *null_slot = Some(slot));
                self.values.resize(self.values.len().max(slot + 1), T::Native::default());
                slots.push(slot);
                continue;
            }
            let value = batch.value(row);
            let (values, null_slot) = (&self.values, self.null_slot);
            let mut added = None;
            let same = |slot: u32| values[slot as usize] == value && Some(slot) != null_slot;
            let slot = table.slot(row, *place, same, |slot| added = Some(slot));
            if added.is_some() {
                match self.values.get_mut(slot) {
                    Some(place) => *place = value,
                    None => self.values.push(value),
                }
                // A slot that NULL gave back.
                self.null_slot = self.null_slot.filter(|null| *null as usize != slot);
            }
            slots.push(slot);
        }
        self.batch = Some(batch);
    }

    fn append(&mut self, slot: usize, rows: usize) {
        let Some(batch) = &self.batch else { return };
        self.values.resize(slot, T::Native::default());
        self.values.extend_from_slice(&batch.values()[..rows]);
    }

    fn find(&self, table: &SlotTable, places: &[Place], slots: &mut Vec<Option<usize>>) {
        let Some(batch) = &self.batch else { return };
        slots.extend(places.iter().enumerate().map(|(row, place)| match batch.is_null(row) {
            true => table.find(*place, |slot| Some(*slot) == self.null_slot),
            false => {
                table.find(*place, |slot| {
                    self.values[*slot as usize] == batch.value(row) && Some(*slot) != self.null_slot
                })
            }
        }));
    }

    fn gather(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let values: Vec<T::Native> = slots.iter().map(|slot| self.values[*slot]).collect();
        let null = self.null_slot.map(|slot| slot as usize).filter(|slot| slots.contains(slot));
        let nulls = null.map(|null| slots.iter().map(|slot| *slot != null).collect::<Vec<bool>>().into());
        let array = PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(self.data_type.clone());
        Ok(vec![Arc::new(array)])
    }

    fn first(&self, slots: usize) -> Result<Vec<ArrayRef>> {
        let values = self.values.get(..slots).ok_or_else(|| Error::internal(format!("the keys of {slots} slots")))?;
        let null = self.null_slot.map(|slot| slot as usize).filter(|slot| *slot < slots);
        let nulls = null.map(|null| NullBuffer::from_iter((0..slots).map(|slot| slot != null)));
        let array = PrimitiveArray::<T>::new(values.to_vec().into(), nulls).with_data_type(self.data_type.clone());
        Ok(vec![Arc::new(array)])
    }

    fn reserve(&mut self, slots: usize) {
        self.values.reserve(slots);
    }

    fn size_bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>()
    }
}

/// Any columns, as Arrow rows one after the other.
struct RowKeys {
    converter: RowConverter,
    bytes: Vec<u8>,
    /// Begin and end of each slot's row; of free slots, nothing.
    ranges: Vec<(usize, usize)>,
    /// Bytes of keys that were forgotten.
    forgotten: usize,
    batch: arrow::row::Rows,
}

impl std::fmt::Debug for RowKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowKeys({} slots, {} bytes)", self.ranges.len(), self.bytes.len())
    }
}

impl RowKeys {
    fn new(types: &[DataType]) -> Result<Self> {
        let converter = RowConverter::new(types.iter().map(|data_type| SortField::new(data_type.clone())).collect())?;
        let batch = converter.empty_rows(0, 0);
        Ok(Self { converter, bytes: Vec::new(), ranges: Vec::new(), forgotten: 0, batch })
    }

    /// Closes the gaps that forgotten keys left.
    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.forgotten);
        for range in &mut self.ranges {
            let begin = bytes.len();
            bytes.extend_from_slice(&self.bytes[range.0..range.1]);
            *range = (begin, bytes.len());
        }
        self.bytes = bytes;
        self.forgotten = 0;
    }
}

impl KeyColumns for RowKeys {
    fn begin(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let columns: Vec<ArrayRef> = columns.iter().map(folded_floats).collect();
        self.converter.append(&mut self.batch, &columns)?;
        Ok(())
    }

    fn end(&mut self) {
        self.batch = self.converter.empty_rows(0, 0);
    }

    fn intern(&mut self, table: &mut Interning<'_>, begin: usize, places: &[Place], slots: &mut Vec<usize>) {
        let Self { bytes, ranges, batch, .. } = self;
        for (row, place) in (begin..).zip(places) {
            let key = batch.row(row);
            let key = key.as_ref();
            let mut added = false;
            let same = |slot: u32| {
                let (begin, end) = ranges[slot as usize];
                &bytes[begin..end] == key
            };
            let slot = table.slot(row, *place, same, |_| added = true);
            if added {
                let range = (bytes.len(), bytes.len() + key.len());
                bytes.extend_from_slice(key);
                match ranges.get_mut(slot) {
                    Some(place) => *place = range,
                    None => ranges.push(range),
                }
            }
            slots.push(slot);
        }
    }

    fn append(&mut self, slot: usize, rows: usize) {
        self.ranges.resize(slot, (0, 0));
        for row in 0..rows {
            let begin = self.bytes.len();
            self.bytes.extend_from_slice(self.batch.row(row).as_ref());
            self.ranges.push((begin, self.bytes.len()));
        }
    }

    fn find(&self, table: &SlotTable, places: &[Place], slots: &mut Vec<Option<usize>>) {
        slots.extend(places.iter().enumerate().map(|(row, place)| {
            let row = self.batch.row(row);
            let same = |slot: &u32| {
                let (begin, end) = self.ranges[*slot as usize];
                &self.bytes[begin..end] == row.as_ref()
            };
            table.find(*place, same)
        }));
    }

    fn gather(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let rows = slots.iter().map(|slot| {
            let (begin, end) = self.ranges[*slot];
            parser.parse(&self.bytes[begin..end])
        });
        Ok(self.converter.convert_rows(rows)?)
    }

    fn forget(&mut self, slot: usize) {
        let (begin, end) = std::mem::take(&mut self.ranges[slot]);
        self.forgotten += end - begin;
        if self.forgotten > 4096 + self.bytes.len() / 2 {
            self.compact();
        }
    }

    fn reserve(&mut self, slots: usize) {
        self.ranges.reserve(slots);
    }

    fn size_bytes(&self) -> usize {
        self.bytes.capacity() + self.ranges.capacity() * 16
    }
}

/// Floats so that equal ones have equal bits: one zero, one NaN.
pub fn folded_floats(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => Arc::new(
            column
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value + 0.0 }),
        ),
        DataType::Float32 => Arc::new(
            column
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|value| if value.is_nan() { f32::NAN } else { value + 0.0 }),
        ),
        DataType::Float16 => Arc::new(
            column
                .as_primitive::<Float16Type>()
                .unary::<_, Float16Type>(|value| if value == Default::default() { Default::default() } else { value }),
        ),
        _ => column.clone(),
    }
}

#[cfg(test)]
mod tests;
