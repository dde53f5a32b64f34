//! Programs that are refused, and that the error names what is wrong with them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::operator::{Operator, OperatorFactory};
use crate::settings::{Gate, Origin, Settings};
use crate::sink::{ChangelogMode, Committer, Sink, SinkContext, SinkWriter};
use crate::source::{Boundedness, Source, SourceContext, SourceReader, SplitEnumerator};

/// Nothing is made of it: these programs never run.
#[derive(Debug)]
struct Never;

fn never<T>() -> Result<T> {
    Err(Error::internal("it was to be refused"))
}

impl OperatorFactory for Never {
    fn create(&self) -> Result<Box<dyn Operator>> {
        never()
    }

    fn describe(&self) -> String {
        "never".to_owned()
    }
}

impl Source for Never {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    fn enumerator(&self, _: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        never()
    }

    fn reader(&self, _: &SourceContext) -> Result<Box<dyn SourceReader>> {
        never()
    }

    fn describe(&self) -> String {
        "never".to_owned()
    }
}

impl Sink for Never {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn parallelism_max(&self) -> Option<usize> {
        Some(1)
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        never()
    }

    fn writer(&self, _: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        never()
    }

    fn describe(&self) -> String {
        "never".to_owned()
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn operator(name: &str) -> StreamNode {
    StreamNode::new(name, NodeKind::Operator(Arc::new(Never)), schema())
}

fn sink(name: &str) -> StreamNode {
    StreamNode::new(name, NodeKind::Sink(Arc::new(Never)), schema())
}

fn endless_source(name: &str) -> StreamNode {
    let node = SourceNode { source: Arc::new(Never), projection: None, derive: None, watermarks: None };
    StreamNode::new(name, NodeKind::Source(node), schema())
}

/// The nodes, each connected with the next one.
fn row(nodes: impl IntoIterator<Item = StreamNode>, partitioning: &Partitioning) -> StreamGraph {
    let mut graph = StreamGraph::new();
    for node in nodes {
        let place = graph.add(node);
        if place > 0 {
            graph.connect(place - 1, place, 0, partitioning.clone(), EdgeOptions::default());
        }
    }
    graph
}

fn refused(graph: &StreamGraph, settings: &Settings, kind: ErrorKind, expected: &str) {
    let error = graph.to_job_graph(settings).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, expected));
}

#[test]
fn two_operators_with_one_uid_are_refused_and_both_are_named() {
    let with_uid = |name: &str, uid: Option<&str>| StreamNode { uid: uid.map(str::to_owned), ..operator(name) };
    let nodes = [("parse", None), ("count", Some("totals")), ("filter", None), ("sum", Some("totals"))];
    let mut graph = row(nodes.map(|(name, uid)| with_uid(name, uid)), &Partitioning::Rebalance);
    let error = graph.operator_ids().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert_eq!(error.message(), "two operators have the uid 'totals': 'count' and 'sum'");
    refused(&graph, &Settings::default(), ErrorKind::Request, error.message());

    graph.node_mut(3).uid = Some("sums".to_owned());
    let ids = graph.operator_ids().unwrap();
    assert_eq!([ids[1], ids[3]], ["totals", "sums"].map(OperatorId::from_uid));
}

/// They need no uid to be told apart.
#[test]
fn operators_that_agree_in_name_and_inputs_have_ids_of_their_own() {
    let mut graph = row([operator("read"), operator("map")], &Partitioning::Rebalance);
    for _ in 0..2 {
        let twin = graph.add(operator("map"));
        graph.connect(0, twin, 0, Partitioning::Rebalance, EdgeOptions::default());
    }
    let ids = graph.operator_ids().unwrap();
    let distinct: std::collections::BTreeSet<OperatorId> = ids.iter().copied().collect();
    assert_eq!((ids.len(), distinct.len()), (4, 4));
    assert_eq!(graph.operator_ids().unwrap(), ids);
}

#[test]
fn operators_in_a_circle_are_refused() {
    let expected = "the program's operators form a cycle";
    let mut graph = row(["a", "b", "c"].map(operator), &Partitioning::Rebalance);
    graph.connect(2, 1, 0, Partitioning::Rebalance, EdgeOptions::default());
    refused(&graph, &Settings::default(), ErrorKind::Request, expected);
    // What is read as a variable is an edge as well.
    let mut graph = row(["a", "b", "c"].map(operator), &Partitioning::Rebalance);
    graph.node_mut(1).variables.push(VariableUse { name: "last".into(), collector: 2 });
    refused(&graph, &Settings::default(), ErrorKind::Request, expected);
    graph.node_mut(1).variables[0].collector = 0;
    assert_eq!(graph.topological_order().unwrap(), [0, 1, 2]);
}

#[test]
fn a_parallelism_that_cannot_be_is_refused_with_the_operator() {
    let mut settings = Settings::default();
    settings.set("pipeline.max-parallelism", "4", Origin::Program).unwrap();
    let check = |node: StreamNode, expected: &str| {
        refused(&row([operator("read"), node], &Partitioning::Rebalance), &settings, ErrorKind::Request, expected);
    };
    check(operator("sum").with_parallelism(0), "parallelism of 'sum' is 0");
    check(operator("sum").with_parallelism(5), "parallelism 5 of 'sum' is above pipeline.max-parallelism 4");
    check(sink("file").with_parallelism(2), "parallelism 2 of 'file' is above the 1 that it can do");
}

#[test]
fn an_edge_that_waits_for_the_end_of_what_never_ends_is_refused_with_the_source() {
    let expected = "buffer timeout 'infinite' below source 'ticks', which never ends; an endless input needs a timeout such as \
                    '100 ms' or 'full'";
    let mut graph = row([endless_source("ticks"), operator("sum"), sink("file")], &Partitioning::Rebalance);
    assert_eq!(graph.boundedness(), Boundedness::Unbounded);
    let mut settings = Settings::default();
    graph.to_job_graph(&settings).unwrap();
    graph.edges_mut()[1].options.gate = Some(Gate::Infinite);
    refused(&graph, &settings, ErrorKind::Request, expected);
    graph.edges_mut()[1].options.gate = None;
    settings.set("execution.buffer-timeout", "infinite", Origin::Program).unwrap();
    refused(&graph, &settings, ErrorKind::Request, expected);
}

/// Front ends see to that: who meets it has found a bug.
#[test]
fn edges_that_fit_nothing_are_bugs() {
    let mut graph = row(["read", "sum"].map(operator), &Partitioning::Forward);
    graph.node_mut(1).parallelism = Some(2);
    let expected = "an edge from 'read' forward to 'sum', which runs less or more wide";
    refused(&graph, &Settings::default(), ErrorKind::Internal, expected);

    let mut graph = row(["read", "sum"].map(operator), &Partitioning::Rebalance);
    graph.edges_mut()[0].options.channels = Some(3);
    refused(
        &graph,
        &Settings::default(),
        ErrorKind::Internal,
        "an edge into 'sum', no fragment, has channels of its own",
    );
}
