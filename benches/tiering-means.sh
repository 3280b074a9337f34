#!/usr/bin/env bash
# Geometric means over the bundled traces at four sizes, `cost-benefit` times the others: as recorded, scaled until the
# disk without a cache is 70 % busy, and with parts taken away. The numbers under "What holds today" in docs/tiering.md.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = -h ] || [ "${1:-}" = --help ] && {
  echo "usage: benches/tiering-means.sh [TRACE...]   prints the means; the bundled traces if none is given"
  exit 0; }
cargo build -q --release -p trace-replay
[ $# -gt 0 ] || set -- fixtures/es/*.csv.xz
python3 - "${CARGO_TARGET_DIR:-target}/release/trace-replay" "$@" <<'PYTHON'
import collections, json, math, subprocess, sys
tool, traces = sys.argv[1], sys.argv[2:]
OTHERS = "none lru fifo lfu arc lirs 2q s3-fifo sieve w-tinylfu gdsf lru-2nd recency".split()
OURS = {
    "as it is": "cost-benefit",
    "queue_ms=1000000, busy_weight=0": "cost-benefit:queue_ms=1000000:busy_weight=0",
    "write_share=0.65": "cost-benefit:write_share=0.65",
    "own_weight=0": "cost-benefit:own_weight=0",
    "own_weight=1000000": "cost-benefit:own_weight=1000000",
    "evict_from=1": "cost-benefit:evict_from=1",
}
WHAT = {"disk time": "hdd_busy_s", "mean": "mean_ms", "p99": "p99_ms"}
SSD = "ssd_written_bytes"

def simulate(trace, policies, speed, sizes="1%,5%,10%,25%"):
    command = [tool, "simulate", trace, "--policy", ",".join(policies), "--cache-size", sizes, "--speed", str(speed),
               "--bounds-up-to", "0", "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

def busy(trace, speed):
    return 1 - simulate(trace, ["none"], speed, "1%")[0]["hdd_idle"]

def scaled(trace):
    speed = 1.0
    for _ in range(20):
        share = busy(trace, speed)
        if abs(share - 0.70) < 0.005:
            break
        speed *= 0.70 / share
    print(f"# {trace}: speed {speed:.3g}, the disk without a cache {busy(trace, speed):.3f} busy")
    return speed

def told(ratios):
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"{mean:.3f} ({min(ratios):.2f} to {max(ratios):.2f})"

def means(title, speed_of):
    ratios, single = collections.defaultdict(list), []
    for trace in traces:
        cases = collections.defaultdict(dict)
        for row in simulate(trace, OTHERS + list(OURS.values()), speed_of(trace)):
            cases[row["cache_bytes"]][row["policy"]] = row
        for size, rows in sorted(cases.items()):
            pair = rows["cost-benefit"]["mean_ms"], rows["recency"]["mean_ms"]
            single.append((pair[0] / pair[1], f"{trace} with {size / 2**20:.0f} MiB"))
            for name, policy in OURS.items():
                # A policy that promotes nothing of a load that only reads writes next to nothing: its like count as one MiB.
                pair = [max(rows[p][SSD], 2**20) for p in (policy, "lru-2nd")]
                ratios[name, "lru-2nd", SSD].append(pair[0] / pair[1])
                for what, key in WHAT.items():
                    own = rows[policy][key]
                    ratios[name, "recency", what].append(own / rows["recency"][key])
                    best = min(rows[other][key] for other in OTHERS if other != "none")
                    ratios[name, "the best of the others in each case", what].append(own / best)
    print(f"\n{title}, {len(traces)} traces at 4 sizes\n\n| cost-benefit | against | disk time | mean response | p99 |")
    print("| --- | --- | --- | --- | --- |")
    for name in OURS:
        for other in ("recency", "the best of the others in each case"):
            cells = [told(ratios[name, other, what]) for what in WHAT]
            print(f"| {name} | {other} | {' | '.join(cells)} |")
    print("\nwritten to the SSD, times lru-2nd (less than a MiB counts as one): "
          + "; ".join(f"{name} {told(ratios[name, 'lru-2nd', SSD])}" for name in OURS))
    # One case may be most of a geometric mean.
    least, *rest = sorted(single)
    print(f"\nmean response against recency: least {least[0]:.3f} in {least[1]}; without it {told([r for r, _ in rest])}")
    met = [r <= 0.85 for r in ratios["as it is", "recency", "disk time"]]
    never = [r <= 1 for r in ratios["as it is", "the best of the others in each case", "disk time"]]
    print(f"at most 0.85 times recency's disk time: {sum(met)}; at most the best other's: {sum(never)}, of {len(met)}")

means("As recorded", lambda trace: 1.0)
means("Scaled", scaled)
PYTHON
