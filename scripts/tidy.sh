#!/usr/bin/env bash
# Finds what lints cannot see: leftovers, names of machines, files without a story, a tree that is not the architecture.
#
# usage: scripts/tidy.sh
#
# Prints "tidy: N files, ok", or one line per offence and why it is one. Patterns are spelled so that they do not match
# themselves ([M] for M).

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

lines_max=600

# Tracked files and those about to be.
mapfile -t files < <(git ls-files --cached --others --exclude-standard --deduplicate | while read -r file; do
  [[ -f $file ]] && echo "$file"
done)
mapfile -t sources < <(printf '%s\n' "${files[@]}" | grep '\.rs$')
mapfile -t manifests < <(printf '%s\n' "${files[@]}" | grep 'Cargo\.toml$')

# never WHY PATTERN FILE…: every line that matches is an offence.
never() {
  local why=$1 pattern=$2
  shift 2
  grep -HnIE -- "$pattern" "$@" /dev/null | cut -c1-200 | sed "s|\$|  <- $why|" || true
}

no_leftovers() {
  never 'finish it or drop it' '\b(FIX[M]E|TO[D]O|XX[X])\b|\b(to[d]o|unimplemente[d]|db[g])!' "${files[@]}"
}

no_machines() {
  never 'a path of one machine' "(^|[^[:alnum:]_.}-])/(roo[t]|wor[k]|hom[e]|User[s])/" "${files[@]}"
  never 'the host of a package registry' \
    '(crates|npmjs|pypi|pythonhosted|debian|maven|golang)[.](io|org|com)\b' "${files[@]}" |
    grep -v '^Cargo\.lock:[0-9]*:source = "registry+' || true
}

rust_files() {
  local file
  for file in "${sources[@]}"; do
    [[ $(head -c 3 "$file") == '//!' ]] || echo "$file:1:  <- opens with //! and says what it is"
    [[ $file != */generated.rs ]] || continue
    (($(wc -l <"$file") <= lines_max)) || echo "$file:$(wc -l <"$file"):  <- longer than $lines_max lines; one idea per file"
  done
}

# Every folder of the top level stands in ARCHITECTURE.md.
map_is_whole() {
  local folder
  for folder in $(printf '%s\n' "${files[@]}" | sed -n 's|/.*|/|p' | sort -u); do
    grep -qsF "$folder" ARCHITECTURE.md || echo "$folder  <- not in ARCHITECTURE.md"
  done
}

# core <- exec, core <- connectors, all three <- root, root <- python, and nothing else; core knows no async runtime.
edges_go_one_way() {
  local edge
  for edge in $(awk '
    FNR == 1 { dependencies = 0; crate = FILENAME; sub(/\/?Cargo\.toml$/, "", crate) }
    /^\[/ { dependencies = /^\[(target.*\.)?dependencies/ }
    dependencies && (/^tidemill/ || crate == "core" && /^tokio/) { sub(/[. =].*/, ""); print crate ":" $0 }
  ' "${manifests[@]}"); do
    case $edge in
      :* | exec:tidemill-core | connectors:tidemill-core | python:tidemill) ;;
      benches*:* | fuzz*:*) ;; # above everything
      *) echo "${edge%:*}/Cargo.toml: ${edge#*:}  <- not an edge of ARCHITECTURE.md" ;;
    esac
  done
}

# A dependency whose features differ between the binary, the wheel and the tests is compiled once for each, with all that is
# built on it: DataFusion costs minutes. Mend it by asking for the missing features in the root manifest.
world_compiles_once() {
  local tree=(cargo tree --locked --prefix none --format '{p} {f}')
  local tests package
  tests=$("${tree[@]}" --workspace | sed 's/ (\*)$//' | sort -u)
  for package in tidemill tidemill-python; do
    "${tree[@]}" -p "$package" --edges no-dev | sed 's/ (\*)$//' | sort -u | comm -23 - <(echo "$tests") |
      sed "s|\$|  <- features in '$package' differ from those in the tests|"
  done
}

need_rust
offences=$(no_leftovers && no_machines && rust_files && map_is_whole && edges_go_one_way && world_compiles_once)
[[ -z $offences ]] || stop $'offences\n'"$offences"
echo "tidy: ${#files[@]} files, ok"
