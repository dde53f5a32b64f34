//! Queries and inserts: plans that run.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, SelectItem, SetExpr, Spanned, UnaryOperator, Value as SqlValue,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use tidemill_connectors::registry::Disposition;
use tidemill_connectors::{CollectSink, Options, sink};
use tidemill_core::error::find_name;
use tidemill_core::sink::{ChangelogMode, Sink};
use tidemill_core::{Error, Result};
use tidemill_exec::error::from_datafusion;
use tidemill_exec::runtime::JobHandle;

use super::catalog::{ColumnDefinition, TableDefinition, simple_name, type_name};
use super::error::at;
use super::fingerprint::Fingerprint;
use super::functions::not_null::not_null;
use super::logical::with_order_columns;
use super::parser::{Insert, Parsed, Statement};
use super::program::{Program, runs_as_batch};
use super::query::Query;
use super::recovery::{NewJob, QUERY};
use super::session::Session;
use super::shaped_sink::ShapedSink;

/// What the names of jobs begin with.
pub(super) const INSERT_INTO: &str = "insert into ";

/// Batches between a job and whoever reads its rows.
const COLLECTED_BATCHES: usize = 4;

impl Session {
    /// The program of a query, and how many of its columns are shown.
    pub(super) async fn query_program(&self, parsed: &Parsed) -> Result<(Program, usize)> {
        let state = self.state();
        let plan = self.plan(&state, parsed).await?;
        let batch = runs_as_batch(std::slice::from_ref(&plan), &self.settings)?;
        let shown = plan.schema().fields().len();
        // A table whose rows change gets its order when it is shown; what that order looks at has to come along.
        let plan = if batch { plan } else { with_order_columns(plan).map_err(from_datafusion)? };
        Ok((Program::new(plan, batch, &state, &self.settings).await?, shown))
    }

    /// Starts a query.
    pub(super) async fn query(&mut self, parsed: &Parsed) -> Result<Query> {
        let (mut program, shown) = self.query_program(parsed).await?;
        let (sink, rows) = CollectSink::new(COLLECTED_BATCHES);
        let sink = shaped(Arc::new(sink), program.schema.clone());
        program.add_sink("collect", sink, &self.settings);
        let job = program.start(&self.new_job(QUERY, None), self)?;
        let Program { schema: all_columns, bounded, updates, order, .. } = program;
        let schema = Arc::new(all_columns.project(&(0..shown).collect::<Vec<_>>())?);
        Ok(Query { schema, bounded, append_only: !updates, job, order, rows, all_columns })
    }

    /// Starts an `INSERT` or a statement set as one job.
    pub(super) async fn insert(&mut self, parsed: &Parsed) -> Result<JobHandle> {
        let (job, program) = self.insert_program(parsed).await?;
        let handle = program.start(&job, self)?;
        if program.batch && self.folders.is_some() && self.wants_checkpoints() {
            self.warn(format!(
                "{} runs as a batch and takes no checkpoints, whatever execution.checkpointing.interval says: SET \
                 'execution.runtime-mode' = 'streaming' for a job that goes on after a crash",
                job.name
            ));
        }
        Ok(self.started(job, handle))
    }

    /// Starts a job that writes what `plan` yields to a table, column by column.
    pub(super) async fn insert_plan(
        &mut self,
        table: &str,
        plan: LogicalPlan,
        fingerprint: Option<Fingerprint>,
    ) -> Result<JobHandle> {
        let table = self.catalog.table(table)?;
        let batch = runs_as_batch(std::slice::from_ref(&plan), &self.settings)?;
        let job = self.new_job(job_name([table.name.as_str()]), fingerprint);
        let program = self.sink_program(plan, &table, Disposition::Append, batch, self.writer(&job, None)).await?;
        let handle = program.start(&job, self)?;
        Ok(self.started(job, handle))
    }

    /// The program of an `INSERT` or a statement set, and its job.
    pub(super) async fn insert_program(&self, parsed: &Parsed) -> Result<(NewJob, Program)> {
        let state = self.state();
        let written = inserts(&parsed.statement);
        let (mended, plans) = self.plans(&state, parsed).await?;
        let inserts = inserts(&mended.statement);
        let batch = runs_as_batch(&plans, &self.settings)?;
        let table = |insert: &Insert| self.catalog.table(&simple_name(&insert.table)?);
        let tables = inserts.iter().map(table).collect::<Result<Vec<_>>>()?;
        let names = tables.iter().map(|table| table.name.as_str());
        let job = self.new_job(job_name(names.clone()), Fingerprint::of(&parsed.statement));
        let mut whole: Option<Program> = None;
        for (place, (insert, plan)) in inserts.iter().zip(plans).enumerate() {
            let table = &tables[place];
            let plan = for_columns(plan, table, insert)?;
            let disposition = disposition(insert, batch)?;
            let mut same = inserts.iter().zip(&tables).filter(|(_, other)| other.name == table.name);
            let is_one_of_several = same.clone().count() > 1;
            if is_one_of_several && same.any(|(other, _)| other.overwrite) {
                let error =
                    format!("a statement set writes to '{}' more than once, and replaces what is there", table.name);
                return Err(Error::request(error).with_hint("UNION ALL its queries in one INSERT OVERWRITE"));
            }
            let mut uid = format!("sink {}", table.name);
            if is_one_of_several {
                uid += &format!(" {}", Fingerprint::of_insert(&written[place]));
            }
            let uid = whole.as_ref().map_or_else(|| uid.clone(), |whole| whole.free_uid(&uid));
            let writer = self.writer(&job, Some(uid.as_str()).filter(|_| inserts.len() > 1));
            let mut program = self.sink_program(plan, table, disposition, batch, writer).await?;
            if inserts.len() > 1 {
                program.name_by_sink(&uid)?;
            }
            match &mut whole {
                Some(whole) => whole.absorb(program),
                None => whole = Some(program),
            }
        }
        let program = whole.ok_or_else(|| Error::internal("an INSERT without a query"))?;
        Ok((job, program))
    }

    /// `plan`, which yields the table's physical columns, with the table's sink behind it, which writes as `writer`.
    async fn sink_program(
        &self,
        plan: LogicalPlan,
        table: &TableDefinition,
        disposition: Disposition,
        batch: bool,
        writer: String,
    ) -> Result<Program> {
        let plan = cast_to(plan, table)?;
        let schema = table.physical_schema();
        let options = Options::new(table.options.iter().cloned());
        let context = table.context(&self.table_context(Some(writer), disposition));
        let sink = sink(options, schema.clone(), &context)
            .map_err(|error| error.context(format!("table '{}'", table.name)))?;
        let mut program = Program::new(plan, batch, &self.state(), &self.settings).await?;
        check_changes(&program, sink.as_ref(), &table.name)?;
        program.schema = schema.clone();
        program.add_sink(&table.name, shaped(sink, schema), &self.settings);
        Ok(program)
    }
}

/// A sink that is given exactly the columns that it was made for.
pub(super) fn shaped(sink: Arc<dyn Sink>, schema: SchemaRef) -> Arc<dyn Sink> {
    Arc::new(ShapedSink::new(sink, schema))
}

/// What a job does that writes to these tables, in whatever order. Names that could be taken for several are quoted, so that no
/// two lists of tables read the same.
pub(super) fn job_name<'a>(tables: impl IntoIterator<Item = &'a str>) -> String {
    let quoted = |table: &str| match table.contains([',', '`']) {
        true => format!("`{}`", table.replace('`', "``")),
        false => table.to_owned(),
    };
    let mut tables: Vec<String> = tables.into_iter().map(quoted).collect();
    tables.sort();
    format!("{INSERT_INTO}{}", tables.join(", "))
}

fn inserts(statement: &Statement) -> &[Insert] {
    match statement {
        Statement::Insert(insert) => std::slice::from_ref(insert),
        Statement::StatementSet(inserts) => inserts,
        Statement::Explain(explain) => inserts(&explain.statement),
        _ => &[],
    }
}

fn disposition(insert: &Insert, batch: bool) -> Result<Disposition> {
    match (insert.overwrite, batch) {
        (false, _) => Ok(Disposition::Append),
        (true, true) => Ok(Disposition::Replace),
        (true, false) => Err(Error::request("INSERT OVERWRITE of a streaming query")
            .with_hint("old rows can be replaced only once all new ones are there; write INSERT INTO")),
    }
}

/// The plan with a value for each physical column of the table: those that the statement names in its order, all where it names
/// none.
fn for_columns(plan: LogicalPlan, table: &TableDefinition, insert: &Insert) -> Result<LogicalPlan> {
    let columns = insert.columns.as_slice();
    let physical: Vec<&ColumnDefinition> = table.physical().collect();
    let given: Vec<Column> = plan.schema().columns();
    let fixed = partition_values(insert, table, &physical)?;
    let targets: Vec<usize> = match columns {
        [] => (0..physical.len()).filter(|place| !fixed.contains_key(place)).collect(),
        columns => target_columns(columns, table, &physical)?,
    };
    if let Some(twice) = targets.iter().find(|target| fixed.contains_key(target)) {
        let message = format!("column '{}' gets its value from PARTITION", physical[*twice].name);
        return Err(Error::request(message).with_hint("leave it out of the list of columns"));
    }
    if given.len() != targets.len() {
        let wanted = match columns {
            [] => format!("table '{}' has {} columns to write", table.name, targets.len()),
            _ => format!("INSERT INTO '{}' names {} columns", table.name, targets.len()),
        };
        let names: Vec<&str> = targets.iter().map(|target| physical[*target].name.as_str()).collect();
        return Err(Error::request(format!("{wanted}, the query gives {}", given.len()))
            .with_hint(format!("the columns are {}", names.join(", "))));
    }
    for (source, target) in targets.iter().enumerate() {
        let value = Expr::Column(given[source].clone());
        cast(value, plan.schema(), source, physical[*target], table)
            .map_err(|error| at(error, place_of_item(&insert.query.body, source)))?;
    }
    let values =
        physical.iter().enumerate().map(|(place, column)| match targets.iter().position(|target| *target == place) {
            Some(source) => Ok(Expr::Column(given[source].clone()).alias(&column.name)),
            None if fixed.contains_key(&place) => Ok(fixed[&place].clone().alias(&column.name)),
            None if column.nullable => Ok(lit(ScalarValue::Null).alias(&column.name)),
            None => Err(Error::request(format!(
                "column '{}' of '{}' is NOT NULL and gets no value",
                column.name, table.name
            ))),
        });
    let values = values.collect::<Result<Vec<Expr>>>()?;
    LogicalPlanBuilder::from(plan).project(values).and_then(LogicalPlanBuilder::build).map_err(from_datafusion)
}

/// The values that `PARTITION (column = value, …)` gives, by the place of the column among the physical ones.
fn partition_values(
    insert: &Insert,
    table: &TableDefinition,
    physical: &[&ColumnDefinition],
) -> Result<BTreeMap<usize, Expr>> {
    let columns: Vec<Ident> = insert.partition.iter().map(|(column, _)| column.clone()).collect();
    let mut values = BTreeMap::new();
    for (place, (ident, value)) in target_columns(&columns, table, physical)?.into_iter().zip(&insert.partition) {
        let column = physical[place];
        let here = |error| at(error, ident.span.start);
        if !table.partitioned_by.contains(&column.name) {
            let hint = match table.partitioned_by.as_slice() {
                [] => format!("'{}' has none", table.name),
                columns => format!("'{}' is partitioned by {}", table.name, columns.join(", ")),
            };
            return Err(here(
                Error::request(format!("column '{}' is no partition column", column.name)).with_hint(hint),
            ));
        }
        let literal = literal(value).ok_or_else(|| {
            here(Error::request(format!("'{value}' is no constant")).with_hint("write a string, a number or a date"))
        })?;
        let value = literal.cast_to(&column.data_type, &DFSchema::empty()).map_err(|_| {
            here(Error::request(format!("partition column '{}' is {}", column.name, column.type_text())))
        })?;
        values.insert(place, value);
    }
    Ok(values)
}

/// The constant that `expr` is.
fn literal(expr: &SqlExpr) -> Option<Expr> {
    let of = |value: &SqlValue| match value {
        SqlValue::SingleQuotedString(text) | SqlValue::Number(text, _) => Some(lit(text.as_str())),
        SqlValue::Boolean(value) => Some(lit(*value)),
        SqlValue::Null => Some(lit(ScalarValue::Null)),
        _ => None,
    };
    match expr {
        SqlExpr::Value(value) => of(&value.value),
        SqlExpr::TypedString(typed) => of(&typed.value.value),
        SqlExpr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            SqlExpr::Value(value) => match &value.value {
                SqlValue::Number(text, _) => Some(lit(format!("-{text}"))),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn target_columns(columns: &[Ident], table: &TableDefinition, physical: &[&ColumnDefinition]) -> Result<Vec<usize>> {
    let names: Vec<&str> = physical.iter().map(|column| column.name.as_str()).collect();
    let mut targets = Vec::with_capacity(columns.len());
    for column in columns {
        let here = |error| at(error, column.span.start);
        let target = find_name(&column.value, &names).map_err(|hint| {
            here(Error::request(format!("column '{}' not found in '{}'", column.value, table.name)).with_hint(hint))
        })?;
        if targets.contains(&target) {
            return Err(here(Error::request(format!("column '{}' is named twice", column.value))));
        }
        targets.push(target);
    }
    Ok(targets)
}

/// Where the column number `column` of a query is written.
fn place_of_item(body: &SetExpr, column: usize) -> Location {
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let place = match body {
        SetExpr::Select(select) if !select.projection.iter().take(column + 1).any(is_wildcard) => {
            select.projection.get(column).map(|item| item.span().start)
        }
        SetExpr::Values(values) => values.rows.first().and_then(|row| row.get(column)).map(|value| value.span().start),
        SetExpr::Query(query) => Some(place_of_item(&query.body, column)),
        SetExpr::SetOperation { left, .. } => Some(place_of_item(left, column)),
        _ => None,
    };
    place.unwrap_or(Location::empty())
}

/// `value`, column number `place` of `schema`, as the table's `column`.
fn cast(
    value: Expr,
    schema: &DFSchema,
    place: usize,
    column: &ColumnDefinition,
    table: &TableDefinition,
) -> Result<Expr> {
    value.cast_to(&column.data_type, schema).map_err(|_| {
        let (found, wanted) = (type_name(schema.field(place).data_type()), column.type_text());
        Error::request(format!("column '{}' of '{}' is {wanted}, the query gives {found}", column.name, table.name))
            .with_hint("CAST it in the query")
    })
}

/// The plan's columns cast to the table's physical ones, NULL refused where those are `NOT NULL`.
fn cast_to(plan: LogicalPlan, table: &TableDefinition) -> Result<LogicalPlan> {
    let schema = plan.schema().clone();
    let declared = |(place, (column, (qualifier, field))): (usize, (&ColumnDefinition, (_, &FieldRef)))| {
        let value = Expr::Column(Column::from((qualifier, field)));
        let value = cast(value, &schema, place, column, table)?;
        let value = if field.is_nullable() && !column.nullable { not_null(value, &column.name) } else { value };
        Ok(value.alias(&column.name))
    };
    let columns = table.physical().zip(schema.iter()).enumerate().map(declared).collect::<Result<Vec<Expr>>>()?;
    LogicalPlanBuilder::from(plan).project(columns).and_then(LogicalPlanBuilder::build).map_err(from_datafusion)
}

fn check_changes(program: &Program, sink: &dyn Sink, table: &str) -> Result<()> {
    match (program.updates, sink.changelog_mode()) {
        (true, ChangelogMode::Append) => {
            let error = Error::request(format!("the query updates rows, and table '{table}' takes only new ones"));
            Err(error.with_hint("write to a connector that takes changes (print), or aggregate over windows"))
        }
        _ => Ok(()),
    }
}
