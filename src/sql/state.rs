//! DataFusion's side of a session: functions, options, and how our nodes become operators.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session as PlanSession;
use datafusion::common::Result as PlanResult;
use datafusion::config::ConfigOptions;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use tidemill_core::time::Calendar;
use tidemill_core::{Result, Settings};
use tidemill_exec::error::from_datafusion;
use tidemill_exec::fragments::{bounded_config, bounded_runtime};
use tidemill_exec::operators::window_assign_exec::WindowAssignExec;
use tidemill_exec::runtime::Environment;

use super::functions::functions;
use super::logical::{LocalTime, ThreeValuedIn, WindowAssign};
use super::planner::SqlTypes;

/// The state that all statements of a session share.
pub fn base_state(settings: &Settings, environment: &Environment) -> Result<SessionState> {
    let mut state = SessionStateBuilder::new()
        .with_config(bounded_config(settings, environment))
        .with_runtime_env(bounded_runtime(settings, environment)?)
        .with_default_features()
        .with_type_planner(Arc::new(SqlTypes))
        .with_query_planner(Arc::new(WindowQueryPlanner))
        .with_analyzer_rule(Arc::new(LocalTime))
        .with_analyzer_rule(Arc::new(ThreeValuedIn))
        .build();
    for function in functions() {
        state.register_udf(function).map_err(from_datafusion)?;
    }
    Ok(state)
}

/// The state of one statement under `settings`.
pub fn statement_state(base: &SessionState, settings: &Settings, environment: &Environment) -> SessionState {
    let mut state = base.clone();
    let mut config = bounded_config(settings, environment);
    name_rules(config.options_mut());
    *state.config_mut() = config;
    state.mark_start_execution();
    state
}

/// Names keep their case, places in the text are kept for errors, and types are those that the parser gives.
fn name_rules(options: &mut ConfigOptions) {
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
}

#[derive(Debug)]
struct WindowQueryPlanner;

#[async_trait]
impl QueryPlanner for WindowQueryPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn PlanSession,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(WindowPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}

struct WindowPlanner;

#[async_trait]
impl ExtensionPlanner for WindowPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn PlanSession,
        _context: &PhysicalPlanningContext,
    ) -> PlanResult<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(assign), [input]) = (node.as_any().downcast_ref::<WindowAssign>(), inputs) else { return Ok(None) };
        let calendar = Calendar::parse(&assign.calendar_name)
            .map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))?;
        let schema = assign.schema.inner().clone();
        let plan = WindowAssignExec::new(input.clone(), assign.time_column, assign.spec, calendar, schema);
        Ok(Some(Arc::new(plan)))
    }
}
