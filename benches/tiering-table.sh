#!/usr/bin/env bash
# Writes the table of docs/tiering.md between its two markers, by simulating every bundled trace.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = -h ] || [ "${1:-}" = --help ] && {
  echo "usage: benches/tiering-table.sh [--parameters | TRACE...]   rewrites parameters and numbers in docs/tiering.md"
  exit 0; }
page=docs/tiering.md
table=$(mktemp); trap 'rm -f "$table" "$page.new"' EXIT

# Puts $table between two lines of the page.
put() {
  grep -qxF "$1" "$page" && grep -qxF "$2" "$page" || { echo "$page: no line \"$1\" or \"$2\"" >&2; exit 1; }
  awk -v begin="$1" -v end="$2" -v table="$table" '
    $0 == end { skip = 0 }
    !skip { print }
    $0 == begin { print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
  ' "$page" > "$page.new"
  mv "$page.new" "$page"
}

cargo run -q --release -p trace-replay -- policies > "$table"
put '<!-- parameters: trace-replay policies -->' '<!-- end of parameters -->'
[ "${1:-}" != --parameters ] || exit 0
traces=("$@"); [ $# -gt 0 ] || traces=(fixtures/es/*.csv.xz)
policies=none,lru,fifo,lfu,arc,lirs,2q,s3-fifo,sieve,w-tinylfu,gdsf,lru-2nd,recency,cost-benefit
first=true
for trace in "${traces[@]}"; do
  $first || echo; first=false
  echo '```'
  cargo run -q --release -p trace-replay -- simulate "$trace" --policy "$policies" --cache-size 1%,5%,10%,25%
  echo '```'
done > "$table"
put '<!-- numbers: benches/tiering-table.sh -->' '<!-- end of numbers -->'
