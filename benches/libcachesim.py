#!/usr/bin/env python3
"""Requests per second of CPU time: this project's simulator beside libCacheSim's, in turns, on one trace.

libcachesim.py TRACE_REPLAY [REQUESTS] [ROUNDS]

The trace is made from a seed: Zipf (0.9) over a tenth as many objects as requests, in libCacheSim's own format. Both read
the file in what is measured. Wants the packages libcachesim and numpy.
"""

import importlib.metadata
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

import numpy

THEIRS = """
import resource, sys, libcachesim as l
reader = l.TraceReader(sys.argv[1], l.TraceType.ORACLE_GENERAL_TRACE, l.ReaderInitParam(ignore_obj_size=True))
make = dict(lru=l.LRU, fifo=l.FIFO, sieve=l.Sieve, lfu=l.LFU, arc=l.ARC, lirs=l.LIRS, gdsf=l.GDSF, wtinylfu=l.WTinyLFU,
            twoq=l.TwoQ, s3fifo=l.S3FIFO)[sys.argv[2]]
cache = make(cache_size=int(sys.argv[3]), hashpower=20)
cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
begin = cpu()
missed = cache.process_trace(reader)[0]
print(missed, cpu() - begin)
"""
POLICIES = ["lru", "s3-fifo", "fifo", "sieve", "2q", "arc", "lirs", "w-tinylfu"]
NAMES = {"s3-fifo": "s3fifo", "w-tinylfu": "wtinylfu", "2q": "twoq"}


def write_trace(path, requests, objects):
    rng = numpy.random.default_rng(1)
    weights = 1.0 / numpy.arange(1, objects + 1) ** 0.9
    shares = numpy.cumsum(weights) / weights.sum()
    fields = [("time", "<u4"), ("object", "<u8"), ("size", "<u4"), ("next", "<i8")]
    records = numpy.zeros(requests, dtype=numpy.dtype(fields))
    records["time"] = numpy.arange(requests) // 1000
    records["object"] = rng.permutation(objects)[numpy.searchsorted(shares, rng.random(requests))] + 1
    records["size"], records["next"] = 4096, -1
    records.tofile(path)


def theirs(path, policy, size):
    command = [sys.executable, "-c", THEIRS, path, NAMES.get(policy, policy), str(size)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(out[0]), float(out[1])


def ours(program, path, policy, size):
    command = [program, "simulate", path, "--format", "oracle-general", "--ignore-object-size", "--policy", policy,
               "--cache-objects", str(size), "--json"]
    cpu = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    begin = cpu()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out)[0]["miss_ratio"], cpu() - begin


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    requests = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    objects = requests // 10
    version = importlib.metadata.version("libcachesim")
    print(f"{requests} requests, {objects} objects, {rounds} rounds, libcachesim {version}\n")
    print("| policy | cache, objects | ours, M/s | theirs, M/s | ratio | misses, ours | theirs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/zipf.oracleGeneral"
        write_trace(path, requests, objects)
        for policy in POLICIES:
            for size in (objects // 100, objects // 10):
                own, other = [], []
                for _ in range(rounds):
                    own.append(ours(program, path, policy, size))
                    other.append(theirs(path, policy, size))
                rate = lambda runs: requests / statistics.median(seconds for _, seconds in runs) / 1e6
                print(f"| `{policy}` | {size} | {rate(own):.1f} | {rate(other):.1f} | {rate(own) / rate(other):.2f} "
                      f"| {own[0][0]:.4f} | {other[0][0]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
