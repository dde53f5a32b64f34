#!/usr/bin/env bash
# Builds tidemill and runs its first job: every flight out of New York in 2013, as a stream.
#
# usage: scripts/quickstart.sh [-h | --help]
#
# Installs what is missing, builds once into the cache, fetches the data once. A second run starts at once.

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

case ${1:-} in
  '') ;;
  -h | --help) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac

need_build_tools
need_rust
start=$SECONDS
cargo build --release --locked -p tidemill --bin tidemill --example flights
say "built in $((SECONDS - start)) s"

start=$SECONDS
need_python_packages
"$venv/bin/python" scripts/flights.py "$data/flights"
say "data ready in $((SECONDS - start)) s: $data/flights"

start=$SECONDS
"$CARGO_TARGET_DIR/release/examples/flights" "$data/flights"
say "ran in $((SECONDS - start)) s"
say "go on with: $CARGO_TARGET_DIR/release/tidemill --help"
