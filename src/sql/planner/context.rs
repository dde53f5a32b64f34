//! Where DataFusion's planner looks up tables, functions and options.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{TableFunctionArgs, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, DataFusionError, Result, TableReference, plan_err};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Query, Statement as SqlStatement};

use super::relation::TableFunctions;
use super::twins::name_twins;
use super::types::SqlTypes;
use crate::sql::catalog::DEFAULT_DATABASE;
use crate::sql::error::UnknownRelation;
use crate::sql::logical::group_window::{assign_group_windows, split_group_windows};
use crate::sql::parser::ReadCheckpoint;

/// The relations that a statement can name, opened for planning.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    /// What the statement names.
    pub opened: BTreeMap<String, Arc<dyn TableProvider>>,
    /// The checkpoints that the statement reads.
    pub checkpoints: BTreeMap<ReadCheckpoint, Arc<dyn TableProvider>>,
    /// The names of all tables and views, for errors.
    pub known: Vec<String>,
}

/// Plans queries and expressions.
pub struct Planner<'a> {
    state: &'a SessionState,
    relations: &'a Relations,
    zone: &'a str,
    relation_planners: [Arc<dyn RelationPlanner>; 1],
}

impl<'a> Planner<'a> {
    /// A planner over `relations` for a session in `zone`.
    pub fn new(state: &'a SessionState, relations: &'a Relations, zone: &'a str) -> Self {
        let functions = TableFunctions { zone: zone.to_owned(), checkpoints: relations.checkpoints.clone() };
        Self { state, relations, zone, relation_planners: [Arc::new(functions)] }
    }

    /// The plan of a query, group windows resolved.
    pub fn query(&self, query: &Query) -> Result<LogicalPlan> {
        let mut query = query.clone();
        name_twins(&mut query);
        split_group_windows(&mut query);
        let plan = SqlToRel::new(self).sql_statement_to_plan(SqlStatement::Query(Box::new(query)))?;
        assign_group_windows(plan, self.zone)
    }

    /// An expression over the columns of `schema`.
    pub fn expr(&self, expr: &SqlExpr, schema: &DFSchema) -> Result<Expr> {
        SqlToRel::new(self).sql_to_expr(expr.clone(), schema, &mut PlannerContext::new())
    }
}

impl ContextProvider for Planner<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let opened = match &name {
            TableReference::Bare { table } => self.relations.opened.get(table.as_ref()),
            TableReference::Partial { schema, table } | TableReference::Full { schema, table, .. } => {
                let own = schema.as_ref() == DEFAULT_DATABASE;
                own.then(|| self.relations.opened.get(table.as_ref())).flatten()
            }
        };
        opened.map(|table| provider_as_source(table.clone())).ok_or_else(|| {
            let unknown = UnknownRelation { name: name.to_string(), known: self.relations.known.clone() };
            DataFusionError::External(Box::new(unknown))
        })
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let functions = self.state.table_functions();
        let Some(function) = functions.get(&name.to_lowercase()) else {
            let known: Vec<&str> = functions.keys().map(String::as_str).collect();
            let error = tidemill_core::error::unknown("table function", name, known);
            return Err(DataFusionError::External(Box::new(error)));
        };
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(context);
        let empty = DFSchema::empty();
        let constant = |arg| simplifier.coerce(arg, &empty).and_then(|arg| simplifier.simplify(arg));
        let args = args.into_iter().map(constant).collect::<Result<Vec<_>>>()?;
        let table = function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?;
        Ok(provider_as_source(table))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_file_type(&self, extension: &str) -> Result<Arc<dyn datafusion::common::file_options::file_type::FileType>> {
        plan_err!("files of type {extension} are written by COPY alone")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(SqlTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
