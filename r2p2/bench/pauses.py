"""How long a machine takes its processors away from who wants them: ``python -m r2p2.bench.pauses SECONDS CPU``.

A tail of latency cannot be shorter than that. A virtual machine's host, a thread of the kernel or an agent of the
machine holds a processor for milliseconds, a poller there waits, and so does every call that has come due meanwhile.
What a host takes, no counter of the kernel in the machine shows; a program that does nothing but read the clock sees
both. This is one, on each processor at the same time, before the load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from r2p2.errors import UserError
from r2p2.processes import python_module

__all__ = ["PAUSES_SECONDS_MAX", "Pauses", "measure_pauses", "pauses_text"]

PAUSE_NS_MIN = 100_000  # shorter ones are an interrupt's, or the reader's own
LONG_NS = 1_000_000
PAUSES_SECONDS_MAX = 60.0
START_SECONDS = 30.0  # for a Python to start, on a machine with other work


@dataclass(frozen=True, slots=True)
class Pauses:
    """Of one processor, while nothing else of ours ran.

    Attributes:
        cpu: which.
        lost_ms_per_s: milliseconds of each second in pauses of 0.1 ms and more.
        long_per_s: pauses of 1 ms and more, a second.
        longest_ms: the longest.
    """

    cpu: int
    lost_ms_per_s: float
    long_per_s: float
    longest_ms: float

    @classmethod
    def of(cls, cpu: int, pauses_ns: Sequence[int], seconds: float) -> Pauses:
        """From the lengths of the pauses in so many seconds."""
        kept = [pause for pause in pauses_ns if pause >= PAUSE_NS_MIN]
        return cls(
            cpu=cpu,
            lost_ms_per_s=round(sum(kept) / 1e6 / seconds, 3),
            long_per_s=round(sum(pause >= LONG_NS for pause in kept) / seconds, 3),
            longest_ms=round(max(kept, default=0) / 1e6, 3),
        )


def read_clock(seconds: float) -> list[int]:
    """Lengths, in ns, of the times between two readings of the clock that took PAUSE_NS_MIN or longer."""
    pauses: list[int] = []
    clock = time.perf_counter_ns
    before = clock()
    end = before + int(seconds * 1e9)
    while before < end:
        now = clock()
        if now - before >= PAUSE_NS_MIN:
            pauses.append(now - before)
        before = now
    return pauses


def measure_pauses(cpus: Sequence[int], seconds: float) -> list[Pauses]:
    """Of each of these processors, at the same time; takes `seconds` and what a Python needs to start.

    UserError when one cannot be used, or the seconds are not within 0 to 60.
    """
    if not 0 < seconds <= PAUSES_SECONDS_MAX:
        raise UserError(f"pauses of {seconds:g} s: more than 0 and at most {PAUSES_SECONDS_MAX:g}")
    command = [*python_module("r2p2.bench.pauses"), str(seconds)]
    readers = [
        subprocess.Popen([*command, str(cpu)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for cpu in cpus
    ]
    try:
        ends = [reader.communicate(timeout=seconds + START_SECONDS) for reader in readers]
    except subprocess.TimeoutExpired as error:
        raise UserError(f"the clock was not read in {seconds + START_SECONDS:g} s") from error
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    for cpu, reader, (_, complaint) in zip(cpus, readers, ends, strict=True):
        if reader.returncode:
            raise UserError(
                f"processor {cpu}: the clock cannot be read there: {complaint.strip().rpartition(chr(10))[2]}"
            )
    return [Pauses(**json.loads(told)) for told, _ in ends]


def pauses_text(pauses: Sequence[Pauses]) -> str:
    """A line for each processor."""
    return "\n".join(
        f"processor {found.cpu} at rest: taken away for {found.lost_ms_per_s:.2f} ms of a second, "
        f"{found.long_per_s:.1f} times for 1 ms or longer, at most {found.longest_ms:.1f} ms"
        for found in pauses
    )


def main(arguments: Sequence[str]) -> int:
    """One processor's, as JSON."""
    seconds, cpu = float(arguments[0]), int(arguments[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    print(json.dumps(asdict(Pauses.of(cpu, read_clock(seconds), seconds))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
