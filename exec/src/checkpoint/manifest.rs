//! Manifests as bytes.
//!
//! ```text
//! | flatbuffer of manifest.fbs, its identifier "TMCK" at 4 … | xxh3-64: 8 | format version: 4 | "TMCK" |
//! ```
//!
//! The trailer is the same in every version of the format, so that any release can tell damage from a version that it does not
//! know. Whatever comes out of [`decode`] has been checked as a whole; code that follows it relies on that.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, VerifierOptions, WIPOffset};
use tidemill_core::graph::OperatorId;
use tidemill_core::key::HASH_VERSION;
use tidemill_core::state::{Extent, StateDescriptor, StateKind};
use tidemill_core::{Error, Result};
use xxhash_rust::xxh3::Xxh3Default;

use super::codec;
use super::content::{
    CheckpointContent, CheckpointKind, Manifest, StoredChunk, StoredLayer, StoredOperator, StoredSegment, StoredState,
    StoredSubtask,
};
use super::generated as fb;

/// The version of the format that is written here, and the newest that is read.
pub const FORMAT_VERSION: u32 = 1;

/// What a manifest ends with.
const MAGIC: &[u8; 4] = b"TMCK";
const TRAILER_BYTES: usize = 16;
/// In place of a file where a layer has no rows.
const NO_SEGMENT: u32 = u32::MAX;

/// A manifest as bytes; the same ones for the same manifest.
///
/// Errors: content that cannot be right is a bug of who put it together.
pub fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    let content = &manifest.content;
    let wrong = |error: String| Error::internal(format!("checkpoint {}: {error}", content.checkpoint));
    content.check().map_err(wrong)?;
    let mut tables = Tables::new(content);
    let operators = content.operators.iter().map(|operator| tables.operator(operator)).collect::<Result<Vec<_>, _>>();
    let operators = operators.map_err(wrong)?;
    let Tables { mut builder, schemas, .. } = tables;
    let operators = builder.create_vector(&operators);
    let schemas = encode_schemas(&mut builder, &schemas)?;
    let segments = content.segments.iter().map(|segment| {
        let path = Some(builder.create_string(&segment.path));
        fb::Segment::create(&mut builder, &fb::SegmentArgs { path, bytes: segment.bytes })
    });
    let segments: Vec<_> = segments.collect();
    let segments = builder.create_vector(&segments);
    let positions = content.source_positions.iter().map(|(source, position)| {
        let (source, position) = (Some(builder.create_string(source)), Some(builder.create_string(position)));
        fb::Position::create(&mut builder, &fb::PositionArgs { source, position })
    });
    let positions: Vec<_> = positions.collect();
    let positions = builder.create_vector(&positions);
    let job = builder.create_string(&content.job);
    let fields = fb::ManifestArgs {
        hash_version: HASH_VERSION,
        number: manifest.number,
        generation: manifest.generation,
        nonce: manifest.nonce,
        checkpoint: content.checkpoint,
        timestamp_millis: content.timestamp_millis,
        kind: match content.kind {
            CheckpointKind::Checkpoint => fb::CheckpointKind::Checkpoint,
            CheckpointKind::Savepoint => fb::CheckpointKind::Savepoint,
        },
        is_final: content.is_final,
        job: Some(job),
        took_millis: content.took_millis,
        new_bytes: content.new_bytes,
        source_positions: Some(positions),
        segments: Some(segments),
        schemas: Some(schemas),
        operators: Some(operators),
    };
    let root = fb::Manifest::create(&mut builder, &fields);
    fb::finish_manifest_buffer(&mut builder, root);
    let mut bytes = builder.finished_data().to_vec();
    seal(&mut bytes, FORMAT_VERSION);
    Ok(bytes)
}

/// The manifest that such bytes are.
///
/// Errors: damaged bytes ([`Corrupt`](tidemill_core::ErrorKind)); a newer version, which names both. Never panics.
pub fn decode(bytes: &[u8]) -> Result<Manifest> {
    let body = unseal(bytes)?;
    decode_body(body)
}

/// Adds the trailer.
#[doc(hidden)]
pub fn seal(bytes: &mut Vec<u8>, version: u32) {
    let checksum = checksum(bytes, version);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(MAGIC);
}

/// What stands before the trailer, if that is right.
fn unseal(bytes: &[u8]) -> Result<&[u8]> {
    let broken = || Error::corrupt(format!("{} bytes that do not end like a manifest", bytes.len()));
    let (body, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>().ok_or_else(broken)?;
    let [c0, c1, c2, c3, c4, c5, c6, c7, v0, v1, v2, v3, magic @ ..] = trailer;
    if magic != MAGIC {
        return Err(broken());
    }
    let stored = u64::from_le_bytes([*c0, *c1, *c2, *c3, *c4, *c5, *c6, *c7]);
    let version = u32::from_le_bytes([*v0, *v1, *v2, *v3]);
    let found = checksum(body, version);
    if found != stored {
        return Err(Error::corrupt(format!("checksum {found:016x} instead of {stored:016x}")));
    }
    match version {
        FORMAT_VERSION => Ok(body),
        version if version > FORMAT_VERSION => {
            let error = format!("a manifest of format version {version}; this release reads up to {FORMAT_VERSION}");
            Err(Error::request(error).with_hint("upgrade tidemill to a release that reads it"))
        }
        version => Err(Error::corrupt(format!("format version {version}, which there never was"))),
    }
}

fn checksum(body: &[u8], version: u32) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(body);
    hash.update(&version.to_le_bytes());
    hash.digest()
}

fn decode_body(body: &[u8]) -> Result<Manifest> {
    // A table has at least 4 bytes of its own, and fields of it count once more each.
    let options = VerifierOptions {
        max_tables: body.len(),
        max_apparent_size: body.len().saturating_mul(64),
        ..VerifierOptions::default()
    };
    if body.len() < 8 || !fb::manifest_buffer_has_identifier(body) {
        return Err(Error::corrupt("a manifest without its identifier"));
    }
    let root = fb::root_as_manifest_with_opts(&options, body)
        .map_err(|error| Error::corrupt(format!("a manifest with broken structure: {error}")))?;
    let hash_version = root.hash_version();
    if hash_version != HASH_VERSION {
        let error =
            format!("a manifest of key hash version {hash_version}; this release places keys by {HASH_VERSION}");
        return Err(Error::request(error).with_hint("use a release that knows it"));
    }
    let manifest = read(root).map_err(Error::corrupt)?;
    manifest.content.check().map_err(Error::corrupt)?;
    Ok(manifest)
}

/// Builds tables, with schemas and files by number.
struct Tables<'a> {
    builder: FlatBufferBuilder<'static>,
    segments: BTreeMap<&'a str, u32>,
    schemas: Vec<&'a SchemaRef>,
}

impl<'a> Tables<'a> {
    fn new(content: &'a CheckpointContent) -> Self {
        let segments = content.segments.iter().zip(0..).map(|(segment, place)| (&*segment.path, place)).collect();
        Self { builder: FlatBufferBuilder::new(), segments, schemas: Vec::new() }
    }

    fn operator(&mut self, operator: &'a StoredOperator) -> Result<WIPOffset<fb::Operator<'static>>, String> {
        let subtasks = operator.subtasks.iter().map(|subtask| {
            let states = subtask.states.iter().map(|state| self.state(state)).collect::<Result<Vec<_>, String>>()?;
            let states = Some(self.builder.create_vector(&states));
            Ok(fb::Subtask::create(&mut self.builder, &fb::SubtaskArgs { states }))
        });
        let subtasks = subtasks.collect::<Result<Vec<_>, String>>()?;
        let subtasks = Some(self.builder.create_vector(&subtasks));
        let name = Some(self.builder.create_string(&operator.name));
        let (id, max_parallelism) = (operator.id.0, operator.max_parallelism);
        Ok(fb::Operator::create(&mut self.builder, &fb::OperatorArgs { id, name, max_parallelism, subtasks }))
    }

    fn state(&mut self, state: &'a StoredState) -> Result<WIPOffset<fb::State<'static>>, String> {
        let layers = state.layers.iter().map(|layer| self.layer(layer)).collect::<Result<Vec<_>, String>>()?;
        let layers = Some(self.builder.create_vector(&layers));
        let StateDescriptor { name, kind, schema } = &state.descriptor;
        let (schema, name) = (self.schema(schema), Some(self.builder.create_string(name)));
        let kind = match kind {
            StateKind::Keyed => fb::StateKind::Keyed,
            StateKind::List => fb::StateKind::List,
            StateKind::UnionList => fb::StateKind::UnionList,
            StateKind::Broadcast => fb::StateKind::Broadcast,
        };
        Ok(fb::State::create(&mut self.builder, &fb::StateArgs { name, kind, schema, layers }))
    }

    fn layer(&mut self, layer: &'a StoredLayer) -> Result<WIPOffset<fb::Layer<'static>>, String> {
        let chunk = |chunk: &StoredChunk| {
            let (first, last) = chunk.groups.unwrap_or_default();
            fb::Chunk::new(chunk.offset, chunk.length, chunk.rows, chunk.checksum, first, last)
        };
        let chunks: Vec<fb::Chunk> = layer.chunks.iter().map(chunk).collect();
        let segment = match (layer.chunks.is_empty(), self.segments.get(&*layer.segment)) {
            (true, _) => NO_SEGMENT,
            (false, Some(place)) => *place,
            (false, None) => return Err(format!("file '{}' is not listed", layer.segment)),
        };
        let extent = match layer.extent {
            Extent::Whole => fb::Extent::Whole,
            Extent::Changed => fb::Extent::Changed,
            Extent::Removed => fb::Extent::Removed,
            Extent::Added => fb::Extent::Added,
        };
        let (schema, chunks) = (self.schema(&layer.schema), Some(self.builder.create_vector(&chunks)));
        Ok(fb::Layer::create(&mut self.builder, &fb::LayerArgs { extent, schema, segment, chunks }))
    }

    /// There are few different ones: as many as states have forms.
    fn schema(&mut self, schema: &'a SchemaRef) -> u32 {
        let known = self.schemas.iter().position(|known| Arc::ptr_eq(known, schema) || *known == schema);
        known.unwrap_or_else(|| {
            self.schemas.push(schema);
            self.schemas.len() - 1
        }) as u32
    }
}

type Schemas<'a> = WIPOffset<Vector<'a, ForwardsUOffset<fb::Schema<'a>>>>;

fn encode_schemas<'a>(builder: &mut FlatBufferBuilder<'a>, schemas: &[&SchemaRef]) -> Result<Schemas<'a>> {
    let mut tables = Vec::with_capacity(schemas.len());
    for schema in schemas {
        let stream = Some(builder.create_vector(&codec::encode(schema, &[])?));
        tables.push(fb::Schema::create(builder, &fb::SchemaArgs { stream }));
    }
    Ok(builder.create_vector(&tables))
}

/// What tables refer to by number.
struct Shared {
    segments: Vec<Arc<str>>,
    schemas: Vec<SchemaRef>,
}

fn read(root: fb::Manifest<'_>) -> Result<Manifest, String> {
    let segments: Vec<StoredSegment> = root
        .segments()
        .iter()
        .map(|segment| StoredSegment { path: segment.path().into(), bytes: segment.bytes() })
        .collect();
    let schemas = root.schemas().iter().map(|schema| {
        let (schema, batches) = codec::decode(schema.stream().bytes()).map_err(|error| format!("columns: {error}"))?;
        match (batches.is_empty(), has_nameless_zone(&schema)) {
            (false, _) => Err("columns with rows".to_owned()),
            (_, true) => Err("a time zone without a name".to_owned()),
            _ => Ok(schema),
        }
    });
    let schemas = schemas.collect::<Result<Vec<_>, String>>()?;
    let shared = Shared { segments: segments.iter().map(|segment| segment.path.clone()).collect(), schemas };
    let operators = root.operators().iter().map(|operator| shared.operator(operator));
    let position = |position: fb::Position<'_>| (position.source().to_owned(), position.position().to_owned());
    let content = CheckpointContent {
        checkpoint: root.checkpoint(),
        timestamp_millis: root.timestamp_millis(),
        kind: match root.kind() {
            fb::CheckpointKind::Checkpoint => CheckpointKind::Checkpoint,
            fb::CheckpointKind::Savepoint => CheckpointKind::Savepoint,
            other => return Err(format!("a checkpoint of kind {}", other.0)),
        },
        is_final: root.is_final(),
        job: root.job().to_owned(),
        source_positions: root.source_positions().iter().map(position).collect(),
        operators: operators.collect::<Result<_, _>>()?,
        segments,
        took_millis: root.took_millis(),
        new_bytes: root.new_bytes(),
    };
    Ok(Manifest { number: root.number(), generation: root.generation(), nonce: root.nonce(), content })
}

/// Whether a column has an empty time zone. Arrow reads one, and writes it as none, so that nobody has stored it.
fn has_nameless_zone(schema: &Schema) -> bool {
    let is_nameless = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(zone)) if zone.is_empty());
    schema.flattened_fields().into_iter().any(|field| match field.data_type() {
        DataType::Dictionary(_, values) => is_nameless(values),
        data_type => is_nameless(data_type),
    })
}

impl Shared {
    fn operator(&self, operator: fb::Operator<'_>) -> Result<StoredOperator, String> {
        let subtask = |(index, subtask): (u32, fb::Subtask<'_>)| {
            let states = subtask.states().iter().map(|state| self.state(state)).collect::<Result<_, String>>()?;
            Ok(StoredSubtask { index, states })
        };
        let subtasks = (0..).zip(operator.subtasks()).map(subtask).collect::<Result<_, String>>()?;
        let (id, name) = (OperatorId(operator.id()), operator.name().to_owned());
        Ok(StoredOperator { id, name, max_parallelism: operator.max_parallelism(), subtasks })
    }

    fn state(&self, state: fb::State<'_>) -> Result<StoredState, String> {
        let kind = match state.kind() {
            fb::StateKind::Keyed => StateKind::Keyed,
            fb::StateKind::List => StateKind::List,
            fb::StateKind::UnionList => StateKind::UnionList,
            fb::StateKind::Broadcast => StateKind::Broadcast,
            other => return Err(format!("a state of kind {}", other.0)),
        };
        let (name, schema) = (state.name().to_owned(), self.schema(state.schema())?);
        let layers = state.layers().iter().map(|layer| self.layer(layer, kind)).collect::<Result<_, _>>()?;
        Ok(StoredState { descriptor: StateDescriptor { name, kind, schema }, layers })
    }

    fn layer(&self, layer: fb::Layer<'_>, kind: StateKind) -> Result<StoredLayer, String> {
        let extent = match layer.extent() {
            fb::Extent::Whole => Extent::Whole,
            fb::Extent::Changed => Extent::Changed,
            fb::Extent::Removed => Extent::Removed,
            fb::Extent::Added => Extent::Added,
            other => return Err(format!("a layer of extent {}", other.0)),
        };
        let chunk = |chunk: &fb::Chunk| StoredChunk {
            offset: chunk.offset(),
            length: chunk.length(),
            rows: chunk.rows(),
            checksum: chunk.checksum(),
            groups: (kind == StateKind::Keyed).then_some((chunk.first_group(), chunk.last_group())),
        };
        let chunks: Vec<StoredChunk> = layer.chunks().iter().map(chunk).collect();
        let segment = match (chunks.is_empty(), self.segments.get(layer.segment() as usize)) {
            (true, _) => "".into(),
            (false, Some(segment)) => segment.clone(),
            (false, None) => return Err(format!("file number {} of {}", layer.segment(), self.segments.len())),
        };
        Ok(StoredLayer { extent, schema: self.schema(layer.schema())?, segment, chunks })
    }

    fn schema(&self, place: u32) -> Result<SchemaRef, String> {
        let schema = self.schemas.get(place as usize);
        schema.cloned().ok_or_else(|| format!("columns number {place} of {}", self.schemas.len()))
    }
}
