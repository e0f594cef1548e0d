#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares two outputs of Google Benchmark, made with repetitions, benchmark by benchmark.

depthkv_bench --benchmark_repetitions=12 --benchmark_enable_random_interleaving=true --benchmark_out=OLD.json
bench/compare.py OLD.json NEW.json

Of each benchmark: the median of both with the order statistics that hold it with at least 95 % confidence, and a verdict from these
intervals. FAST, SLOW: they are apart. SAME: they overlap, and both are narrow enough to have shown a change of the width asked for.
UNCLEAR: they overlap because they are wide; repeat more often, or on a quieter machine. Exit status 1 if anything is SLOW, 2 if the
files can't be compared.
"""
import argparse
import json
import math
import sys

FEWEST = 6  # repetitions: the range of fewer doesn't hold the median with 95 % confidence
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def fail(text):
    print(f"compare: {text}", file=sys.stderr)
    sys.exit(2)


def read(path, clock):
    """{benchmark: seconds of each repetition}, and the machine."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        times = {}
        for run in document["benchmarks"]:
            if run.get("run_type", "iteration") == "iteration" and not run.get("error_occurred", False):
                times.setdefault(run.get("run_name", run["name"]), []).append(run[clock] * SECONDS[run["time_unit"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{path} isn't an output of Google Benchmark in JSON ({error!r}); make one with --benchmark_out={path}")
    for name, values in times.items():
        if len(values) < FEWEST:
            fail(f"{path}: {name} has {len(values)} repetitions, expected at least {FEWEST}; run it with --benchmark_repetitions=12")
    context = document.get("context", {})
    return times, f"{context.get('host_name', 'unknown host')}, {context.get('num_cpus', '?')} processors at {context.get('mhz_per_cpu', '?')} MHz"


def interval(values):
    """Low, median and high. The k-th smallest is above the median with probability P(Binomial(n, 1/2) < k)."""
    values = sorted(values)
    n = len(values)
    outside, cut = 0.0, 0
    while True:
        outside += math.comb(n, cut) / 2**n
        if 2 * outside > 0.05:
            break
        cut += 1
    middle = values[n // 2] if n % 2 else (values[n // 2 - 1] + values[n // 2]) / 2
    return values[cut - 1], middle, values[n - cut]


def verdict(old, new, narrow):
    if new[2] < old[0]:
        return "FAST"
    if new[0] > old[2]:
        return "SLOW"
    return "SAME" if all(high - low <= narrow * middle for low, middle, high in (old, new)) else "UNCLEAR"


def show(of):
    unit = next(unit for unit in ("s", "ms", "us", "ns") if of[1] >= SECONDS[unit] or unit == "ns")
    return "{:.4g} [{:.4g}, {:.4g}] {}".format(*(of[i] / SECONDS[unit] for i in (1, 0, 2)), unit)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--clock", choices=("cpu_time", "real_time"), default="cpu_time")
    parser.add_argument("--narrow", type=float, default=0.1, metavar="SHARE",
                        help="how wide an interval may be, over its median, to call two SAME (default 0.1)")
    arguments = parser.parse_args()
    old, old_machine = read(arguments.old, arguments.clock)
    new, new_machine = read(arguments.new, arguments.clock)
    print(f"old: {old_machine}\nnew: {new_machine}")
    if old_machine != new_machine:
        print("note: two machines; differences may be theirs")
    shared = [name for name in old if name in new]
    if not shared:
        fail(f"{arguments.old} and {arguments.new} have no benchmark in common")
    width = max(len(name) for name in shared)
    verdicts = []
    for name in shared:
        before, after = interval(old[name]), interval(new[name])
        verdicts.append(verdict(before, after, arguments.narrow))
        print(f"{name:<{width}}  {show(before)} -> {show(after)}  {after[1] / before[1]:.2f} times  {verdicts[-1]}")
    for name in sorted(set(old) ^ set(new)):
        print(f"{name}: only in {arguments.old if name in old else arguments.new}")
    print(", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("SAME", "FAST", "SLOW", "UNCLEAR")))
    return 1 if "SLOW" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
