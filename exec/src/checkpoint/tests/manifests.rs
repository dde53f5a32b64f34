//! Manifests come back as they went in, and no byte of one can change unnoticed.

use proptest::prelude::*;
use tidemill_core::ErrorKind;
use tidemill_core::graph::OperatorId;
use tidemill_core::key::HASH_VERSION;

use super::*;
use crate::checkpoint::generated as fb;
use crate::checkpoint::manifest::{FORMAT_VERSION, decode, encode, seal};

/// A manifest that could be: everything in it follows from the seed.
fn any_manifest() -> impl Strategy<Value = Manifest> {
    any::<u64>().prop_map(|seed| manifest(&mut Chance(seed)))
}

fn manifest(chance: &mut Chance) -> Manifest {
    let segments: Vec<StoredSegment> = (0..1 + chance.below(3))
        .map(|number| StoredSegment { path: format!("segments/{number}").into(), bytes: 1000 + chance.below(1 << 40) })
        .collect();
    let operators = (0..chance.below(4)).map(|number| StoredOperator {
        id: OperatorId(chance.next() << 2 | number),
        name: format!("operator {number}"),
        max_parallelism: 128,
        subtasks: subtasks(&segments, chance),
    });
    let content = CheckpointContent {
        operators: operators.collect(),
        checkpoint: chance.below(100),
        timestamp_millis: chance.next() as i64,
        kind: if chance.one_in(2) { CheckpointKind::Savepoint } else { CheckpointKind::Checkpoint },
        is_final: chance.one_in(2),
        job: "insert into sink: 'ü'".to_owned(),
        source_positions: vec![("orders".to_owned(), "line 17".to_owned()); chance.below(3) as usize],
        took_millis: chance.next(),
        new_bytes: chance.next(),
        segments,
    };
    Manifest { number: chance.next(), generation: chance.next(), nonce: chance.next(), content }
}

fn subtasks(segments: &[StoredSegment], chance: &mut Chance) -> Vec<StoredSubtask> {
    let kinds = [StateKind::Keyed, StateKind::List, StateKind::UnionList, StateKind::Broadcast];
    let forms: Vec<StateDescriptor> =
        (0..4).map(|place| descriptor(&format!("s{place}"), kinds[place], &[chance.below(9), 1])).collect();
    let subtask = |index| {
        let states = forms.iter().filter(|_| !chance.one_in(3)).cloned().collect::<Vec<_>>();
        let states = states
            .into_iter()
            .map(|descriptor| StoredState { layers: layers(&descriptor, segments, chance), descriptor });
        StoredSubtask { index, states: states.collect() }
    };
    (0..3).map(subtask).collect()
}

fn layers(descriptor: &StateDescriptor, segments: &[StoredSegment], chance: &mut Chance) -> Vec<StoredLayer> {
    let is_keyed = descriptor.kind == StateKind::Keyed;
    let mut layer = |_| {
        let mut group = 0;
        let chunk = |chance: &mut Chance, group: &mut u32| {
            let first = *group + chance.below(10) as u32;
            *group = first + chance.below(10) as u32;
            let (offset, length, rows) = (chance.below(500), 1 + chance.below(500), 1 + chance.below(70_000));
            StoredChunk { offset, length, rows, checksum: chance.next(), groups: is_keyed.then_some((first, *group)) }
        };
        let chunks: Vec<_> = (0..chance.below(4)).map(|_| chunk(chance, &mut group)).collect();
        let segment = match chunks.is_empty() {
            true => "".into(),
            false => segments[chance.below(segments.len() as u64) as usize].path.clone(),
        };
        let extents = [Extent::Whole, Extent::Changed, Extent::Removed];
        let extent = if is_keyed { extents[chance.below(3) as usize] } else { Extent::Whole };
        let kinds: &[u64] = if extent == Extent::Removed { &[0] } else { &[0, 1] };
        let schema =
            if is_keyed { super::descriptor("", StateKind::Keyed, kinds).schema } else { descriptor.schema.clone() };
        StoredLayer { extent, schema, segment, chunks }
    };
    (0..3).map(&mut layer).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_manifest_comes_back(manifest in any_manifest()) {
        let bytes = encode(&manifest).unwrap();
        prop_assert_eq!(&bytes, &encode(&manifest).unwrap());
        prop_assert_eq!(decode(&bytes).unwrap(), manifest);
    }

    #[test]
    fn a_flipped_bit_or_a_missing_end_is_found(manifest in any_manifest(), place in any::<prop::sample::Index>()) {
        let bytes = encode(&manifest).unwrap();
        let bit = place.index(bytes.len() * 8);
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decode(&flipped).unwrap_err().kind(), ErrorKind::Corrupt);
        prop_assert_eq!(decode(&bytes[..bit / 8]).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        let mut sealed = bytes;
        seal(&mut sealed, FORMAT_VERSION);
        prop_assert_eq!(decode(&sealed).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    /// Behind a checksum that is right lies what a release with a bug or a forger has written: what passes holds what it must.
    #[test]
    fn forged_bytes_never_panic(manifest in any_manifest(),
                                changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut bytes = encode(&manifest).unwrap();
        bytes.truncate(bytes.len() - 16);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        seal(&mut bytes, FORMAT_VERSION);
        match decode(&bytes) {
            Ok(forged) => prop_assert_eq!(decode(&encode(&forged).unwrap()).unwrap(), forged),
            Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Request), "{:?}", error),
        }
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = b"what nobody knows yet".to_vec();
    seal(&mut bytes, 7);
    let error = decode(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    expect_test::expect![
        "a manifest of format version 7; this release reads up to 1; upgrade tidemill to a release that reads it"
    ]
    .assert_eq(&error.to_string());
}

/// A manifest as a release has written it that places keys by another version of their hash.
fn of_hash_version(manifest: &Manifest, version: u32) -> Vec<u8> {
    let mut bytes = encode(manifest).unwrap();
    bytes.truncate(bytes.len() - 16);
    let table = fb::root_as_manifest(&bytes).unwrap()._tab;
    let offset = table.vtable().get(fb::Manifest::VT_HASH_VERSION);
    assert!(offset > 0, "the version is stored");
    let place = table.loc() + usize::from(offset);
    bytes[place..place + 4].copy_from_slice(&version.to_le_bytes());
    seal(&mut bytes, FORMAT_VERSION);
    bytes
}

/// Its keys would be looked for in other key groups than those under which they stand.
#[test]
fn another_version_of_the_hash_of_keys_is_told_from_damage() {
    let manifest = manifest(&mut Chance(5));
    assert_eq!(decode(&of_hash_version(&manifest, HASH_VERSION)).unwrap(), manifest);
    for version in [0, HASH_VERSION + 1, 7, u32::MAX] {
        let error = decode(&of_hash_version(&manifest, version)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        let versions = format!("key hash version {version}; this release places keys by {HASH_VERSION}");
        assert_eq!(error.to_string(), format!("a manifest of {versions}; use a release that knows it"));
    }
}

/// A job that goes on from such a checkpoint hears of both versions, of the file, and of the good one before it.
#[test]
fn checkpoints_with_another_hash_of_keys_are_not_gone_on_from() {
    run(async {
        let store = memory();
        let mut writer = open(&store).await.unwrap().take_over(1).await.unwrap();
        for number in [1, 2] {
            let path = writer.segment_path(number, 0);
            let content = checkpoint(&store, path, number, Vec::new(), Vec::new()).await;
            writer.publish(content).await.unwrap();
        }
        let other = of_hash_version(writer.newest(), HASH_VERSION + 1);
        overwrite(&*store, &Path::from("jobs/one/manifests/00000000000000000003"), |bytes| *bytes = other).await;
        let error = open(&store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        expect_test::expect!["manifest 'jobs/one/manifests/00000000000000000003': a manifest of key hash version 2; this release places keys by 1; the newest good one is checkpoint 1, manifest 'jobs/one/manifests/00000000000000000002'; use a release that knows it"]
            .assert_eq(&error.to_string());
    });
}

#[test]
fn content_that_cannot_be_is_refused() {
    let good = loop_until_rich();
    let check = |change: &dyn Fn(&mut CheckpointContent), wanted: &str| {
        let mut manifest = good.clone();
        change(&mut manifest.content);
        let error = encode(&manifest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains(wanted), "{error} is not about: {wanted}");
    };
    check(&|content| content.segments.push(content.segments[0].clone()), "a file is listed twice");
    check(&|content| content.segments[0].path = "../x".into(), "no path below the root");
    check(&|content| content.segments.clear(), "is not listed");
    check(&|content| content.operators.push(content.operators[0].clone()), "is there twice");
    check(&|content| content.operators[0].max_parallelism = 0, "no key groups");
    check(&|content| content.operators[0].max_parallelism = 2, "3 subtasks of at most 2");
    check(&|content| content.operators[0].subtasks.swap(0, 1), "subtask 1 in place 0");
    let keyed = |content: &mut CheckpointContent, change: &dyn Fn(&mut StoredState)| {
        let states = content.operators[0].subtasks[0].states.iter_mut();
        change(states.into_iter().find(|state| state.descriptor.kind == StateKind::Keyed).unwrap())
    };
    let layer = |state: &mut StoredState, change: &dyn Fn(&mut StoredChunk)| {
        change(&mut state.layers.iter_mut().find(|layer| layer.chunks.len() > 1).unwrap().chunks[1])
    };
    check(&|content| keyed(content, &|state| layer(state, &|chunk| chunk.rows = 0)), "nothing is there");
    check(&|content| keyed(content, &|state| layer(state, &|chunk| chunk.offset = u64::MAX)), "the file has");
    check(&|content| keyed(content, &|state| layer(state, &|chunk| chunk.groups = None)), "key groups None");
    check(&|content| keyed(content, &|state| layer(state, &|chunk| chunk.groups = Some((5, 128)))), "of 128");
    check(
        &|content| keyed(content, &|state| layer(state, &|chunk| chunk.groups = Some((7, 6)))),
        "key groups Some((7, 6))",
    );
    check(&|content| keyed(content, &|state| state.descriptor.kind = StateKind::List), "");
}

/// One with a keyed state of several chunks in its first subtask.
fn loop_until_rich() -> Manifest {
    let is_rich = |manifest: &Manifest| {
        let states = manifest.content.operators.first().map(|operator| &operator.subtasks[0].states);
        states.into_iter().flatten().any(|state| {
            state.descriptor.kind == StateKind::Keyed && state.layers.iter().any(|layer| layer.chunks.len() > 1)
        })
    };
    (0..).map(|seed| manifest(&mut Chance(seed))).find(is_rich).unwrap()
}

/// What the fuzzer begins with has to be what the decoders take, or it learns nothing from it. `UPDATE_EXPECT=1` writes it anew.
#[test]
fn the_examples_of_the_fuzzer_are_manifests_and_chunks() {
    let seeds = std::path::Path::new("../fuzz/seeds");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        write_examples(seeds);
    }
    let files = |target: &str| {
        let entries = std::fs::read_dir(seeds.join(target)).unwrap();
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    let (manifests, chunks) = (files("manifest"), files("segment"));
    assert_eq!((manifests.len(), chunks.len()), (6, 9));
    for mut bytes in manifests {
        seal(&mut bytes, FORMAT_VERSION);
        decode(&bytes).unwrap();
    }
    for bytes in chunks {
        assert!(!crate::checkpoint::codec::decode(&bytes).unwrap().1.is_empty());
    }
}

/// Arrow reads it and writes none, so that a manifest would not come back as it was.
#[test]
fn a_time_zone_without_a_name_is_refused() {
    let mut bytes = std::fs::read("../fuzz/found/manifest/nameless-zone").unwrap();
    seal(&mut bytes, FORMAT_VERSION);
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("a time zone without a name"), "{error}");
}

fn write_examples(seeds: &std::path::Path) {
    for target in ["manifest", "segment"] {
        std::fs::create_dir_all(seeds.join(target)).unwrap();
    }
    let small = (0..).map(|seed| encode(&manifest(&mut Chance(seed))).unwrap()).filter(|bytes| bytes.len() < 6000);
    for (number, bytes) in small.take(6).enumerate() {
        // Without its trailer, which the target puts on again behind every change.
        std::fs::write(seeds.join(format!("manifest/{number}")), &bytes[..bytes.len() - 16]).unwrap();
    }
    for kind in 0..9 {
        let descriptor = descriptor("state", StateKind::Keyed, &[kind]);
        let rows = rows(&descriptor, &[kind], 3, 0..8, &mut Chance(kind));
        let bytes = crate::checkpoint::codec::encode(&descriptor.schema, &rows).unwrap();
        std::fs::write(seeds.join(format!("segment/{kind}")), bytes).unwrap();
    }
}
