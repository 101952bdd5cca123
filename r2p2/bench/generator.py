"""The process that makes the load: ``python -m r2p2.bench.generator SPEC``.

A process of its own, so that its processor time is counted apart from the servers' and from who judges it. SPEC is one
JSON object (:class:`Spec`); commands come as words on standard input, one a line; events go out as JSON objects, one a
line:

* ``status``: ask each target what it knows of itself; a ``status`` event (before the load, or after ``verify``);
* ``watch NAME=PID ...``: count these processes' cpu time, too, in ``reset`` and ``stopped``;
* ``start``: make load until ``stop``; a ``progress`` event about every `slice_seconds`, for which the load pauses;
* ``reset``: forget what was measured (the end of a warm-up); a ``reset`` event;
* ``measure SECONDS``: a ``measuring`` event; a moment later, when whom it woke rests again, as ``reset``, whose event
  the ``stopped`` event carries; after SECONDS as ``stop``. A ``progress`` event about every `measured_slice_seconds`;
* ``rate R``: open loop: at another rate from now on;
* ``stop``: let waiting calls end; a ``stopped`` event with counts, percentiles, the histogram and the timeline;
  ``start`` goes on;
* ``finish``: end the load, so that a status can be asked for again; a ``finished`` event;
* ``verify``: SET: read every key that was written and compare; a ``verified`` event.

The end of standard input ends it. Times are ns of the port's clock; ``offset_ns`` is time.monotonic_ns() minus that.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from r2p2 import cli, limits
from r2p2.address import format_address, format_ip, parse_address
from r2p2.bench.calls import READS_AT_ONCE_MAX, Caller
from r2p2.bench.report import PERCENTILES
from r2p2.bench.verify import read_keys, verify
from r2p2.client import FIXED_ROUTE
from r2p2.distribution import Distribution
from r2p2.engine import Engine
from r2p2.errors import UserError
from r2p2.loadgen import ECHO, GET, SET, SET_OVERHEAD_BYTES, SPIN, STSS, LoadConfig, LoadGenerator, LoadStats
from r2p2.node import STATE_REQUEST, STATUS_REQUEST
from r2p2.ports import PortSpec, open_port
from r2p2.processes import cpu_seconds

__all__ = ["Spec", "main"]

WORKLOADS = {"echo": ECHO, "set": SET, "get": GET, "spin": SPIN, "stss": STSS}
DRAIN_SECONDS = 1.5  # beyond a call's timeout, so that every call has ended
VERIFY_SECONDS = 15.0
STATUS_SECONDS = 0.5
# Of load between the ``measuring`` event and the measured time: writing the event, and who reads it, cost 1 to 2 ms
# of a processor that the servers share.
LEAD_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Spec:
    """What load to make, from where, to whom. `workload`: a name of WORKLOADS; `targets`: "IP:PORT" each."""

    port: PortSpec
    targets: tuple[str, ...]
    workload: str
    policy: int
    outstanding: int = 64
    size: int = 64
    rate: float = 0.0
    keys_count: int = 16_384
    timeout_ms: int = 1000
    sessions: int = 0
    slice_seconds: float = 0.25
    measured_slice_seconds: float = 2.0
    """Instead of it in a measured time: telling takes about 1 ms from the load, which an open loop counts."""
    progress_cpu: bool = False
    """Processor times in ``progress``, too: a quarter of a millisecond more without load each time."""
    timeline_step_ms: int = 5
    spread: bool = False
    sizes: Distribution | None = None
    service_ns: Distribution | None = None
    reply_bytes: int = 8
    reads: float = 0.0
    zipf: float = 0.0

    def to_json(self) -> str:
        """The command line's form."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """The inverse. UserError when it is not what :meth:`to_json` writes."""
        try:
            read = json.loads(text)
            port = PortSpec.from_dict(read.pop("port"))
            drawn: dict[str, Any] = {name: read.pop(name, None) for name in ("sizes", "service_ns")}
            drawn = {name: values and Distribution.from_dict(values) for name, values in drawn.items()}
            return cls(port=port, targets=tuple(read.pop("targets")), **drawn, **read)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise UserError(f"not a load generator's specification: {error}", f"a JSON object of {names}") from error

    def config(self, local_port: int) -> LoadConfig:
        """For the generator in C."""
        if self.workload not in WORKLOADS:
            raise UserError(f"no workload {self.workload!r}; there are: {', '.join(WORKLOADS)}")
        return LoadConfig(
            workload=WORKLOADS[self.workload],
            policy=self.policy,
            local_port=local_port,
            outstanding=self.outstanding,
            size=self.size,
            rate=self.rate,
            keys_count=self.keys_count,
            sessions=self.sessions,
            timeout_ns=self.timeout_ms * limits.MS,
            timeline_step_ns=self.timeline_step_ms * limits.MS,
            spread=self.spread,
            sizes=self.sizes,
            service_ns=self.service_ns,
            reply_bytes=self.reply_bytes,
            reads=self.reads,
            zipf=self.zipf,
        )


def say(event: str, **values: object) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **values}), flush=True)


class _Commands:
    """Words from standard input, without waiting or with."""

    def __init__(self) -> None:
        self._buffer = b""
        self.ended = False

    def take(self, wait_seconds: float | None) -> list[str]:
        """What has come; waits up to `wait_seconds` (None: for ever) for the first."""
        if self.ended or not select.select([0], [], [], wait_seconds)[0]:
            return []
        data = os.read(0, 65536)
        self.ended = not data
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [line.decode(errors="replace").strip() for line in lines]


class _Generator:
    def __init__(self, engine: Engine, spec: Spec, local_port: int) -> None:
        self._engine = engine
        self._spec = spec
        self._local_port = local_port
        self._targets = [parse_address(target) for target in spec.targets]
        self._config = spec.config(local_port)
        self._config.check()
        engine.client_open(local_port, max(spec.outstanding, READS_AT_ONCE_MAX))
        self._load: LoadGenerator | None = None
        self._running = False
        self._measure_s: float | None = None  # to be measured after the next slice
        self._end_ns: int | None = None
        self._reset: dict[str, Any] = {}  # with which the measured time began
        self._watched: dict[str, int] = {}
        self._counted: dict[str, int] = {}  # before the first load: what finding the servers took is not the load's

    def loop(self, commands: _Commands) -> None:
        """Carry out commands until their end."""
        say("ready", pid=os.getpid())
        while not commands.ended:
            for line in commands.take(0.0 if self._running else None):
                self.command(*line.split())
            if self._running:
                self.slice()

    def slice(self) -> None:
        """Some load, up to the next look at the commands or the end of the measured time, where that is known."""
        if self._measure_s is not None:
            self.load.run(LEAD_SECONDS)
            self._reset = self.reset()
            self._end_ns = self._reset["stats"]["started_ns"] + int(self._measure_s * 1e9)
            self._measure_s = None
        seconds = self._spec.slice_seconds
        if self._end_ns is not None:
            seconds = self._spec.measured_slice_seconds
            left = max(0.0, (self._end_ns - self._engine.now_ns()) / 1e9)
            # What would be left of it after a slice, a fraction of one, is no progress to be told of.
            seconds = left if left < 1.25 * seconds else seconds
        self.load.run(seconds)
        self.progress()
        if self._end_ns is not None and self._engine.now_ns() >= self._end_ns:
            self._running, self._end_ns = False, None
            self.stop()

    @property
    def load(self) -> LoadGenerator:
        if self._load is None:
            self._load = LoadGenerator(self._engine, self._config, self._targets)
            self._counted = self._engine.counters()
        return self._load

    def command(self, word: str, *arguments: str) -> None:
        match word:
            case "watch":
                self._watched = {name: int(pid) for name, _, pid in (a.partition("=") for a in arguments)}
            case "status":
                self.status(STATE_REQUEST if arguments == ("state",) else STATUS_REQUEST)
            case "start":
                self._running = self.load is not None
            case "reset":
                self._end_ns = None
                say("reset", **self.reset())
            case "measure":
                self._measure_s = float(arguments[0])
                say("measuring", started_ns=self._engine.now_ns() + int(LEAD_SECONDS * 1e9))
            case "stop":
                self._running = False
                self.stop()
            case "rate":
                self.load.set_rate(float(arguments[0]))
            case "finish":
                self.close()
                say("finished")
            case "verify":
                self.verify()
            case _:
                raise UserError(f"the load generator knows no command {word!r}")

    def reset(self) -> dict[str, Any]:
        """What there is to be said of it."""
        cpu_s, discarded = self.cpu_s(), self.load.stats()._asdict()
        self.load.reset()
        began = self.load.stats()._asdict()
        return {"discarded": discarded, "offset_ns": self.offset_ns(), "stats": began, "cpu_s": cpu_s}

    def offset_ns(self) -> int:
        return time.monotonic_ns() - self._engine.now_ns()

    def cpu_s(self) -> dict[str, float]:
        """Processor time so far of the watched processes that still run, and of this one."""
        used = {name: cpu_seconds(pid) for name, pid in self._watched.items()} | {"generator": time.process_time()}
        return {name: seconds for name, seconds in used.items() if seconds is not None}

    def status(self, request: bytes) -> None:
        """Ask every target for its status; those that do not answer are left out."""
        if self._load is not None:
            raise UserError("the load generator asks for a status before its load and after `verify`, not meanwhile")
        caller = Caller(self._engine, self._local_port)
        replies = caller.call_each(self._targets, request, FIXED_ROUTE, STATUS_SECONDS)
        say("status", nodes={format_address(target): json.loads(reply) for target, reply in replies.items()})

    def percentiles(self) -> dict[str, float]:
        """Latency since the last reset, by the report's names."""
        return dict(zip(PERCENTILES, self.load.percentiles_us(list(PERCENTILES.values())), strict=True))

    def progress(self) -> None:
        stats = self.load.stats()
        leader = format_ip(stats.leader_ip) if stats.leader_ip else ""
        now_ns = self._engine.now_ns()
        say(
            "progress",
            now_ns=now_ns,
            offset_ns=self.offset_ns(),
            percentiles=self.percentiles(),
            leader=leader,
            **({"cpu_s": self.cpu_s()} if self._spec.progress_cpu else {}),
            **_counts(stats),
        )

    def stop(self) -> None:
        ended_ns, cpu_s = self._engine.now_ns(), self.cpu_s()
        load = self.load
        at_end = load.stats()
        load.run(self._spec.timeout_ms / 1000 + DRAIN_SECONDS, issue=False)
        say(
            "stopped",
            reset=self._reset,
            ended_ns=ended_ns,
            cpu_s=cpu_s,
            offset_ns=self.offset_ns(),
            stats=load.stats()._asdict(),
            at_end=at_end._asdict(),
            percentiles=self.percentiles(),
            histogram=load.histogram(),
            timeline=load.timeline()._asdict(),
            counters={name: n for name, value in self._engine.counters().items() if (n := value - self._counted[name])},
        )

    def verify(self) -> None:
        """Read back every key that was written. Ends the load, which had taken over the engine's completions."""
        load, versions = self.load, self.load.keys()
        names = {key: load.key(key) for key, issued in enumerate(versions.issued) if issued}
        width = None if self._spec.sizes is not None else value_bytes(self._spec.size)
        self.close()
        stored = read_keys(Caller(self._engine, self._local_port), self._targets, names, VERIFY_SECONDS)
        say("verified", **verify(versions, stored, width)._asdict())

    def close(self) -> None:
        if self._load is not None:
            self._load.close()
            self._load = None


def value_bytes(size: int) -> int:
    """The value's length in the SET of `size` bytes, or, where there is none, of the next smaller one."""
    return next(v for v in range(size - SET_OVERHEAD_BYTES, 0, -1) if v + SET_OVERHEAD_BYTES + len(str(v)) <= size)


def _counts(stats: LoadStats) -> dict[str, int]:
    names = ("answered", "timeouts", "dropped", "wrong", "max_gap_ns", "max_gap_at_ns")
    return {name: getattr(stats, name) for name in names}


def run(spec: Spec) -> int:
    """Open the port, obey commands until their end, close everything; 0."""
    with open_port(spec.port) as port:
        engine = Engine(port.address, keep=port)
        try:
            generator = _Generator(engine, spec, port.local_port)
            try:
                generator.loop(_Commands())
            finally:
                generator.close()
        finally:
            engine.close()
    return 0


def main(argv: Sequence[str]) -> int:
    """The process; its exit code."""
    if len(argv) != 1:
        print("usage: python -m r2p2.bench.generator SPEC (a JSON object)", file=sys.stderr)
        return 2
    return cli.guard(lambda: run(Spec.from_json(argv[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
