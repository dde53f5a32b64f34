//! The table of operators: every one of this folder, in each of its ways to work.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::logical_expr::Operator as Comparison;
use datafusion::physical_expr::expressions::{Column, binary, col, lit};
use tidemill_core::operator::OperatorFactory;
use tidemill_core::time::Calendar;
use tidemill_core::window::{WindowKind, WindowSpec};

use super::script::{Demands, schema};
use crate::operators::calc::Calc;
use crate::operators::group_aggregate::{self, GroupAggregate};
use crate::operators::limit::Limit;
use crate::operators::lookup_join::{LookupJoin, LookupJoinKind};
use crate::operators::process::ProcessInput;
use crate::operators::process::tests::Sums;
use crate::operators::session_aggregate::SessionAggregate;
use crate::operators::top_n::TopN;
use crate::operators::window_aggregate;
use crate::operators::window_assign::WindowAssignOperator;

/// An operator and what it promises.
#[derive(Debug)]
pub struct Subject {
    pub name: &'static str,
    pub factory: Box<dyn OperatorFactory>,
    /// The columns of a script's rows that it is given.
    pub columns: Vec<usize>,
    /// Rows leave in the batches in which they came, or what is left of them.
    pub passes_batches: bool,
    /// How many inputs the rows of a script go to.
    pub inputs: Inputs,
    /// Places in these by which an exchange in front would have dealt its rows.
    pub keys: Option<Vec<usize>>,
    pub demands: Demands,
    /// Which late rows are dropped follows from the rows and the watermarks alone. (A session that a late row touches may have
    /// come in the same batch.)
    pub late_rows_whatever_the_cut: bool,
    /// The event time of a row that leaves: a column, and what is taken off it (a window's last moment is before its end).
    pub time: Option<(usize, i64)>,
}

/// How many inputs the rows of a script go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// One, perhaps after a table was read to its end.
    One,
    /// Two: odd values go to the second.
    Two,
    /// Two: the table goes to the second, of every subtask, and does not end before the rows do.
    Broadcast,
}

/// All of them.
pub fn subjects() -> Vec<Subject> {
    let mut all = row_by_row();
    all.extend(over_event_time());
    all.extend(updating());
    all.extend(joins());
    all.extend(process_functions());
    all
}

fn subject(name: &'static str, factory: impl OperatorFactory + 'static) -> Subject {
    Subject {
        name,
        factory: Box::new(factory),
        columns: vec![0, 1, 2],
        passes_batches: false,
        inputs: Inputs::One,
        keys: None,
        demands: Demands { updates: false, late_rows: false },
        late_rows_whatever_the_cut: true,
        time: None,
    }
}

impl Subject {
    fn keyed(self, keys: &[usize]) -> Self {
        Self { keys: Some(keys.to_vec()), ..self }
    }

    fn passing_batches(self) -> Self {
        Self { passes_batches: true, ..self }
    }

    fn timed(self, column: usize, less: i64) -> Self {
        Self { time: Some((column, less)), ..self }
    }

    fn updated(self) -> Self {
        Self { demands: Demands { updates: true, late_rows: true }, time: None, ..self }
    }

    fn with_late_rows(self, whatever_the_cut: bool) -> Self {
        let demands = Demands { late_rows: true, ..self.demands };
        Self { demands, late_rows_whatever_the_cut: whatever_the_cut, ..self }
    }
}

fn row_by_row() -> Vec<Subject> {
    let positive = || binary(col("v", &schema()).unwrap(), Comparison::Gt, lit(0i64), &schema()).unwrap();
    let filter = || Calc::filter(positive(), schema());
    let doubled = || {
        let v = col("v", &schema()).unwrap();
        let doubled = binary(v.clone(), Comparison::Plus, v, &schema()).unwrap();
        let fields = [schema().field(1).clone(), Field::new("w", DataType::Int64, true)];
        Calc::project(vec![col("ts", &schema()).unwrap(), doubled], Arc::new(Schema::new(fields.to_vec())))
    };
    let windows = |kind| {
        let bound = |name| Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), false);
        let mut fields: Vec<Arc<Field>> = schema().fields().to_vec();
        fields.extend(["window_start", "window_end", "window_time"].map(|name| Arc::new(bound(name))));
        let schema = Arc::new(Schema::new(fields));
        WindowAssignOperator { time_column: 1, spec: spec(kind), calendar: Calendar::Utc, schema }
    };
    vec![
        subject("filter", filter()).timed(1, 0).passing_batches(),
        subject("filter over updates", filter()).updated().passing_batches(),
        subject("projection", doubled()).timed(0, 0).passing_batches(),
        subject("projection over updates", doubled()).updated().passing_batches(),
        subject("windows that tumble", windows(TUMBLE)).timed(1, 0),
        subject("windows that hop", windows(HOP)).timed(1, 0),
        subject("windows that cumulate, over updates", windows(CUMULATE)).updated(),
        subject("limit", Limit { skip: 3, fetch: 17 }).timed(1, 0).passing_batches(),
    ]
}

const TUMBLE: WindowKind = WindowKind::Tumble { size: 10 };
const HOP: WindowKind = WindowKind::Hop { size: 12, slide: 4 };
const CUMULATE: WindowKind = WindowKind::Cumulate { max: 15, step: 5 };

fn spec(kind: WindowKind) -> WindowSpec {
    WindowSpec::new(kind, 2).unwrap()
}

fn over_event_time() -> Vec<Subject> {
    let windows = |kind| window_aggregate::tests::plan(spec(kind));
    let global = window_aggregate::WindowAggregate { keys: vec![], ..without_key(windows(TUMBLE)) };
    let plan = windows(TUMBLE);
    let sessions = SessionAggregate {
        time: plan.time,
        gap: 5,
        keys: plan.keys,
        aggregates: plan.aggregates,
        group_columns: plan.group_columns,
        input_schema: plan.input_schema,
        schema: plan.schema,
    };
    vec![
        subject("tumbling aggregate", windows(TUMBLE)).keyed(&[0]).timed(2, 1).with_late_rows(true),
        subject("hopping aggregate", windows(HOP)).keyed(&[0]).timed(2, 1).with_late_rows(true),
        subject("cumulating aggregate", windows(CUMULATE)).keyed(&[0]).timed(2, 1).with_late_rows(true),
        subject("tumbling aggregate without keys", global).timed(1, 1).with_late_rows(true),
        subject("session aggregate", sessions).keyed(&[0]).timed(2, 1).with_late_rows(false),
    ]
}

fn without_key(plan: window_aggregate::WindowAggregate) -> window_aggregate::WindowAggregate {
    let fields: Vec<Arc<Field>> = plan.schema.fields().iter().skip(1).cloned().collect();
    let group_columns = plan.group_columns.into_iter().skip(1).collect();
    window_aggregate::WindowAggregate { group_columns, schema: Arc::new(Schema::new(fields)), ..plan }
}

fn updating() -> Vec<Subject> {
    let groups = |keys: &[usize], input_updates: bool| GroupAggregate {
        input_updates,
        ..group_aggregate::tests::plan(keys.to_vec())
    };
    let distinct = {
        let plan = groups(&[0], true);
        let schema = Arc::new(Schema::new(vec![plan.schema.field(0).clone()]));
        GroupAggregate { aggregates: vec![], schema, ..plan }
    };
    let of = |subject: Subject| Subject { columns: vec![0, 2], ..subject };
    vec![
        of(subject("aggregate", groups(&[0], false))).keyed(&[0]),
        of(subject("aggregate over updates", groups(&[0], true))).keyed(&[0]).updated(),
        of(subject("global aggregate", groups(&[], false))),
        of(subject("global aggregate over updates", groups(&[], true))).updated(),
        of(subject("distinct over updates", distinct)).keyed(&[0]).updated(),
        subject("top 3", top_n(1, 3, false, false)).keyed(&[0]),
        subject("top 3 over updates", top_n(1, 3, false, true)).keyed(&[0]).updated(),
        subject("ranks 2 to 3", top_n(2, 3, true, false)).keyed(&[0]),
        subject("ranks 2 to 3 over updates", top_n(2, 3, true, true)).keyed(&[0]).updated(),
        subject("deduplication", top_n(1, 1, false, false)).keyed(&[0]),
    ]
}

fn top_n(first: usize, last: usize, emits_rank: bool, input_updates: bool) -> TopN {
    let mut fields: Vec<Arc<Field>> = schema().fields().to_vec();
    fields.extend(emits_rank.then(|| Arc::new(Field::new("rank", DataType::UInt64, false))));
    let order_by = vec![(2, SortOptions { descending: true, nulls_first: false })];
    let schema_out = Arc::new(Schema::new(fields));
    TopN {
        partition_by: vec![0],
        order_by,
        first,
        last,
        emits_rank,
        input_updates,
        ttl: None,
        input_schema: schema(),
        schema: schema_out,
    }
}

fn joins() -> Vec<Subject> {
    use LookupJoinKind::{Anti, Inner, Left, Mark, NotIn, Semi};
    vec![
        subject("inner join", join(Inner, false)).keyed(&[0]).timed(1, 0),
        subject("inner join on a condition, over updates", join(Inner, true)).keyed(&[0]).updated(),
        subject("left join", join(Left, false)).keyed(&[0]).timed(1, 0),
        subject("left join on a condition, over updates", join(Left, true)).updated(),
        subject("semi join", join(Semi, true)).timed(1, 0),
        subject("anti join over updates", join(Anti, false)).keyed(&[0]).updated(),
        subject("NOT IN", join(NotIn, false)).timed(1, 0),
        subject("marking join on a condition, over updates", marking(join(Mark, true))).updated(),
    ]
}

fn marking(join: LookupJoin) -> LookupJoin {
    let mark: Arc<Field> = Arc::new(Field::new("mark", DataType::Boolean, false));
    let fields: Vec<Arc<Field>> = join.schema.fields().iter().cloned().chain([mark]).collect();
    LookupJoin { schema: Arc::new(Schema::new(fields)), ..join }
}

/// A join on equal keys whose condition, if it has one, is that the stream's value is the greater one.
fn join(kind: LookupJoinKind, on_condition: bool) -> LookupJoin {
    let nullable = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_nullable(true));
    let fields = schema().fields().iter().cloned().chain(schema().fields().iter().map(nullable)).collect::<Vec<_>>();
    let joined_schema: SchemaRef = Arc::new(Schema::new(fields));
    let value = |index| Arc::new(Column::new("v", index));
    let condition = on_condition.then(|| binary(value(2), Comparison::Gt, value(5), &joined_schema).unwrap());
    let output = match kind {
        LookupJoinKind::Inner | LookupJoinKind::Left => vec![0, 1, 2, 5],
        LookupJoinKind::Semi | LookupJoinKind::Anti | LookupJoinKind::NotIn | LookupJoinKind::Mark => vec![0, 1, 2],
    };
    LookupJoin {
        kind,
        stream_keys: vec![0],
        table_keys: vec![0],
        condition,
        schema: Arc::new(joined_schema.project(&output).unwrap()),
        output,
        table_schema: schema(),
        table_everywhere: kind == LookupJoinKind::NotIn,
        joined_schema,
    }
}

fn process_functions() -> Vec<Subject> {
    let sums = |name, sums: Sums| subject(name, sums).keyed(&[0]).timed(1, 0);
    let timed = |second| Sums { has_timers: true, second, ..Sums::default() };
    let over = |subject: Subject, inputs| Subject { inputs, ..subject };
    let second = Some(ProcessInput::Keyed(vec![0]));
    vec![
        sums("process function", Sums::default()),
        sums("process function with timers", timed(None)),
        // The clock of these tests stands still: such timers wait for the end.
        Subject { time: None, ..sums("process function by the clock", Sums { is_clocked: true, ..timed(None) }) },
        over(sums("process function of two inputs", timed(second)), Inputs::Two),
        over(sums("process function with broadcast state", timed(Some(ProcessInput::Broadcast))), Inputs::Broadcast),
    ]
}
