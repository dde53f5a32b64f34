//! A source of ours at the bottom of a bounded plan, so that one reader of a format serves bounded and unbounded plans.
//!
//! Every partition is a reader on the I/O runtime that meets the plan in a bounded queue; one enumerator deals out the splits.
//! Both begin when the partition is first polled.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness as PlanBoundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::limit::LimitStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};
use futures::{StreamExt, TryStreamExt};
use tidemill_core::graph::BatchStream;
use tidemill_core::metrics::{Metrics, RECORDS_OUT};
use tidemill_core::source::{BatchFunction, Boundedness, Source, SourceContext};
use tidemill_core::{Error, Result};

use crate::error::to_datafusion;
use crate::runtime::Environment;
use crate::runtime::reader::{FromReader, ReaderHandle, SharedEnumerator};

/// What a scan reads of a source.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Where rows come from.
    pub source: Arc<dyn Source>,
    /// Columns that the source reads, `None` for all.
    pub read: Option<Arc<[usize]>>,
    /// Computed columns, over what is read.
    pub derive: Option<Arc<dyn BatchFunction>>,
    /// Columns of the result that are kept, `None` for all.
    pub keep: Option<Arc<[usize]>>,
}

impl Scan {
    /// Columns of the scan's rows.
    pub fn schema(&self) -> Result<SchemaRef> {
        let project = |schema: SchemaRef, columns: &Option<Arc<[usize]>>| -> Result<SchemaRef> {
            match columns {
                Some(columns) => Ok(Arc::new(schema.project(columns)?)),
                None => Ok(schema),
            }
        };
        let derived = match &self.derive {
            Some(derive) => derive.schema(),
            None => project(self.source.schema(), &self.read)?,
        };
        project(derived, &self.keep)
    }

    fn finish(&self, records: RecordBatch) -> Result<RecordBatch> {
        let records = match &self.derive {
            Some(derive) => derive.apply(&records)?,
            None => records,
        };
        match &self.keep {
            Some(keep) => Ok(records.project(keep)?),
            None => Ok(records),
        }
    }
}

/// Reads a source.
#[derive(Debug)]
pub struct SourceExec {
    scan: Scan,
    partitions: usize,
    fetch: Option<usize>,
    enumerator: Enumerator,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SourceExec {
    /// A scan by `partitions` readers, or as many as the source can have. With `fetch`, none reads more rows than that.
    pub fn new(scan: Scan, partitions: usize, fetch: Option<usize>) -> Result<Self> {
        let partitions = partitions.min(scan.source.parallelism_max().unwrap_or(usize::MAX)).max(1);
        let boundedness = match scan.source.boundedness() {
            Boundedness::Bounded => PlanBoundedness::Bounded,
            Boundedness::Unbounded => PlanBoundedness::Unbounded { requires_infinite_memory: false },
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(scan.schema()?),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            boundedness,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self {
            scan,
            partitions,
            fetch,
            enumerator: Enumerator::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    fn context(&self, partition: usize, task: &TaskContext) -> Result<(SourceContext, Arc<Environment>)> {
        let config = task.session_config();
        let Some(environment) = config.get_extension::<Environment>() else {
            return Err(Error::internal("a plan with sources runs without an environment"));
        };
        let context = SourceContext {
            subtask: partition,
            parallelism: self.partitions,
            batch_rows: config.batch_size(),
            projection: self.scan.read.clone(),
            clock: environment.clock.clone(),
            metrics: config.get_extension::<Metrics>().map_or_else(Metrics::default, |metrics| (*metrics).clone()),
        };
        Ok((context, environment))
    }

    /// The rows of one partition; its reader starts when they are first asked for.
    fn rows(&self, partition: usize, task: &TaskContext) -> Result<BatchStream> {
        let (context, environment) = self.context(partition, task)?;
        let (enumerator, scan) = (self.enumerator.get(&*self.scan.source, &context)?, self.scan.clone());
        let records_out = context.metrics.counter(RECORDS_OUT);
        let begin = futures::stream::once(async move {
            let name = format!("source {}", scan.source.describe());
            let reader = ReaderHandle::start(&*scan.source, context, enumerator, &name, &environment.io)?;
            Ok::<_, Error>(futures::stream::try_unfold((reader, scan), |(mut reader, scan)| async move {
                while let Some(message) = reader.recv().await {
                    if let FromReader::Batch { records, .. } = message? {
                        return Ok(Some((scan.finish(records)?, (reader, scan))));
                    }
                }
                Ok(None)
            }))
        });
        let rows = begin.try_flatten();
        Ok(rows.inspect_ok(move |records: &RecordBatch| records_out.add(records.num_rows())).boxed())
    }
}

/// Deals out the splits to all partitions; made by the first of them.
#[derive(Default)]
struct Enumerator(Mutex<Option<Arc<SharedEnumerator>>>);

impl Enumerator {
    fn get(&self, source: &dyn Source, context: &SourceContext) -> Result<Arc<SharedEnumerator>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shared {
            Some(enumerator) => Ok(enumerator.clone()),
            None => {
                let enumerator = source.enumerator(&SourceContext { subtask: 0, ..context.clone() })?;
                Ok(shared.insert(SharedEnumerator::new(enumerator)).clone())
            }
        }
    }
}

impl fmt::Debug for Enumerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Enumerator")
    }
}

impl ExecutionPlan for SourceExec {
    fn name(&self) -> &'static str {
        "SourceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> PlanResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn reset_state(self: Arc<Self>) -> PlanResult<Arc<dyn ExecutionPlan>> {
        // A recursive query reads again from the beginning.
        let again = Self::new(self.scan.clone(), self.partitions, self.fetch).map_err(to_datafusion)?;
        Ok(Arc::new(again))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let rows = self.rows(partition, &context).map_err(to_datafusion)?.map_err(to_datafusion);
        let rows = Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        Ok(Box::pin(cooperative(LimitStream::new(rows, 0, self.fetch, metrics))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn with_fetch(&self, fetch: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let limited = Self::new(self.scan.clone(), self.partitions, fetch).ok()?;
        Some(Arc::new(limited))
    }
}

impl DisplayAs for SourceExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceExec: {}, partitions={}", self.scan.source.describe(), self.partitions)?;
        let schema = self.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", columns=[{}]", columns.join(", "))?;
        self.scan.derive.iter().try_for_each(|derive| write!(f, ", {}", derive.describe()))?;
        self.fetch.map_or(Ok(()), |fetch| write!(f, ", fetch={fetch}"))
    }
}
