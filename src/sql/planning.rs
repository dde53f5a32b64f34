//! From statements to logical plans: relations opened, names mended, views inlined.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::Result as PlanResult;
use datafusion::datasource::{TableProvider, ViewTable};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{ObjectName, Query, TableFactor, Visitor};
use datafusion::sql::sqlparser::tokenizer::Location;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidemill_connectors::registry::Disposition;
use tidemill_core::{Error, Result};
use tidemill_exec::error::from_datafusion;

use super::catalog::{Entry, ScanTable, TableDefinition, ViewDefinition, file_table, looks_like_file, simple_name};
use super::error::at;
use super::parser::{Parsed, ReadCheckpoint, parse_script, read_checkpoint, walk};
use super::planner::repair::{Repair, queries};
use super::planner::{Planner, Relations};
use super::session::Session;

/// How deep views may use views; more is a circle.
const VIEW_DEPTH_MAX: usize = 32;

impl Session {
    /// The plans of a statement's queries, and the statement with its names as they were declared.
    pub(super) async fn plans(&self, state: &SessionState, parsed: &Parsed) -> Result<(Parsed, Vec<LogicalPlan>)> {
        self.plans_within(state, parsed, 0).await
    }

    /// The plan of a statement that is one query.
    pub(super) async fn plan(&self, state: &SessionState, parsed: &Parsed) -> Result<LogicalPlan> {
        let (_, mut plans) = self.plans(state, parsed).await?;
        plans.pop().ok_or_else(|| Error::internal("a query without a plan"))
    }

    /// Tries `plan` with the statement's relations opened, mending names until it goes well or fails for another reason.
    pub(super) async fn mended<T>(
        &self,
        state: &SessionState,
        parsed: &Parsed,
        depth: usize,
        plan: impl Fn(&Planner<'_>, &Parsed) -> PlanResult<T>,
    ) -> Result<(Parsed, T)> {
        let mut repair = Repair::new(parsed);
        let mut parsed = parsed.clone();
        loop {
            let relations = self.relations(state, &queries(&parsed.statement), depth).await?;
            let planned = plan(&Planner::new(state, &relations, self.settings.local_time_zone()), &parsed);
            match planned {
                Ok(planned) => return Ok((parsed, planned)),
                Err(error) => parsed = repair.mend(error, &relations)?,
            }
        }
    }

    /// The columns and plan of a view.
    pub(super) fn view<'a>(
        &'a self,
        state: &'a SessionState,
        view: &'a ViewDefinition,
        depth: usize,
    ) -> BoxFuture<'a, Result<LogicalPlan>> {
        async move {
            if depth > VIEW_DEPTH_MAX {
                let error =
                    format!("views are used by views more than {VIEW_DEPTH_MAX} deep, or '{}' uses itself", view.name);
                return Err(Error::request(error));
            }
            let in_view = |error: Error| error.context(format!("view '{}'", view.name));
            let parsed = parse_script(&view.text).map_err(in_view)?;
            let Some(parsed) = parsed.first() else {
                return Err(Error::internal(format!("view '{}' has no query", view.name)));
            };
            let (_, mut plans) = self.plans_within(state, parsed, depth).await.map_err(in_view)?;
            let plan = plans.pop().ok_or_else(|| Error::internal("a view without a plan"))?;
            renamed(plan, view).map_err(in_view)
        }
        .boxed()
    }

    async fn plans_within(
        &self,
        state: &SessionState,
        parsed: &Parsed,
        depth: usize,
    ) -> Result<(Parsed, Vec<LogicalPlan>)> {
        let plan = |planner: &Planner<'_>, parsed: &Parsed| {
            queries(&parsed.statement).iter().map(|query| planner.query(query)).collect()
        };
        self.mended(state, parsed, depth, plan).await
    }

    /// Opens what the queries name. What is not there stays out, and is an error once it is planned: it may be a `WITH`.
    async fn relations(&self, state: &SessionState, queries: &[Query], depth: usize) -> Result<Relations> {
        let (mut names, mut calls) = (BTreeSet::new(), Vec::new());
        for query in queries {
            walk(query, &mut RelationNames { names: &mut names, calls: &mut calls });
        }
        let mut relations = Relations { known: self.catalog.names(), ..Relations::default() };
        let open = |table: Arc<TableDefinition>| {
            let context = self.table_context(None, Disposition::Append);
            ScanTable::open(table, state, &context).map(Arc::new)
        };
        for (name, quoted) in names {
            let table: Arc<dyn TableProvider> = match self.catalog.get(&name) {
                Some(Entry::Table(table)) => open(table.clone())?,
                Some(Entry::View(view)) => {
                    let plan = self.view(state, view, depth + 1).await?;
                    Arc::new(ViewTable::new(plan, Some(view.text.clone())))
                }
                None if quoted && looks_like_file(&name) => open(Arc::new(file_table(&self.stores(), &name).await?))?,
                None => continue,
            };
            relations.opened.insert(name, table);
        }
        for (call, place) in calls {
            let table = self.checkpoint_table(state, &call).await.map_err(|error| at(error, place))?;
            relations.checkpoints.insert(call, Arc::new(table));
        }
        Ok(relations)
    }
}

/// What a query reads.
struct RelationNames<'a> {
    /// The relations that it names, and whether in quotes.
    names: &'a mut BTreeSet<(String, bool)>,
    /// The checkpoints, and where they stand.
    calls: &'a mut Vec<(ReadCheckpoint, Location)>,
}

impl Visitor for RelationNames<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let quoted = name.0.last().and_then(|part| part.as_ident()).is_some_and(|name| name.quote_style.is_some());
        self.names.extend(simple_name(name).map(|name| (name, quoted)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        // A call that is wrong stays out, and is an error once it is planned.
        self.calls.extend(read_checkpoint(factor).and_then(Result::ok));
        ControlFlow::Continue(())
    }
}

/// The plan with the names that the view gives its columns.
fn renamed(plan: LogicalPlan, view: &ViewDefinition) -> Result<LogicalPlan> {
    if view.columns.is_empty() {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    if columns.len() != view.columns.len() {
        return Err(Error::request(format!("{} names for {} columns", view.columns.len(), columns.len())));
    }
    let named = columns.into_iter().zip(&view.columns).map(|(column, name)| Expr::Column(column).alias(&name.value));
    let named: Vec<Expr> = named.collect();
    LogicalPlanBuilder::from(plan).project(named).and_then(LogicalPlanBuilder::build).map_err(from_datafusion)
}
