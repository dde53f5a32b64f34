//! `CREATE TABLE`: from the parsed statement to a checked definition.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, DataFusionError, Result as PlanResult, TableReference};
use datafusion::logical_expr::ExprSchemable;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident};
use tidemill_connectors::{Options, TableContext, sink, source};
use tidemill_core::error::find_name;
use tidemill_core::time::time_type;
use tidemill_core::{Error, Result};

use super::table::{ColumnDefinition, ColumnOrigin, TableDefinition, WatermarkDefinition};
use super::type_name::{sql_type, type_name};
use crate::sql::error::{at, planning};
use crate::sql::parser::{Column, ColumnKind, CreateTable, Watermark};
use crate::sql::planner::Planner;

/// Makes definitions; expressions are planned with `planner`.
pub struct TableBuilder<'a> {
    /// Plans computed columns and watermarks.
    pub planner: &'a Planner<'a>,
}

impl TableBuilder<'_> {
    /// The definition of the statement's own columns and options; `like` is the table after `LIKE`.
    pub fn build(&self, create: &CreateTable, like: Option<&TableDefinition>) -> PlanResult<TableDefinition> {
        let name = super::simple_name(&create.name).map_err(external)?;
        let mut definition = TableDefinition {
            name,
            columns: Vec::new(),
            watermark: None,
            primary_key: Vec::new(),
            partitioned_by: create.partitioned_by.iter().map(|column| column.value.clone()).collect(),
            comment: create.comment.clone(),
            options: create.options.clone(),
            temporary: create.temporary,
        };
        let physical = create.columns.iter().filter_map(|column| physical(column).transpose());
        definition.columns = physical.collect::<PlanResult<_>>()?;
        if let (Some(old), Some(clause)) = (like, &create.like) {
            definition = super::like::merge(definition, old, &clause.options).map_err(external)?;
        }
        refuse_twins(&create.columns)?;
        let inherited = definition.columns.clone();
        // Computed columns see the physical ones and not each other, wherever they stand in the list.
        let schema = definition.physical_schema();
        definition.columns = self.in_order(create, inherited, &schema, &definition.name)?;
        if !create.partitioned_by.is_empty() {
            let columns = create.partitioned_by.iter().map(|column| partition_column(column, &definition));
            definition.partitioned_by = columns.collect::<PlanResult<_>>()?;
        }
        if let Some(watermark) = &create.watermark {
            definition.watermark = Some(self.watermark(watermark, &definition)?);
        }
        if let Some(key) = &create.primary_key {
            definition.primary_key =
                key.iter().map(|column| key_column(column, &definition)).collect::<PlanResult<_>>()?;
        }
        Ok(definition)
    }

    /// The columns as the statement orders them: inherited ones first, then the statement's, computed ones planned.
    fn in_order(
        &self,
        create: &CreateTable,
        known: Vec<ColumnDefinition>,
        physical: &SchemaRef,
        table: &str,
    ) -> PlanResult<Vec<ColumnDefinition>> {
        let schema = qualified(table, physical)?;
        let own = |name: &str| create.columns.iter().any(|column| column.name.value == name);
        let mut columns: Vec<ColumnDefinition> = known.iter().filter(|column| !own(&column.name)).cloned().collect();
        for column in &create.columns {
            columns.push(match &column.kind {
                ColumnKind::Computed { expr } => self.computed(column, expr, &schema)?,
                _ => match known.iter().find(|known| known.name == column.name.value) {
                    Some(known) => known.clone(),
                    None => return Err(DataFusionError::Internal(format!("column {} is lost", column.name))),
                },
            });
        }
        Ok(columns)
    }

    fn computed(&self, column: &Column, expr: &SqlExpr, physical: &DFSchema) -> PlanResult<ColumnDefinition> {
        if let SqlExpr::Function(function) = expr
            && function.name.to_string().eq_ignore_ascii_case("PROCTIME")
        {
            let error =
                Error::request("PROCTIME() columns are not supported yet").with_hint("use an event time column");
            return Err(external(place(error, &column.name)));
        }
        let planned = self.planner.expr(expr, physical)?;
        // No name is at fault any more, only a type.
        let data_type = planned.get_type(physical).map_err(|error| external(place(planning(error), &column.name)))?;
        let nullable = planned.nullable(physical)?;
        Ok(ColumnDefinition {
            name: column.name.value.clone(),
            declared: sql_type(&data_type),
            data_type,
            nullable,
            origin: ColumnOrigin::Computed { expr: Box::new(planned), text: expr.to_string() },
            comment: column.comment.clone(),
        })
    }

    fn watermark(&self, watermark: &Watermark, definition: &TableDefinition) -> PlanResult<WatermarkDefinition> {
        let here = |error| external(place(error, &watermark.column));
        let column = &definition.columns[column_named(&watermark.column, definition, "watermark column")?];
        if !matches!(column.data_type, DataType::Timestamp(..)) {
            let message = format!("watermark column '{}' is {}, not a time", column.name, column.type_text());
            let hint = "declare it TIMESTAMP(3) or TIMESTAMP_LTZ(3), or compute such a column from it";
            return Err(here(Error::request(message).with_hint(hint)));
        }
        let schema = qualified(&definition.name, &definition.schema())?;
        let expr = self.planner.expr(&watermark.expr, &schema)?;
        let text = watermark.expr.to_string();
        time_type(&text, &expr.get_type(&schema)?).map_err(|_| {
            let found = expr.get_type(&schema).map_or_else(|_| "nothing".to_owned(), |found| type_name(&found));
            here(
                Error::request(format!("watermark '{text}' is {found}, not a time"))
                    .with_hint(format!("write {} - INTERVAL '5' SECOND", column.name)),
            )
        })?;
        Ok(WatermarkDefinition { column: column.name.clone(), expr, text })
    }
}

/// The definition of a table that a schema and options describe.
pub fn definition_of_schema(name: &str, schema: &SchemaRef, options: Vec<(String, String)>) -> TableDefinition {
    let columns = schema.fields().iter().map(|field| ColumnDefinition {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        declared: sql_type(field.data_type()),
        nullable: field.is_nullable(),
        origin: ColumnOrigin::Physical,
        comment: None,
    });
    TableDefinition {
        name: name.to_owned(),
        columns: columns.collect(),
        watermark: None,
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        comment: None,
        options,
        temporary: true,
    }
}

impl TableDefinition {
    /// Finds unknown connectors and options before the table is used: it must open as a source or as a sink.
    pub fn check_options(&self, context: &TableContext) -> Result<()> {
        let (options, context) = (|| Options::new(self.options.iter().cloned()), &self.context(context));
        let as_source = source(options(), self.physical_schema(), context).map(drop);
        let Err(source_error) = as_source else { return Ok(()) };
        let Err(sink_error) = sink(options(), self.physical_schema(), context).map(drop) else { return Ok(()) };
        // A connector that goes one way alone refuses the other way; what is wrong is what the first way says.
        let one_way = source_error.message().contains("cannot be read");
        Err(if one_way { sink_error } else { source_error })
    }
}

fn physical(column: &Column) -> PlanResult<Option<ColumnDefinition>> {
    match &column.kind {
        ColumnKind::Computed { .. } => Ok(None),
        ColumnKind::Metadata { .. } => {
            let error = Error::request(format!("metadata column '{}' is not supported yet", column.name.value));
            Err(external(place(error, &column.name)))
        }
        ColumnKind::Physical { data_type, nullable } => Ok(Some(ColumnDefinition {
            name: column.name.value.clone(),
            data_type: data_type.to_arrow(),
            declared: Some(data_type.clone()),
            nullable: *nullable,
            origin: ColumnOrigin::Physical,
            comment: column.comment.clone(),
        })),
    }
}

fn refuse_twins(columns: &[Column]) -> PlanResult<()> {
    let mut seen = BTreeMap::new();
    for column in columns {
        if seen.insert(&column.name.value, ()).is_some() {
            let error = Error::request(format!("column '{}' is declared twice", column.name.value))
                .with_hint("give one of them another name");
            return Err(external(place(error, &column.name)));
        }
    }
    Ok(())
}

fn key_column(column: &Ident, definition: &TableDefinition) -> PlanResult<String> {
    let column = column_named(column, definition, "primary key column")?;
    Ok(definition.columns[column].name.clone())
}

fn partition_column(column: &Ident, definition: &TableDefinition) -> PlanResult<String> {
    let found = &definition.columns[column_named(column, definition, "partition column")?];
    match found.origin {
        ColumnOrigin::Physical => Ok(found.name.clone()),
        ColumnOrigin::Computed { .. } => {
            let error = Error::request(format!("partition column '{}' is computed", found.name))
                .with_hint("rows are written to a partition by a value that they have: declare a plain column");
            Err(external(place(error, column)))
        }
    }
}

/// The place of a column: an exact match, else the only one that differs in case alone.
fn column_named(ident: &Ident, definition: &TableDefinition, what: &str) -> PlanResult<usize> {
    let names: Vec<&str> = definition.columns.iter().map(|column| column.name.as_str()).collect();
    find_name(&ident.value, &names).map_err(|hint| {
        external(place(Error::request(format!("{what} '{}' not found", ident.value)).with_hint(hint), ident))
    })
}

fn qualified(table: &str, schema: &SchemaRef) -> PlanResult<DFSchema> {
    DFSchema::try_from_qualified_schema(TableReference::bare(table), schema)
}

fn place(error: Error, ident: &Ident) -> Error {
    at(error, ident.span.start)
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
