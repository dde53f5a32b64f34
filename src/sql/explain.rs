//! `EXPLAIN`: every form that a plan takes, as text. `EXPLAIN ANALYZE` runs it and says what each task did.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use tidemill_connectors::CollectSink;
use tidemill_core::graph::OperatorId;
use tidemill_core::metrics::BYTES_EXCHANGED;
use tidemill_core::time::spoken;
use tidemill_core::{Error, Result};
use tidemill_exec::runtime::JobResult;

use super::parser::{Explain, ExplainDetail, ExplainMode, Parsed, Statement};
use super::program::Program;
use super::recovery::QUERY;
use super::rows::Rows;
use super::session::Session;

impl Session {
    /// The plan of a statement, or what its run was like.
    pub(super) async fn explain(&mut self, parsed: &Parsed, explain: &Explain) -> Result<Rows> {
        let unsupported = explain.details.iter().find_map(|detail| match detail {
            ExplainDetail::EstimatedCost => Some("ESTIMATED_COST".to_owned()),
            ExplainDetail::JsonExecutionPlan => Some("JSON_EXECUTION_PLAN".to_owned()),
            ExplainDetail::PlanAdvice => Some("PLAN_ADVICE".to_owned()),
            ExplainDetail::Format(name) if !name.eq_ignore_ascii_case("indent") => Some(format!("FORMAT {name}")),
            _ => None,
        });
        if let Some(detail) = unsupported {
            return Err(Error::request(format!("EXPLAIN {detail} is not supported yet")));
        }
        let (job, program, rows) = match explain.statement.as_ref() {
            Statement::Insert(_) | Statement::StatementSet(_) => {
                let (job, program) = self.insert_program(parsed).await?;
                (job, program, None)
            }
            Statement::Query(_) => {
                let (mut program, _) = self.query_program(parsed).await?;
                let (sink, rows) = CollectSink::new(1);
                program.add_sink("collect", Arc::new(sink), &self.settings);
                (self.new_job(QUERY, None), program, Some(rows))
            }
            _ => {
                return Err(Error::request("EXPLAIN explains queries, INSERT and statement sets"));
            }
        };
        let mut forms = vec![form("logical plan", &program.logical)];
        if let Some(physical) = program.physical.as_ref().filter(|_| explain.details.contains(&ExplainDetail::Verbose))
        {
            forms.push(form("physical plan", physical));
        }
        forms.push(form("job graph", &self.job_text(&program)?));
        if explain.mode == ExplainMode::Analyze {
            if !program.bounded {
                let error = Error::request("EXPLAIN ANALYZE of a statement that never ends");
                return Err(error.with_hint("EXPLAIN shows its plan"));
            }
            let handle = program.start(&job, self)?;
            if let Some(mut rows) = rows {
                while rows.next().await.is_some() {}
            }
            forms.push(form("run", &run_text(&handle.wait().await?)));
        }
        Rows::of_text(["plan", "text"], forms)
    }

    /// The job graph as text; a streaming one says of each edge, and of the result, which changes there are.
    fn job_text(&self, program: &Program) -> Result<String> {
        let job = program.job_graph(&self.settings)?;
        if program.batch {
            return Ok(job.to_string());
        }
        let ids = program.graph.operator_ids()?;
        let updating: BTreeSet<OperatorId> =
            program.updating_nodes.iter().filter(|(_, updates)| **updates).map(|(node, _)| ids[*node]).collect();
        let mut text = String::new();
        let _ = job.write_text(&mut text, |edge| {
            // Rows leave a task behind the last of its operators.
            let task = &job.vertices[edge.source];
            let last = task.chain.last().map_or(task.id, |operator| operator.id);
            changes(updating.contains(&last)).to_owned()
        });
        let updating = program.updating_nodes.iter().filter(|(_, updates)| **updates);
        let names: Vec<&str> = updating.map(|(node, _)| program.graph.node(*node).name.as_str()).collect();
        let summary = match names.as_slice() {
            [] => format!("every change is an insert ({})", changes(false)),
            names => format!("rows are updated ({}) behind: {}", changes(true), names.join(", ")),
        };
        let _ = writeln!(text, "changelog: {summary}");
        Ok(text)
    }
}

fn form(name: &str, text: &str) -> [Option<String>; 2] {
    [Some(name.to_owned()), Some(text.trim_end().to_owned())]
}

/// The kinds of changes that rows are.
fn changes(updates: bool) -> &'static str {
    if updates { "+I -U +U -D" } else { "+I" }
}

fn run_text(result: &JobResult) -> String {
    let mut text = String::new();
    // What hands rows to whoever asked for them counts nothing.
    for (task, counters) in result.metrics.iter().filter(|(_, counters)| !counters.is_empty()) {
        let counters: Vec<String> = counters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let _ = writeln!(text, "{task}: {}", counters.join(", "));
    }
    let _ = writeln!(text, "{BYTES_EXCHANGED}={} in {}", result.bytes_exchanged(), spoken(result.duration));
    text
}
