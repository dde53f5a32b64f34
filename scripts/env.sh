# Sourced by the other scripts: strict mode, where things are kept, and what fetches what is missing.
#
# Everything lives in one cache outside the checkout, so that a second clone starts where the first one stopped:
#   target/ cargo's output   venv/ the pinned Python packages   data/ inputs of the examples and benchmarks
#   servers/ those that tests start
# Nothing but PATH and HOME is asked of the environment.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}
data=$cache/data
venv=$cache/venv
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
cd "$root"
# What `tidemill --version` tells. From here and not from a build script, whose every new answer would compile the library too.
TIDEMILL_COMMIT=${TIDEMILL_COMMIT:-$(git rev-parse --short=12 HEAD 2>/dev/null || true)}
export TIDEMILL_COMMIT

say() { printf '%s\n' "$*" >&2; }

stop() {
  say "$(basename "$0"): $*"
  exit 1
}

# The comment at the head of a script is its help text.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# Installs Debian packages, or says which command does and stops.
need_debian() {
  local sudo=()
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || stop "missing $*; to install: sudo apt-get install -y $*"
    sudo=(sudo -n)
  fi
  command -v apt-get >/dev/null || stop "missing $* (so named on Debian); install what holds them here"
  say "installing $*"
  "${sudo[@]}" apt-get update -qq >&2
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# What the build calls besides Rust. A tool counts as there when it answers, whoever installed it.
need_build_tools() {
  local missing=()
  command -v git >/dev/null || missing+=(git)
  command -v c++ >/dev/null || missing+=(build-essential)
  command -v mold >/dev/null || missing+=(mold)
  command -v pkg-config >/dev/null || missing+=(pkg-config)
  # RocksDB: its bindings are made from its headers, by libclang.
  # Not libclang-cpp, which may be there alone.
  compgen -G "/usr/lib/llvm-*/lib/libclang[.-][s0-9]*" >/dev/null || missing+=(libclang-dev)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
  ((${#missing[@]} == 0)) || need_debian "${missing[@]}"
}

# The toolchain that rust-toolchain.toml pins, or any installed one of the same version.
need_rust() {
  local pinned toolchain
  pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
  PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  if ! command -v rustup >/dev/null; then
    [[ $(rustc --version 2>/dev/null) == "rustc $pinned "* ]] && command -v cargo >/dev/null && return
    stop "missing Rust $pinned; to install: curl -sSf https://sh.rustup.rs | sh -s -- -y --default-toolchain $pinned"
  fi
  for toolchain in "$pinned" $(rustup toolchain list | awk '{ print $1 }'); do
    if [[ $(rustup run "$toolchain" rustc --version 2>/dev/null) == "rustc $pinned "* ]]; then
      export RUSTUP_TOOLCHAIN=$toolchain
      return
    fi
  done
  say "installing Rust $pinned"
  rustup toolchain install "$pinned" --profile minimal --component rustfmt,clippy >&2 ||
    stop "missing Rust $pinned; to install: rustup toolchain install $pinned --component rustfmt,clippy"
}

# The packages of requirements.txt in a virtual environment, anew when that list changes. The list names every package it
# needs, and pip resolves nothing, so that no release of someone else's changes what we test.
need_python_packages() {
  local list=scripts/requirements.txt sum
  sum=$(cksum <"$list")
  [[ -f $venv/installed && $(<"$venv/installed") == "$sum" ]] && "$venv/bin/python" -c '' 2>/dev/null && return
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || stop "python3 is $(python3 --version), needed is 3.10"
  say "installing Python packages into $venv"
  python3 -m venv "$venv" &&
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$list" >&2 &&
    printf '%s\n' "$sum" >"$venv/installed"
}

# server NAME COMMAND…: a folder of the cache that COMMAND fills when it is not there; it is there whole or not at all.
server() {
  local place=$cache/servers/$1 fresh
  shift
  [[ -d $place ]] && return
  say "fetching $(basename "$place") into $place"
  mkdir -p "$(dirname "$place")"
  fresh=$(mktemp -d "$place.XXXXXX")
  "$@" "$fresh" || { rm -rf "$fresh"; stop "$(basename "$place") cannot be fetched"; }
  # Another clone may have come first.
  mv -T "$fresh" "$place" 2>/dev/null || rm -rf "$fresh"
}

# An S3 server whose objects are plain files, and which keeps conditional puts under races.
need_versitygw() {
  server versitygw-1.8.0 build_versitygw
}

build_versitygw() {
  command -v go >/dev/null || stop "missing Go, which builds versitygw; to install: see go.dev/doc/install"
  GOBIN=$1 go install -ldflags "-s -w" github.com/versity/versitygw/cmd/versitygw@v1.8.0 >&2
}

# The NameNode and the DataNode. The newest release is not always complete where Maven looks, so the version is pinned.
need_hdfs() {
  command -v java >/dev/null || need_debian openjdk-17-jre-headless
  server hdfs-3.4.2 fetch_hadoop
}

fetch_hadoop() {
  command -v mvn >/dev/null || need_debian maven
  local artifact
  {
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>tidemill</groupId><artifactId>hdfs</artifactId><version>1</version>'
    echo '<dependencies>'
    for artifact in hadoop-hdfs hadoop-hdfs-client hadoop-common; do
      echo "<dependency><groupId>org.apache.hadoop</groupId><artifactId>$artifact</artifactId><version>3.4.2</version></dependency>"
    done
    echo '</dependencies></project>'
  } >"$1/pom.xml"
  mvn -B -q -f "$1/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$1/lib" -DincludeScope=runtime >&2
}
