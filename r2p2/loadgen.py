"""The load generator, typed: makes calls in C, so that what is measured is the servers.

Wraps ``r2p2/csrc/r2p2_loadgen_api.h``, where closed and open loop and the two workloads are described. What this file
adds: percentiles from the histogram, the timeline as lists. One generator uses one engine, whose completions it takes
over. Who starts servers and judges the figures: :mod:`r2p2.bench`, :mod:`r2p2.demo`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from r2p2 import limits
from r2p2._engine import ffi, lib
from r2p2.client import REPLICATED
from r2p2.distribution import SHAPES, Distribution
from r2p2.engine import Engine
from r2p2.errors import UserError

__all__ = [
    "ECHO",
    "GET",
    "SET",
    "SET_OVERHEAD_BYTES",
    "SPIN",
    "STSS",
    "KeyVersions",
    "LoadConfig",
    "LoadGenerator",
    "LoadStats",
    "Timeline",
    "set_bytes",
]

ECHO: int = lib.R2P2_LOAD_ECHO
SET: int = lib.R2P2_LOAD_SET
GET: int = lib.R2P2_LOAD_GET
SPIN: int = lib.R2P2_LOAD_SPIN
STSS: int = lib.R2P2_LOAD_STSS
SET_BYTES_MIN = 48  # the RESP words and a key leave room for a version in no less
SET_OVERHEAD_BYTES = 37  # of a SET beyond its value and the digits of its value's length
STSS_BYTES_MIN = 12
SERVICE_NS_MAX = 1_000_000_000  # what the synthetic services take


def set_bytes(value_bytes: int) -> int:
    """How long a SET is with a value of so many bytes."""
    return SET_OVERHEAD_BYTES + len(str(value_bytes)) + value_bytes


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """`rate` 0: closed loop of `outstanding` calls; else calls a second, at most `outstanding` waiting.

    `sessions`: how many the calls belong to; 0: none, each is executed as it comes. `sizes` goes before `size`.
    `reads`: of SETs, the part that are GETs; `zipf`: the skew of keys. `service_ns`, `reply_bytes`: SPIN and STSS.
    """

    workload: int
    policy: int
    local_port: int
    outstanding: int = 64
    size: int = 64
    rate: float = 0.0
    keys_count: int = 16_384
    sessions: int = 0
    timeout_ns: int = limits.CALL_TIMEOUT_NS
    timeline_step_ns: int = 5 * limits.MS
    timeline_count: int = 12_000
    seed: int = 1
    spread: bool = False
    sizes: Distribution | None = None
    service_ns: Distribution | None = None
    reply_bytes: int = 8
    reads: float = 0.0
    zipf: float = 0.0

    def check(self) -> None:
        """UserError for what the generator would refuse, with the bound."""
        if not 1 <= self.outstanding <= limits.CALLS_MAX:
            raise UserError(f"{self.outstanding} outstanding calls: between 1 and {limits.CALLS_MAX} are possible")
        smallest = {SET: SET_BYTES_MIN, STSS: STSS_BYTES_MIN}.get(self.workload, 0)
        sizes = self.sizes or Distribution("fixed", self.size)
        if (sizes.least < smallest and sizes.shape != "exponential") or sizes.largest > limits.REQUEST_BYTES_MAX:
            raise UserError(
                f"requests of {sizes.text or self.size} bytes: between {smallest} and {limits.REQUEST_BYTES_MAX} are "
                "possible"
            )
        if not 0 <= self.reads <= 1 or (self.reads and self.workload != SET):
            raise UserError(f"a part of {self.reads:g} reads: between 0 and 1 of replicated SETs can be")
        if not 0 <= self.zipf < 1 or (self.zipf and self.workload not in (SET, GET)):
            raise UserError(f"a skew of {self.zipf:g}: from 0 to below 1, where there are keys")
        if self.service_ns is not None and self.service_ns.largest > SERVICE_NS_MAX:
            raise UserError(f"a service time of {self.service_ns.text}: 1 s at most is served")
        if not 0 <= self.reply_bytes <= limits.REPLICATED_REPLY_BYTES_MAX:
            raise UserError(f"replies of {self.reply_bytes} bytes: up to {limits.REPLICATED_REPLY_BYTES_MAX}")
        if not 0 <= self.sessions <= limits.CLIENT_SESSIONS_MAX:
            raise UserError(f"{self.sessions} sessions: up to {limits.CLIENT_SESSIONS_MAX} are possible")
        if self.sessions and self.policy != REPLICATED:
            raise UserError("sessions are for replicated requests", "Leave the sessions out, or use the policy.")
        if self.rate < 0:
            raise UserError(f"a rate of {self.rate:g} calls a second")
        if self.workload == SET and self.keys_count < self.outstanding:
            raise UserError(
                f"{self.keys_count} keys for {self.outstanding} outstanding calls: each call needs its own key"
            )


class LoadStats(NamedTuple):
    """Since the start or the last reset. Times in ns of the port's clock; `leader_ip`: who answered last."""

    issued: int
    answered: int
    timeouts: int
    dropped: int
    wrong: int
    waiting: int
    leader_ip: int
    retargets: int
    first_answer_ns: int
    last_answer_ns: int
    max_gap_ns: int
    max_gap_at_ns: int
    started_ns: int
    polls: int
    idle_polls: int
    expired: int
    reads_answered: int = 0
    bytes_sent: int = 0
    late_sum_ns: int = 0
    late_max_ns: int = 0
    behind_ns: int = 0


class Timeline(NamedTuple):
    """Bucket i covers `step_ns` from i * step_ns after the start or reset. All lists have the same length."""

    step_ns: int
    answered: list[int]
    failed: list[int]
    latency_sum_ns: list[int]
    latency_max_ns: list[int]


class KeyVersions(NamedTuple):
    """SET: of each key the highest version acknowledged and issued, and whether every call of it had an answer."""

    acked: list[int]
    issued: list[int]
    certain: list[bool]


def _draws(distribution: Distribution) -> dict[str, Any]:
    """For the struct in C."""
    return {
        "a": distribution.a,
        "b": distribution.b,
        "share": distribution.share,
        "shape": SHAPES.index(distribution.shape),
    }


class LoadGenerator:
    """A generator on `engine`, calling `targets` ((ip, port) each); the engine's port has `config.local_port` open."""

    def __init__(self, engine: Engine, config: LoadConfig, targets: Sequence[tuple[int, int]]) -> None:
        """`config.local_port` is open for calls (`Engine.client_open`). UserError for a configuration out of bounds."""
        config.check()
        self.config = config
        c_config = ffi.new(
            "r2p2_loadgen_config *",
            {
                "seed": config.seed,
                "timeout_ns": config.timeout_ns,
                "timeline_step_ns": config.timeline_step_ns,
                "keys_count": config.keys_count,
                "rate": config.rate,
                "timeline_count": config.timeline_count,
                "workload": config.workload,
                "outstanding": config.outstanding,
                "sessions": config.sessions,
                "sizes": _draws(config.sizes or Distribution("fixed", config.size)),
                "service_ns": _draws(config.service_ns or Distribution()),
                "reply_bytes": config.reply_bytes,
                "reads": config.reads,
                "zipf": config.zipf,
                "local_port": config.local_port,
                "policy": config.policy,
                "spread": int(config.spread),
            },
        )
        error = ffi.new("int32_t *")
        c_targets = ffi.new("r2p2_target[]", [(ip, port, 0) for ip, port in targets])
        self._load = lib.r2p2_loadgen_new(engine.handle, c_config, c_targets, len(targets), error)
        if error[0] == lib.R2P2_ERROR_STATE:
            raise UserError(
                "the load generator takes an engine over, and this one has calls waiting",
                "Let them end, or open an engine for the generator alone.",
            )
        if self._load == ffi.NULL:
            raise UserError(f"the load generator refused its configuration (status {error[0]}): {config}")
        self._engine = engine
        self._stats = ffi.new("r2p2_loadgen_stats *")
        self._stats_view = memoryview(ffi.buffer(self._stats)).cast("B").cast("Q")
        buckets = lib.r2p2_loadgen_buckets_count()
        self._counts = ffi.new("uint64_t[]", buckets)

    def run(self, seconds: float, *, issue: bool = True) -> None:
        """Make load for a while. `issue` False: only let waiting calls end; returns as soon as none waits."""
        lib.r2p2_loadgen_run(self._load, int(seconds * 1e9), int(issue))

    def reset(self) -> None:
        """Forget what was measured so far, not the state of keys and calls."""
        lib.r2p2_loadgen_reset(self._load)

    def stats(self) -> LoadStats:
        """Counts since the start or the last reset."""
        lib.r2p2_loadgen_stats_read(self._load, self._stats)
        return LoadStats(*self._stats_view.tolist())

    def set_rate(self, rate: float) -> None:
        """Open loop: at another rate from now on. UserError where it is a closed loop, or no rate."""
        if lib.r2p2_loadgen_set_rate(self._load, rate) < 0:
            raise UserError(f"a rate of {rate:g} calls a second cannot be set", "Begin with an open loop, at a rate.")

    def percentiles_us(self, fractions: Sequence[float]) -> list[float]:
        """Latency at each fraction, in microseconds, within 0.1 %; calls that timed out with the time they waited.

        ValueError unless the fractions ascend within 0..1.
        """
        if list(fractions) != sorted(fractions) or not all(0 <= fraction <= 1 for fraction in fractions):
            raise ValueError(f"fractions are {list(fractions)}: ascending, of 0..1")
        values = ffi.new("uint64_t[]", len(fractions))
        lib.r2p2_loadgen_percentiles_ns(self._load, list(fractions), len(fractions), values)
        return [value / 1000 for value in values]

    def histogram(self) -> list[tuple[int, int]]:
        """(upper edge in ns, calls) of each bucket that is not empty."""
        lib.r2p2_loadgen_histogram(self._load, self._counts)
        counts = memoryview(ffi.buffer(self._counts)).cast("B").cast("Q").tolist()
        return [(lib.r2p2_loadgen_bucket_ns(index), count) for index, count in enumerate(counts) if count]

    def timeline(self) -> Timeline:
        """The timeline, cut behind the last bucket in which a call ended."""
        count = self.config.timeline_count
        buckets = ffi.new("r2p2_timeline_bucket[]", count)
        lib.r2p2_loadgen_timeline(self._load, buckets)
        numbers = memoryview(ffi.buffer(buckets)).cast("B").cast("Q").tolist()
        answered, failed, total, longest = (numbers[column::4] for column in range(4))
        used = max((i + 1 for i in range(count) if answered[i] or failed[i]), default=0)
        return Timeline(self.config.timeline_step_ns, answered[:used], failed[:used], total[:used], longest[:used])

    def keys(self) -> KeyVersions:
        """SET: the versions of all keys."""
        count = self.config.keys_count
        acked, issued = ffi.new("uint64_t[]", count), ffi.new("uint64_t[]", count)
        certain = ffi.new("uint8_t[]", count)
        status = lib.r2p2_loadgen_keys(self._load, 0, count, acked, issued, certain)
        assert status == 0, f"r2p2_loadgen_keys: {status}"
        return KeyVersions(list(acked), list(issued), [value != 0 for value in certain])

    def key(self, index: int) -> bytes:
        """The name of key `index` as it is sent."""
        out = ffi.new("uint8_t[]", limits.PAYLOAD_BYTES_MAX)
        return bytes(ffi.buffer(out, lib.r2p2_loadgen_key(self._load, index, out)))

    def close(self) -> None:
        """Give the engine's completions back and free everything. Idempotent; before the engine is closed."""
        if self._load != ffi.NULL:
            lib.r2p2_loadgen_free(self._load)
            self._load = ffi.NULL
