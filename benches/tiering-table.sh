#!/usr/bin/env bash
# Writes the table of docs/tiering.md between its two markers, by simulating every bundled trace.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = -h ] || [ "${1:-}" = --help ] && {
  echo "usage: benches/tiering-table.sh [TRACE...]   rewrites the numbers in docs/tiering.md"; exit 0; }
page=docs/tiering.md
begin='<!-- numbers: benches/tiering-table.sh -->' end='<!-- end of numbers -->'
grep -qxF "$begin" "$page" && grep -qxF "$end" "$page" || { echo "$page: markers are missing" >&2; exit 1; }
traces=("$@"); [ $# -gt 0 ] || traces=(fixtures/es/*.csv.xz)
policies=none,lru,fifo,lfu,arc,lirs,2q,s3-fifo,sieve,w-tinylfu,gdsf,lru-2nd,recency,cost-benefit
table=$(mktemp); trap 'rm -f "$table"' EXIT
for trace in "${traces[@]}"; do
  printf '\n```\n'
  cargo run -q -p trace-replay -- simulate "$trace" --policy "$policies" --cache-size 1%,5%,10%,25%
  printf '```\n'
done > "$table"
awk -v begin="$begin" -v end="$end" -v table="$table" '
  $0 == end { skip = 0 }
  !skip { print }
  $0 == begin { while ((getline line < table) > 0) print line; print ""; skip = 1 }
' "$page" > "$page.new"
mv "$page.new" "$page"
