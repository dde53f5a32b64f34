//! Streams that are given to functions as a whole, once a worker (SHR-01, BOP-26).

use std::sync::Arc;

use tidemill_core::graph::Partitioning;
use tidemill_core::{Error, Result};
use tidemill_exec::operators::collect_variable::CollectVariable;

use super::data_stream::DataStream;
use super::layout::RowCodec;
use super::program::{Input, Kind, Node, NodeId, Program};
use super::record::Record;

impl<T: Record> DataStream<T> {
    /// Gives all records of `set` to the rich or process function that made this stream, as its broadcast variable `name`.
    ///
    /// A worker has one copy, which its subtasks share; it is complete before the function is opened, and gone with the last subtask
    /// that reads it. So `set` must be bounded and fit into memory. What comes to the function meanwhile waits on disk.
    ///
    /// In `open`, [`RuntimeContext::broadcast_variable`](super::RuntimeContext::broadcast_variable) gives its records, and
    /// [`broadcast_variable_with`](super::RuntimeContext::broadcast_variable_with) what an initializer makes of them, once a worker.
    pub fn with_broadcast_set<B: Record>(&self, set: &DataStream<B>, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        if !self.environment.is_same(&set.environment) {
            self.fail(Error::request(format!("broadcast set '{name}' is a stream of another environment")));
            return self.clone();
        }
        let collector = set.collector(&name);
        let [input] = self.inputs.as_slice() else {
            self.fail(
                Error::request(format!("broadcast set '{name}' for a union, which is no function"))
                    .with_hint("call with_broadcast_set on the streams that are united"),
            );
            return self.clone();
        };
        let added = add(&mut self.environment.program(), input.node, name, collector);
        if let Err(error) = added {
            self.fail(error);
        }
        self.clone()
    }

    /// The node that collects this stream; the same one for everybody.
    fn collector(&self, name: &str) -> NodeId {
        let source: Vec<(NodeId, usize)> = self.inputs.iter().map(|input| (input.node, input.port)).collect();
        let known = self.environment.program().collector(&source);
        if let Some(known) = known {
            return known;
        }
        // A source may have other columns than its records, and event time is no part of them.
        let plain = self.recoded("", Arc::new(self.plain(false)), false, true);
        let inputs = plain.inputs.iter();
        let inputs = inputs.map(|input| Input { partitioning: Some(Partitioning::Global), ..input.clone() }).collect();
        let schema = self.plain(false).schema();
        let kind = Kind::Batches(Arc::new(CollectVariable { schema: schema.clone() }));
        let mut node = Node::untyped(format!("broadcast variable {name}"), inputs, kind, schema);
        node.parallelism = Some(1);
        node.collects = Some(source);
        self.environment.program().add(node)
    }
}

fn add(program: &mut Program, node: NodeId, name: Arc<str>, collector: NodeId) -> Result<()> {
    let node = program.node_mut(node);
    if !node.takes_variables {
        return Err(Error::request(format!(
            "broadcast set '{name}' for '{}', which has no runtime context",
            node.name
        ))
        .with_hint("call with_broadcast_set on what a rich function or a process function returned"));
    }
    if node.variables.iter().any(|(known, _)| *known == name) {
        return Err(Error::request(format!("'{}' has two broadcast sets called '{name}'", node.name)));
    }
    node.variables.push((name, collector));
    Ok(())
}
