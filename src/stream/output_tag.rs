//! Side outputs: what an operator emits beside its main output, under a name (PRF-11).

use std::any::{TypeId, type_name};
use std::marker::PhantomData;
use std::sync::Arc;

use tidemill_core::Error;

use super::data_stream::DataStream;
use super::layout::{PlainCodec, RowCodec};
use super::program::{Input, Node, SideOutput};
use super::record::Record;

/// The name and type of a side output.
#[derive(Debug)]
pub struct OutputTag<T> {
    pub(super) name: Arc<str>,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), record: PhantomData }
    }
}

impl<T: Record> OutputTag<T> {
    /// A tag called `name`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), record: PhantomData }
    }
}

impl<T: Record> DataStream<T> {
    /// The side output `tag` of the operator that made this stream: late records of windows
    /// ([`side_output_late`](super::WindowedStream::side_output_late)), or what a process function gives to
    /// [`Context::output`](super::Context::output).
    pub fn side_output<S: Record>(&self, tag: &OutputTag<S>) -> DataStream<S> {
        let codec = self.codec_of::<S>();
        let new = SideOutput {
            tag: tag.name.clone(),
            record: TypeId::of::<S>(),
            schema: PlainCodec::new(codec.clone(), self.timed).schema(),
            timed: self.timed,
        };
        let found = match self.inputs.as_slice() {
            [input] => find_or_add(self.environment.program().node_mut(input.node), new),
            _ => None,
        };
        let Some((port, timed)) = found else {
            self.fail(
                Error::request(format!("there is no side output '{}' of {} here", tag.name, type_name::<S>()))
                    .with_hint("call side_output on the stream that the operator with that tag returned"),
            );
            return DataStream {
                environment: self.environment.clone(),
                inputs: self.inputs.clone(),
                codec,
                timed: true,
            };
        };
        let inputs = self.inputs.iter().map(|input| Input { port, ..Input::main(input.node) }).collect();
        DataStream { environment: self.environment.clone(), inputs, codec, timed }
    }
}

/// The port of a side output of `node`, and whether its records have event time.
fn find_or_add(node: &mut Node, new: SideOutput) -> Option<(usize, bool)> {
    let place = match node.sides.iter().position(|side| side.tag == new.tag) {
        Some(place) => place,
        None if node.takes_sides => {
            node.sides.push(new.clone());
            node.sides.len() - 1
        }
        None => return None,
    };
    let side = &node.sides[place];
    (side.record == new.record).then_some((place + 1, side.timed))
}
