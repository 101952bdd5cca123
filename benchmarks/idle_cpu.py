"""What a node at rest costs: ``python benchmarks/idle_cpu.py [--seconds S]``.

For each idle policy of the DPDK backend, and for kernel UDP, a server without a client:

* ``alone``: the processor time it takes, in percent of a core;
* ``shared``: on one core with a program that computes without pause, the percent that program gets of it. That is what
  counts where nodes share cores: a node that yields takes a whole core only while nobody else wants it.

The servers are processes of ``r2p2 serve`` over a device on which nothing comes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from r2p2.processes import ManagedProcess, ProcessFailed, Supervisor, cpu_seconds, pin

ROOT = Path(__file__).resolve().parents[1]

SERVE = [sys.executable, "-m", "r2p2", "serve", "--app", "echo"]
DPDK = [*SERVE, "--backend", "dpdk", "--bind", "10.0.0.1:8000", "--vdev", "net_null0,no-rx=1"]
SERVERS = {f"dpdk --idle {policy}": [*DPDK, "--idle", policy] for policy in ("spin", "yield", "sleep")} | {
    "uv": [*SERVE, "--backend", "uv", "--bind", "127.0.0.1:0"]
}
COMPUTE = "while True: pass"


def percent(pid: int, seconds: float) -> float:
    """Of a core, that a process takes over the next seconds."""
    start, before = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    after = cpu_seconds(pid)
    if before is None or after is None:
        raise ProcessFailed(f"process {pid} ended while it was measured")
    return 100 * (after - before) / (time.monotonic() - start)


def shared(server: ManagedProcess, seconds: float) -> float:
    """Percent of a core that a computing program gets beside the server."""
    core = min(os.sched_getaffinity(0))
    pin(server.pid, core)
    other = subprocess.Popen([sys.executable, "-c", COMPUTE])
    try:
        pin(other.pid, core)
        return percent(other.pid, seconds)
    finally:
        other.kill()
        other.wait()


def main() -> int:
    """Measures each server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    for name, command in SERVERS.items():
        with tempfile.TemporaryDirectory(prefix="r2p2-") as folder, Supervisor(Path(folder)) as supervisor:
            server = supervisor.start("server", command, {"PYTHONPATH": str(ROOT)})
            server.wait_line(lambda line: line.startswith("r2p2: serving"), 30, what="the ready line")
            alone = percent(server.pid, options.seconds)
            beside = shared(server, options.seconds)
        print(f"{name:18} alone {alone:5.1f} % of a core; shared: the other program gets {beside:5.1f} %", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
