//! `EXPLAIN`: every form that a plan takes, as text. `EXPLAIN ANALYZE` runs it and says what each task did.

use std::fmt::Write;
use std::sync::Arc;

use tidemill_connectors::CollectSink;
use tidemill_core::metrics::BYTES_EXCHANGED;
use tidemill_core::{Error, Result};
use tidemill_exec::runtime::JobResult;

use super::parser::{Explain, ExplainDetail, ExplainMode, Parsed, Statement};
use super::program::{Program, runs_as_batch};
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
        let (name, program, rows) = match explain.statement.as_ref() {
            Statement::Insert(_) | Statement::StatementSet(_) => {
                let (name, program) = self.insert_program(parsed).await?;
                (name, program, None)
            }
            Statement::Query(_) => {
                let state = self.state();
                let plan = self.plan(&state, parsed).await?;
                let batch = runs_as_batch(std::slice::from_ref(&plan), &self.settings)?;
                let mut program = Program::new(plan, batch, &state, &self.settings).await?;
                let (sink, rows) = CollectSink::new(1);
                program.add_sink("collect", Arc::new(sink), &self.settings);
                ("query".to_owned(), program, Some(rows))
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
            let job = program.start(&name, self)?;
            if let Some(mut rows) = rows {
                while rows.next().await.is_some() {}
            }
            forms.push(form("run", &run_text(&job.wait().await?)));
        }
        Rows::of_text(["plan", "text"], forms)
    }

    /// The job graph as text; a streaming one says which tasks update rows that they have sent.
    fn job_text(&self, program: &Program) -> Result<String> {
        let mut text = program.job_graph(&self.settings)?.to_string();
        let updating = program.updating_nodes.iter().filter(|(_, updates)| **updates);
        let names: Vec<&str> = updating.map(|(node, _)| program.graph.node(*node).name.as_str()).collect();
        if !program.batch {
            let changes = match names.as_slice() {
                [] => "every change is an insert (+I)".to_owned(),
                names => format!("rows are updated (+I -U +U -D) behind: {}", names.join(", ")),
            };
            let _ = writeln!(text, "changelog: {changes}");
        }
        Ok(text)
    }
}

fn form(name: &str, text: &str) -> [Option<String>; 2] {
    [Some(name.to_owned()), Some(text.trim_end().to_owned())]
}

fn run_text(result: &JobResult) -> String {
    let mut text = String::new();
    for (task, counters) in &result.metrics {
        let counters: Vec<String> = counters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let _ = writeln!(text, "{task}: {}", counters.join(", "));
    }
    let _ = writeln!(text, "{BYTES_EXCHANGED}={} in {:?}", result.bytes_exchanged(), result.duration);
    text
}
