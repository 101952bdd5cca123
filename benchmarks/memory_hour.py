"""Whether memory stays flat: an hour of load on three replicas, on a virtual clock, in one process.

Over the in-memory network, with a delay of one to two milliseconds and one datagram in a thousand lost, so sessions
retry; a step is a virtual millisecond. Prints the resident memory of the process (three replicas and the load
generator) every five virtual minutes.

    PYTHONPATH=. python benchmarks/memory_hour.py [--hours 1] [--outstanding 16]
"""

from __future__ import annotations

import argparse
import os
import time

from benchmarks.hot_path import MS, Bench
from r2p2.loadgen import SET
from r2p2.processes import resident_bytes

REPORTS_AN_HOUR = 12
HOUR_S = 3600
MIB = 1 << 20


def main() -> int:
    """0 when memory at the end is within 2 % of what it was after the first twelfth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--outstanding", type=int, default=16)
    args = parser.parse_args()
    bench = Bench(3, args.outstanding, 4, SET, "kv")
    bench.network.faults(delay_min_ns=MS, delay_max_ns=2 * MS, loss_ppm=1000)
    steps = int(args.hours * HOUR_S * 1000 / REPORTS_AN_HOUR)
    begun, seen = time.process_time(), []
    for report in range(REPORTS_AN_HOUR):
        for _ in range(steps):
            bench.network.advance(MS)
            bench.load.run(0)
            for node in bench.nodes:
                node.poll_once()
        seen.append((resident_bytes(os.getpid()) or 0) / MIB)
        stats = bench.load.stats()
        print(
            f"{(report + 1) * steps / 1000 / 60:6.1f} virtual minutes  {stats.answered:>10,} answered  "
            f"{seen[-1]:8.1f} MiB  {time.process_time() - begun:6.1f} s of processor time",
            flush=True,
        )
    is_flat = seen[-1] <= seen[0] * 1.02
    print(f"{'flat' if is_flat else 'NOT FLAT'}: {seen[0]:.1f} MiB to {seen[-1]:.1f} MiB")
    return 0 if is_flat else 1


if __name__ == "__main__":
    raise SystemExit(main())
