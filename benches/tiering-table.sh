#!/usr/bin/env bash
# Writes the table of docs/tiering.md between its two markers, by simulating every bundled trace.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = -h ] || [ "${1:-}" = --help ] && {
  echo "usage: benches/tiering-table.sh [--parameters | TRACE...]   rewrites parameters and numbers in docs/tiering.md"
  exit 0; }
. benches/page.sh
page=docs/tiering.md
table=$(mktemp); trap 'rm -f "$table" "$page.new"' EXIT

cargo run -q --release -p trace-replay -- policies > "$table"
put "$page" "$table" '<!-- parameters: trace-replay policies -->' '<!-- end of parameters -->'
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
put "$page" "$table" '<!-- numbers: benches/tiering-table.sh -->' '<!-- end of numbers -->'
