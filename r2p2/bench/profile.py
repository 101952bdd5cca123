"""Nanoseconds a request in each layer of each process, from samples that ``perf`` takes during the measured time.

A sample falls into a layer by the file its instruction is in: the interpreter, our compiled modules, a driver, libc,
the kernel. The samples give each process's shares; its processor time a request, which the generator measures, makes
nanoseconds of them. Needs the command ``perf`` (Debian: linux-perf) and the right to use it; its event is cpu-clock, so
no hardware counter is needed, in a virtual machine neither.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from r2p2.bench.report import BenchResult
from r2p2.errors import UserError

__all__ = ["LAYERS", "Layers", "layer_of", "need_perf", "samples_of"]

FREQUENCY_HZ = 1999  # not a divisor of anybody's timer
SECONDS_TO_END = 20.0

# Layer -> a pattern of the file's name; the first that is found. Whatever else is its own layer, under the file's name.
LAYERS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("kernel (over DPDK: idle yields)", re.compile(r"^\[kernel|^\[guest|\.ko$")),
    ("hiredis", re.compile(r"hiredis")),
    ("cffi, struct", re.compile(r"^_cffi_backend|^_struct")),
    ("engine: codec, log, batches, replies", re.compile(r"^_engine\.")),
    ("DPDK port: Ethernet to UDP", re.compile(r"^_dpdk\.")),
    ("kernel-UDP port", re.compile(r"^_udp\.")),
    ("memif driver", re.compile(r"^librte_net_memif")),
    ("DPDK's libraries", re.compile(r"^librte_")),
    ("libc (copies), clock", re.compile(r"^libc[.-]|^libm[.-]|^ld-|^\[vdso\]")),
    ("Python: handler, Raft, the loop", re.compile(r"^python3|^libpython")),
)
_LINE = re.compile(r"^\s*(\d+)\s+[0-9a-f]+ (.*) \(([^()]*(?:\([^()]*\))?[^()]*)\)$")


def layer_of(dso: str) -> str:
    """The layer of a file as perf names it."""
    name = Path(dso).name if dso.startswith("/") else dso
    return next((layer for layer, pattern in LAYERS if pattern.search(name)), name.partition(".")[0])


def samples_of(script: str, names: Mapping[int, str]) -> Counter[tuple[str, str]]:
    """(process name, layer) -> samples, from ``perf script -F pid,ip,sym,dso``; strangers are left out."""
    found: Counter[tuple[str, str]] = Counter()
    for line in script.splitlines():
        match = _LINE.match(line)
        if match and int(match[1]) in names:
            found[names[int(match[1])], layer_of(match[3])] += 1
    return found


def need_perf() -> str:
    """The command. UserError where there is none."""
    perf = shutil.which("perf")
    if perf is None:
        raise UserError("a profile needs the command perf, which is not here", "Debian: apt-get install linux-perf")
    return perf


@contextmanager
def recording(pids: Mapping[str, int], path: Path, *options: str) -> Iterator[None]:
    """perf records these processes into `path` meanwhile. UserError when it cannot."""
    command = [need_perf(), "record", "-q", "-F", str(FREQUENCY_HZ), "-e", "cpu-clock", *options, "-o", str(path)]
    perf = subprocess.Popen(
        [*command, "-p", ",".join(map(str, pids.values()))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        try:
            said, _ = perf.communicate(timeout=SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            perf.kill()
            said, _ = perf.communicate()
    if not path.exists() or path.stat().st_size == 0:
        raise UserError(f"perf recorded nothing: {said.strip()}", "As root, or: sysctl kernel.perf_event_paranoid=1")


class Layers:
    """The samples of one run or more."""

    def __init__(self) -> None:
        need_perf()
        self.samples: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def recording(self, pids: Mapping[str, int]) -> Iterator[None]:
        """Samples the processes, by name, meanwhile."""
        with tempfile.TemporaryDirectory(prefix="r2p2-perf-") as folder:
            path = Path(folder) / "perf.data"
            with recording(pids, path):
                yield
            script = subprocess.run(
                [need_perf(), "script", "-i", str(path), "-F", "pid,ip,sym,dso"],
                capture_output=True,
                text=True,
                check=True,
            )
            self.samples += samples_of(script.stdout, {pid: name for name, pid in pids.items()})

    def ns_per_request(self, result: BenchResult) -> dict[str, dict[str, float]]:
        """Layer -> process name -> nanoseconds a request, in LAYERS' order, the largest unknown ones behind."""
        totals: Counter[str] = Counter()
        for (name, _), count in self.samples.items():
            totals[name] += count
        known = [layer for layer, _ in LAYERS]
        found = {layer for _, layer in self.samples}
        order = [layer for layer in reversed(known) if layer in found] + sorted(found - set(known))
        cpu_us = result.cpu_us_per_request
        return {
            layer: {
                name: 1e3 * cpu_us.get(name, 0.0) * self.samples[name, layer] / totals[name]
                for name in cpu_us
                if totals[name]
            }
            for layer in order
        }

    def text(self, result: BenchResult) -> str:
        """The table, as Markdown."""
        if not self.samples:
            return "perf took no samples: the machine was too busy, or the measured time too short (--duration)"
        table = self.ns_per_request(result)
        names = [name for name in result.cpu_us_per_request if any(name in row for row in table.values())]
        lines = [f"| ns a request, by layer | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
        for layer, row in table.items():
            lines.append(f"| {layer} | {' | '.join(f'{row[name]:,.0f}' for name in names)} |")
        sums = [sum(row[name] for row in table.values()) for name in names]
        lines.append(f"| sum | {' | '.join(f'{total:,.0f}' for total in sums)} |")
        return "\n".join(lines)
