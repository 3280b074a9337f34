#!/bin/bash
# How well `synth elasticsearch-load` fits recorded nodes: a Markdown table, the generated load beside the recorded one.
#
# benches/synth-fit.sh [SIZE=TRACE ...]      SIZE as for `--bytes`; default: 256MB=fixtures/es/local_256.csv.xz
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit ;; esac
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 256MB=fixtures/es/local_256.csv.xz
cargo build --quiet --release -p trace-replay
tool=${CARGO_TARGET_DIR:-target}/release/trace-replay
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for pair in "$@"; do
    size=${pair%%=*} trace=${pair#*=}
    "$tool" synth elasticsearch-load --bytes "$size" -o "$dir/made.csv" 2>/dev/null
    "$tool" info --json "$dir/made.csv" >"$dir/made.json"
    "$tool" info --json "$trace" >"$dir/recorded.json"
    python3 - "$size" "$dir/made.json" "$dir/recorded.json" <<'PY'
import json, sys
size, made, recorded = sys.argv[1], *(json.load(open(p)) for p in sys.argv[2:])
print(f"\n| {size} of images | synth | recorded | ratio |\n|---|---|---|---|")
def row(name, get, show):
    a, b = get(made), get(recorded)
    print(f"| {name} | {show(a)} | {show(b)} | {a / b if b else float('nan'):.2f} |")
count, mib, share = (lambda v: f"{v}"), (lambda v: f"{v / 2**20:.0f} MiB"), (lambda v: f"{v * 100:.1f} %")
row("entries", lambda i: i["entries"], count)
row("duration", lambda i: i["duration_us"], lambda v: f"{v / 1e6:.0f} s")
row("bytes read", lambda i: i["read_bytes"], mib)
row("bytes written", lambda i: i["written_bytes"], mib)
row("working set", lambda i: i["working_set_bytes"], mib)
row("written bytes gone by the end", lambda i: i["lifetimes"]["died_bytes_share"], share)
row("files made", lambda i: i["lifetimes"]["born"], count)
row("reads of a piece read before", lambda i: i["reread_share"], share)
row("reads of a piece written here", lambda i: i["read_after_write_share"], share)
for q, name in enumerate(("p50", "p90")):
    row(f"read size, {name}", lambda i: i["read_size_bytes"][q], lambda v: f"{v} B")
    row(f"write size, {name}", lambda i: i["write_size_bytes"][q], lambda v: f"{v} B")
for op in ("create", "open", "read", "write", "fsync", "rename", "unlink", "stat"):
    row(op, lambda i: i["operations"].get(op, {}).get("count", 0), count)
PY
done
