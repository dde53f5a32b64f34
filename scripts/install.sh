#!/usr/bin/env bash
# Builds tidemill and puts the binary into PREFIX/bin.
#
# usage: scripts/install.sh [--prefix PREFIX] [-h | --help]
#
#   --prefix PREFIX   where to install (default: ~/.local)

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

prefix=$HOME/.local
while (($#)); do
  case $1 in
    --prefix) prefix=${2:?--prefix needs a folder}; shift 2 ;;
    --prefix=?*) prefix=${1#*=}; shift ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done

need_build_tools
need_rust
cargo build --release --locked -p tidemill --bin tidemill

# Copied beside its place and renamed: a tidemill that runs keeps its file, and no one meets half a binary.
mkdir -p "$prefix/bin"
bin=$(cd "$prefix/bin" && pwd)
install -m 755 "$CARGO_TARGET_DIR/release/tidemill" "$bin/.tidemill.$$"
mv -f "$bin/.tidemill.$$" "$bin/tidemill"

case :$PATH: in
  *:"$bin":*) say "installed $bin/tidemill, which is on the PATH" ;;
  *) say "installed $bin/tidemill; to call it by name: export PATH=\"$bin:\$PATH\"" ;;
esac
