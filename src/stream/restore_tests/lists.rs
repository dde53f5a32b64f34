//! Lists of subtasks when these are replaced, also where no record comes in between.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use tidemill_core::state::StateLayer;

use super::*;

/// Keeps the numbers that it has seen in lists of all kinds; of the union list every subtask keeps what is its own.
#[derive(Clone, Default)]
struct Lists {
    union: OperatorListState<i64>,
    split: OperatorListState<i64>,
    raw: OperatorListState<Vec<u8>>,
    /// Which subtasks began with nothing.
    begun: OperatorListState<i64>,
}

impl Lists {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.union = context.union_list("union")?;
        self.split = context.operator_list("split")?;
        self.raw = context.raw_state("raw")?;
        self.begun = context.operator_list("begun")?;
        Ok(())
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        let (subtask, parallelism) = (context.subtask() as i64, context.parallelism() as i64);
        if !context.is_restored() {
            assert!(self.union.get(context.lists())?.is_empty());
            return self.begun.add(context.lists(), subtask);
        }
        let mut all = self.union.take(context.lists())?;
        all.retain(|number| number.rem_euclid(parallelism) == subtask);
        self.union.set(context.lists(), all)
    }

    fn add(&mut self, number: i64, lists: &mut OperatorLists) -> Result<()> {
        self.union.add(lists, number)?;
        self.split.add(lists, number)?;
        self.raw.add(lists, number.to_le_bytes().to_vec())
    }
}

impl RichFilterFunction<Row, String> for Lists {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.initialize_state(context)
    }

    fn filter(&mut self, row: &Row, context: &mut Context<'_, String>) -> Result<bool> {
        self.add(row.1, context.lists())?;
        Ok(false)
    }
}

impl ProcessWindowFunction<Row, String> for Lists {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.initialize_state(context)
    }

    fn process(&mut self, rows: &[Row], context: &mut WindowContext<'_, String>, _: &mut Collector<i64>) -> Result<()> {
        rows.iter().try_for_each(|row| self.add(row.1, context.lists()))
    }
}

/// The numbers that subtasks have stored in a list.
fn numbers(stored: &Stored, name: &str) -> Vec<i64> {
    let (_, subtasks) = stored.iter().find(|(descriptor, _)| descriptor.name == name).unwrap();
    let of_column = |column: &ArrayRef| match column.as_primitive_opt::<Int64Type>() {
        Some(numbers) => numbers.values().to_vec(),
        None => {
            let bytes = column.as_binary::<i32>().iter().flatten();
            bytes.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
        }
    };
    let batches = subtasks.iter().flat_map(|layers| StateLayer::decode_all(layers).unwrap());
    let mut numbers: Vec<i64> = batches.flat_map(|batch| of_column(batch.column(0))).collect();
    numbers.sort();
    numbers
}

/// However often subtasks are replaced, also where no row comes in between, every number is there once.
#[test]
fn lists_are_restored_and_union_lists_do_not_multiply() {
    let filter: Program<'_> = &|rows, _| rows.key_by(key).rich_filter(Lists::default()).print_to_err();
    let windows: Program<'_> =
        &|rows, _| rows.key_by(key).count_window(1).rich_process(Lists::default()).print_to_err();
    let mut expected: Vec<i64> = rows().iter().map(|row| row.1).collect();
    expected.sort();
    for program in [filter, windows] {
        for stops in [&[(3, 4), (3, 4), (3, 4), (5, 4)][..], &[(0, 4), (0, 2), (0, 3), (6, 4), (8, 4), (8, 4)]] {
            let (_, stored) = run_to_snapshot([program, program], stops, PLAIN);
            for name in ["union", "split", "raw"] {
                assert_eq!(numbers(&stored, name), expected, "'{name}' {stops:?}");
            }
            assert_eq!(numbers(&stored, "begun"), [0], "{stops:?}");
        }
        // A checkpoint may come before the first row.
        let job = job(program);
        let mut subtasks = Subtasks::open(&job, 4, PLAIN);
        assert_eq!(numbers(&subtasks.snapshot(), "begun"), [0, 1, 2, 3]);
        let mut subtasks = subtasks.replace(&job, 2).replace(&job, 3);
        assert_eq!(numbers(&subtasks.snapshot(), "begun"), [0, 1, 2, 3]);
    }
}
