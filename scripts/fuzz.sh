#!/usr/bin/env bash
# Feeds the decoders of stored bytes with what a fuzzer makes up.
#
# usage: scripts/fuzz.sh SECONDS [-h | --help]
#
# Every target of fuzz/ runs for so long. Needs a nightly compiler and the subcommand `cargo fuzz`, which is installed if it is
# missing. What was found interesting is kept in the cache, so that the next run begins there; an input that breaks something is
# kept in fuzz/artifacts/ and makes the script fail.

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

case ${1:-} in
  -h | --help) usage; exit ;;
  '' | *[!0-9]*) usage >&2; exit 2 ;;
esac
(($# == 1)) || { usage >&2; exit 2; }
seconds=$1

PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export RUSTUP_TOOLCHAIN=nightly
# Its own: other flags would make everybody else compile anew.
export CARGO_TARGET_DIR=$cache/target-fuzz
# In place of the flags in .cargo/, which the fuzzer's own would hide.
export RUSTFLAGS='--cfg tokio_unstable'
rustc --version >/dev/null 2>&1 || stop "missing a nightly Rust; to install: rustup toolchain install nightly --profile minimal"
cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz >&2

cp Cargo.lock fuzz/Cargo.lock
broken=()
for target in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$target" .rs)
  corpus=$cache/fuzz/$target
  mkdir -p "$corpus"
  say "fuzzing $target for $seconds s"
  # Real examples to begin with, and what was found before.
  known=()
  for folder in fuzz/seeds/$target fuzz/found/$target; do
    [[ ! -d $folder ]] || known+=("$folder")
  done
  cargo fuzz run --fuzz-dir fuzz "$target" "$corpus" "${known[@]}" -- \
    -max_total_time="$seconds" -rss_limit_mb=4096 -max_len=16384 -print_final_stats=1 || broken+=("$target")
done
((${#broken[@]} == 0)) || stop "fuzz: ${broken[*]}: broken by an input, which is in fuzz/artifacts/"
say "fuzz: nothing found"
