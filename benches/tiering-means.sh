#!/usr/bin/env bash
# Geometric means over the bundled traces at four sizes, `cost-benefit` times the others: as recorded, scaled until the
# disk without a cache is 70 % busy, and with parts taken away. The numbers under "What holds today" in docs/tiering.md;
# the table of cases there is written.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = -h ] || [ "${1:-}" = --help ] && {
  echo "usage: benches/tiering-means.sh [TRACE...]   prints the means, and for the bundled traces, which are taken if none"
  echo "                                             is given, writes the table of cases in docs/tiering.md"
  exit 0; }
. benches/page.sh
page=docs/tiering.md
cases=$(mktemp); trap 'rm -f "$cases" "$page.new"' EXIT
cargo build -q --release -p trace-replay
bundled=false
[ $# -gt 0 ] || { bundled=true; set -- fixtures/es/*.csv.xz; }
python3 - "${CARGO_TARGET_DIR:-target}/release/trace-replay" "$cases" "$@" <<'PYTHON'
import collections, json, math, subprocess, sys
tool, cases_path, traces = sys.argv[1], sys.argv[2], sys.argv[3:]
OTHERS = "none lru fifo lfu arc lirs 2q s3-fifo sieve w-tinylfu gdsf lru-2nd recency".split()
OURS = {
    "as it is": "cost-benefit",
    "queue_ms=1000000, busy_weight=0": "cost-benefit:queue_ms=1000000:busy_weight=0",
    "write_share=1": "cost-benefit:write_share=1",
    "own_weight=0": "cost-benefit:own_weight=0",
    "own_weight=1000000": "cost-benefit:own_weight=1000000",
    "evict_from=1": "cost-benefit:evict_from=1",
}
WHAT = {"disk time": "hdd_busy_s", "mean": "mean_ms", "p99": "p99_ms"}
SSD = "ssd_written_bytes"

SIZES = (1, 5, 10, 25)
GOAL = 0.85

def simulate(trace, policies, speed, sizes=",".join(f"{s}%" for s in SIZES), bounds_up_to=0):
    command = [tool, "simulate", trace, "--policy", ",".join(policies), "--cache-size", sizes, "--speed", str(speed),
               "--bounds-up-to", str(bounds_up_to), "--json"]
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

def case_lines(load, trace, speed):
    """Against the goals, case by case, with what a clairvoyant's plan and the bound reach of them."""
    cases = collections.defaultdict(dict)
    for row in simulate(trace, OTHERS + ["cost-benefit"], speed, bounds_up_to=2_000_000):
        cases[row["cache_bytes"]][row["policy"]] = row
    for size, (_, rows) in zip(SIZES, sorted(cases.items())):
        own, recency = rows["cost-benefit"], rows["recency"]["hdd_busy_vs_none"]
        plan, bound = own["clairvoyant_vs_none"], own["bound_vs_none"]
        def best(key):
            least, name = min((rows[other][key], other) for other in OTHERS if other != "none")
            return f"{own[key] / least:.3f} `{name}`"
        ratio = own["hdd_busy_vs_none"] / recency
        reach = ("met" if ratio <= GOAL else "no policy can" if bound / recency > GOAL
                 else "not by the plan" if plan / recency > GOAL else "open")
        ssd = max(own[SSD], 2**20) / max(rows["lru-2nd"][SSD], 2**20)
        name = trace.rsplit("/", 1)[-1].removesuffix(".csv.xz")
        yield (f"| {load} | `{name}` | {size} % | {recency * 100:.1f} | {ratio:.3f} | {plan / recency:.3f} "
               f"| {bound / recency:.3f} | {reach} | {best('hdd_busy_s')} | {best('mean_ms')} | {best('p99_ms')} | {ssd:.2f} |")

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
speeds = {trace: scaled(trace) for trace in traces}
means("Scaled", speeds.get)
with open(cases_path, "w") as out:
    print("| load | trace | cache | `recency`, HDD % | `cost-benefit` | plan | bound | 0.85 | disk time, times the best other "
          "| mean | p99 | SSD, times `lru-2nd` |\n|" + " --- |" * 12, file=out)
    for load, speed_of in ("as recorded", lambda trace: 1.0), ("70 % busy", speeds.get):
        for trace in traces:
            print(*case_lines(load, trace, speed_of(trace)), sep="\n", file=out)
PYTHON
if $bundled; then put "$page" "$cases" '<!-- cases: benches/tiering-means.sh -->' '<!-- end of cases -->'; else cat "$cases"; fi
