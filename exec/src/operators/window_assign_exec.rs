//! Window table functions in bounded plans: the kernel of [`window_assign`](super::window_assign) as a DataFusion operator.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::PlanProperties;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, SendableRecordBatchStream,
};
use futures::TryStreamExt;
use tidemill_core::Batch;
use tidemill_core::time::Calendar;
use tidemill_core::window::WindowSpec;

use crate::operators::window_assign::Assignment;

/// Gives every row its windows.
#[derive(Clone, Debug)]
pub struct WindowAssignExec {
    input: Arc<dyn ExecutionPlan>,
    time_column: usize,
    spec: WindowSpec,
    calendar: Calendar,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl WindowAssignExec {
    /// The windows of `spec` over `time_column` of `input`; `schema` is that of the input and the three window columns.
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        time_column: usize,
        spec: WindowSpec,
        calendar: Calendar,
        schema: SchemaRef,
    ) -> Self {
        // The input's columns keep their places, so that rows which met because of them still do.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, time_column, spec, calendar, schema, properties: Arc::new(properties) }
    }
}

impl DisplayAs for WindowAssignExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowAssignExec: {} of {}", self.spec, self.input.schema().field(self.time_column).name())
    }
}

impl ExecutionPlan for WindowAssignExec {
    fn name(&self) -> &str {
        "WindowAssignExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return Err(DataFusionError::Internal("WindowAssignExec has one input".into()));
        };
        Ok(Arc::new(Self::new(input, self.time_column, self.spec, self.calendar, self.schema.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (time_column, spec, calendar, schema) = (self.time_column, self.spec, self.calendar, self.schema.clone());
        let rows_max = context.session_config().batch_size();
        let input = self.input.execute(partition, context)?;
        // A piece after the other: what rows become is there when it is asked for.
        let pieces = input.map_ok(move |records| {
            let begun = Assignment::new(Batch::append(records), time_column, spec, calendar, schema.clone());
            futures::stream::try_unfold(begun.map_err(external), move |assignment| {
                std::future::ready(assignment.and_then(|mut assignment| {
                    let piece = assignment.next_piece(rows_max).map_err(external)?;
                    Ok(piece.map(|piece| (piece.into_records(), Ok(assignment))))
                }))
            })
        });
        let rows = pieces.try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows)))
    }
}

fn external(error: tidemill_core::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
