#!/usr/bin/env bash
# How far results on made loads depend on the seed: five of each kind, mean and range, as a table.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = -h ] || [ "${1:-}" = --help ] && {
  echo "usage: benches/synth-spread.sh [SEEDS]   writes the table of seeds in docs/tiering.md; 5 seeds if not given"
  exit 0; }
. benches/page.sh
seeds=${1:-5} page=docs/tiering.md
work=$(mktemp -d); trap 'rm -rf "$work" "$page.new"' EXIT
cargo build -q --release -p trace-replay
tool=target/release/trace-replay
for seed in $(seq "$seeds"); do
  make() { "$tool" synth --seed "$seed" -o "$work/$1-$seed.csv" "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }
  make elasticsearch-load --bytes 64MB
  make iot-ingest --bytes 256MB
  make image-dataset --bytes 256MB
  make scan
  make zipf --accesses 20000
done
for trace in "$work"/*.csv; do
  "$tool" simulate "$trace" --policy none,lru-2nd,s3-fifo,recency,cost-benefit --cache-size 5%,25% --bounds-up-to 0 \
    --json > "${trace%.csv}.json"
done
python3 - "$work" > "$work/table" <<'PYTHON'
import collections, json, pathlib, sys
found = collections.defaultdict(list)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    cases = collections.defaultdict(dict)
    for row in json.loads(path.read_text()):
        cases[row["cache_bytes"]][row["policy"]] = row
    for share, (_, rows) in zip((5, 25), sorted(cases.items())):
        for other in ("recency", "lru-2nd", "s3-fifo"):
            pair = rows["cost-benefit"], rows[other]
            for what in ("hdd_busy_s", "mean_ms"):
                ours, theirs = (row[what] for row in pair)
                # A load that ends before anything is due needs no disk time under either.
                ratio = ours / theirs if theirs else 1.0 if not ours else float("inf")
                found[path.stem.rsplit("-", 1)[0], share, other, what].append(ratio)
print("| load | cache | against | disk time | mean response |")
print("| --- | --- | --- | --- | --- |")
def told(values):
    return f"{sum(values) / len(values):.3f} ({min(values):.2f} to {max(values):.2f})"
for (load, share, other, what), values in found.items():
    if what == "hdd_busy_s":
        print(f"| `{load}` | {share} % | `{other}` | {told(values)} | {told(found[load, share, other, 'mean_ms'])} |")
PYTHON
put "$page" "$work/table" '<!-- seeds: benches/synth-spread.sh -->' '<!-- end of seeds -->'
