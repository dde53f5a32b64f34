//! Where a task's rows go: its output edges and its sink.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select_all};
use tidemill_core::clock::Clock;
use tidemill_core::event::Barrier;
use tidemill_core::operator::Emission;
use tidemill_core::sink::Committable;
use tidemill_core::{Batch, Error, Result};

use crate::exchange::{Demand, EdgeWriter};
use crate::runtime::sink::{Prepared, SinkHandle};

/// The output edges of one subtask, each with the output port that it carries, and a sink if the task ends in one.
#[derive(Debug, Default)]
pub struct TaskOutput {
    /// Edges, by output port.
    pub edges: Vec<(usize, EdgeWriter)>,
    /// The sink at the end of the chain.
    pub sink: Option<SinkHandle>,
}

impl TaskOutput {
    /// Sends one thing on.
    pub async fn emit(&mut self, emission: Emission) -> Result<()> {
        match emission {
            Emission::Batch(port, batch) => self.write(port, batch).await,
            Emission::Watermark(watermark) => {
                for (_, edge) in &mut self.edges {
                    edge.watermark(watermark).await?;
                }
                if let Some(sink) = &mut self.sink {
                    sink.watermark(watermark);
                }
                Ok(())
            }
        }
    }

    async fn write(&mut self, port: usize, batch: Batch) -> Result<()> {
        if port == 0
            && let Some(sink) = &mut self.sink
        {
            return sink.write(batch).await;
        }
        for (_, edge) in self.edges.iter_mut().filter(|(carried, _)| *carried == port) {
            edge.write(batch.clone()).await?;
        }
        Ok(())
    }

    /// Passes on whether the task is idle.
    pub async fn set_idle(&mut self, idle: bool) -> Result<()> {
        for (_, edge) in &mut self.edges {
            edge.set_idle(idle).await?;
        }
        Ok(())
    }

    /// Cuts every edge, and has the sink prepare what was written before.
    pub async fn barrier(&mut self, barrier: Barrier) -> Result<Option<Prepared>> {
        for (_, edge) in &mut self.edges {
            edge.barrier(barrier).await?;
        }
        match &mut self.sink {
            Some(sink) => sink.prepare(barrier).await.map(Some),
            None => Ok(None),
        }
    }

    /// Why the sink failed.
    pub async fn sink_failure(&mut self) -> Error {
        match &mut self.sink {
            Some(sink) => sink.failure().await,
            None => Error::internal("a task without a sink waits for one"),
        }
    }

    /// Ends every edge, and the sink; returns what the sink has to commit.
    pub async fn end(&mut self) -> Result<Vec<Committable>> {
        for (_, edge) in &mut self.edges {
            edge.end().await?;
        }
        match &mut self.sink {
            Some(sink) => sink.end().await,
            None => Ok(Vec::new()),
        }
    }

    /// The task has failed, or was told to stop: nothing more comes of its sink.
    pub async fn abandon(&mut self, clock: &dyn Clock) {
        if let Some(sink) = self.sink.take() {
            sink.abandon(clock).await;
        }
    }

    /// When [`TaskOutput::flush_due`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.edges.iter().filter_map(|(_, edge)| edge.deadline()).min()
    }

    /// Sends buffers whose time has come.
    pub async fn flush_due(&mut self) -> Result<()> {
        for (_, edge) in &mut self.edges {
            edge.flush_due().await?;
        }
        Ok(())
    }

    /// The input pauses: a sink shows what it has.
    pub async fn pause(&mut self) -> Result<()> {
        match &mut self.sink {
            Some(sink) => sink.flush().await,
            None => Ok(()),
        }
    }

    /// Whether nobody wants rows any more.
    pub fn is_closed(&self) -> bool {
        match &self.sink {
            Some(sink) => sink.is_closed(),
            None => !self.edges.is_empty() && self.edges.iter().all(|(_, edge)| edge.is_closed()),
        }
    }

    /// Completes when a consumer first asks for rows, or when none is left to ask; at once for a sink.
    pub async fn demanded(&self) {
        let demands = self.demands();
        if self.sink.is_none() && !demands.is_empty() {
            select_all(demands.iter().map(|demand| Box::pin(demand.begun()))).await;
        }
    }

    /// Whether nobody wants rows any more, as the consumers have said (where [`TaskOutput::is_closed`] knows what sends met).
    pub fn is_abandoned(&self) -> bool {
        let demands = self.demands();
        self.sink.is_none() && !demands.is_empty() && demands.iter().all(|demand| demand.has_ended())
    }

    /// Completes when nobody wants rows any more, also while the task itself waits; never for a sink.
    pub fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        let demands = self.demands();
        let watched = self.sink.is_none() && !demands.is_empty();
        async move {
            match watched {
                true => {
                    join_all(demands.iter().map(|demand| demand.ended())).await;
                }
                false => std::future::pending().await,
            }
        }
    }

    fn demands(&self) -> Vec<Arc<Demand>> {
        self.edges.iter().filter_map(|(_, edge)| edge.demand().cloned()).collect()
    }
}
