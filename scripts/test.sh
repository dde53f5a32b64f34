#!/usr/bin/env bash
# Installs what is missing and runs every check and test; the last line is "N passed, N failed".
#
# usage: scripts/test.sh [--quick | --full] [--seeds N] [-h | --help]
#
#   --quick   formatting, Rust tests and tidiness only
#   --full    also what takes long: whole grids of settings, long simulations (TIDEMILL_TEST_FULL=1), long fuzzing
#   --seeds   how many worlds the simulation runs instead of 200; it prints the seeds that fail, and
#             "TIDEMILL_SEEDS=SEED cargo test --release -p tidemill-exec --test simulation" runs one of them again
#
# All steps run even after one has failed. They share one cargo profile (release), so that dependencies compile once.

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

quick=
# For each target.
fuzz_seconds=30
while (($#)); do
  case $1 in
    --quick) quick=yes; shift ;;
    --full) export TIDEMILL_TEST_FULL=1; fuzz_seconds=600; shift ;;
    --seeds) export TIDEMILL_SEEDS=0..${2:?how many seeds}; shift 2 ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done

scratch=$(mktemp -d)
failed=()

# step NAME COMMAND…: runs one step, times it and remembers whether it failed.
step() {
  local name=$1 start=$SECONDS outcome=ok
  shift
  echo "== $name"
  "$@" 2>&1 | tee -a "$scratch/log" || { outcome=FAILED && failed+=("$name"); }
  echo "== $name: $outcome, $((SECONDS - start)) s"
}

# Sums the closing lines of cargo's test runner and of pytest; an error of pytest's (a test it could not set up) is a failure.
tally() {
  awk '
    /^test result: / || /^=* ?[0-9]+ (passed|failed|errors?|skipped|deselected|warnings?).* in [0-9.]+s/ {
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) passed += $(i - 1)
        if ($i ~ /^(failed|errors?)[;,]?$/) failed += $(i - 1)
      }
    }
    END { printf "%d passed, %d failed\n", passed, failed }
  ' "$scratch/log"
}

finish() {
  ((${#failed[@]} == 0)) || printf 'failed: %s\n' "${failed[@]}"
  tally
  rm -rf "$scratch"
}

# The wheel as a user gets it, installed where nothing else sees it.
wheel() {
  "$venv/bin/maturin" build --release --locked --manifest-path python/Cargo.toml --out "$scratch" \
    --interpreter "$venv/bin/python" &&
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$scratch/site" \
      "$scratch"/tidemill-*.whl &&
    PYTHONPATH=$scratch/site "$venv/bin/python" -m pytest -q -p no:cacheprovider python/tests
}

need_build_tools
need_rust
touch "$scratch/log"

step "cargo fmt" cargo fmt --all --check
if [[ ! $quick ]]; then
  step "cargo clippy" cargo clippy --release --workspace --all-targets --locked -- -D warnings
fi
# Before the tests: they write their TPC-H tables with one of these.
step "python packages" need_python_packages
# Those that tests start: they fail where one is missing.
step "servers" bash scripts/servers.sh
step "cargo test" cargo test --release --workspace --locked --no-fail-fast
if [[ ! $quick ]]; then
  step "cargo doc" env RUSTDOCFLAGS=-Dwarnings cargo doc --release --workspace --no-deps --locked
  step "python wheel" wheel
  step "fuzz" bash scripts/fuzz.sh "$fuzz_seconds"
fi
step "tidy" bash scripts/tidy.sh

finish
((${#failed[@]} == 0))
