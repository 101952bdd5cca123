"""One run of the demo over one backend: form, load, kill the leader, go on, stop, prove.

What is proved, each as a :class:`Check`: every call got its right answer or none; the service came back in time; every
acknowledged write is still there and nothing is there that was not sent; the survivors have applied the same requests
in the same order (the chained digest of the log) and have the same state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r2p2.bench.cluster import Cluster, plan
from r2p2.bench.generator import Spec
from r2p2.bench.measure import SETTLE_SECONDS, ProgressLines, machine, read_back, run_for, warm_up
from r2p2.bench.plots import Outage
from r2p2.bench.report import PERCENTILES, BenchResult
from r2p2.bench.verify import Verdict
from r2p2.client import REPLICATED
from r2p2.demo.outage import find_outage
from r2p2.errors import UserError
from r2p2.loadgen import LoadStats, Timeline
from r2p2.ports import PortSpec

__all__ = ["Check", "DemoConfig", "DemoResult", "run_scenario"]

INTERRUPTION_MAX_MS = 500.0
CONVERGE_SECONDS = 5.0
WARMUP_SECONDS = 1.0
PROGRESS_SECONDS = 0.5
# The killed member holds the log back: nothing is forgotten after the kill. At 80 bytes an entry, three million
# answers and what comes until the load stops take under 350 MiB; a log that is full would refuse requests, as it
# should.
AFTER_ANSWERS_MAX = 3_000_000
LOG_MIB = 512


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """The load, and how long it runs before and after the kill."""

    outstanding: int = 256
    size: int = 64
    keys_count: int = 16_384
    # A call to a dead leader must fail soon for the next server to be asked, and must not fail in an ordinary pause.
    timeout_ms: int = 50
    before_s: float = 4.0
    after_s: float = 4.0
    replicas: int = 3


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold, whether it did, and the figures."""

    what: str
    held: bool
    detail: str


@dataclass(slots=True)
class DemoResult:
    """What one run showed."""

    backend: str
    steady: BenchResult
    outage: Outage
    timeline: Timeline
    killed: str
    leader: str
    pcap: Path
    checks: list[Check] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """All of it."""
        return all(check.held for check in self.checks)


def run_scenario(
    config: DemoConfig, backend: str, sockets: Path, folder: Path, say: Callable[[str], None]
) -> DemoResult:
    """Run it: memif sockets in `sockets`, logs in `folder`, the capture in `folder`.pcap.

    ProcessFailed when a process fails by itself.
    """
    began = time.monotonic()

    def tell(text: str) -> None:
        say(f"  {time.monotonic() - began:5.1f} s  {text}")

    layout = plan(backend, config.replicas, sockets)
    with Cluster(
        layout, folder, app="kv", replicated=True, load=_spec(config, backend), pcap=True, log_mib=LOG_MIB
    ) as cluster:
        status = cluster.wait_ready()
        leader = _leader(status)
        tell(f"{config.replicas} replicas have formed a cluster; {leader} leads in term {status[leader]['term']}")
        generator = cluster.generator
        cluster.watch()
        reset = warm_up(cluster, WARMUP_SECONDS)
        last: dict[str, Any] = {}
        lines = ProgressLines(layout.name_of, reset["stats"]["started_ns"])

        def on_progress(event: dict[str, Any]) -> None:
            last.update(event)
            tell(lines.line(event))

        run_for(cluster, config.before_s, on_progress, reset["stats"]["started_ns"])
        steady = _steady(config, backend, reset, last)
        killed = layout.name_of(last["leader"])
        victim = cluster.replicas[killed]
        killed_at = victim.kill()
        tell(f"kill -9 {killed} (pid {victim.pid}), the leader, with {config.outstanding} calls waiting")
        run_for(cluster, config.after_s, on_progress, answers_max=AFTER_ANSWERS_MAX)
        generator.tell("stop")
        stopped = generator.event("stopped", SETTLE_SECONDS)
        stats, timeline = LoadStats(**stopped["stats"]), Timeline(**stopped["timeline"])
        outage = find_outage(stats, timeline, int(killed_at * 1e9) - last["offset_ns"])
        tell("load stopped; reading every key back")
        verdict = read_back(cluster)
        survivors = cluster.running()
        converged = cluster.wait_status(
            lambda nodes: _is_at_rest(nodes, survivors),
            CONVERGE_SECONDS,
            "the survivors at the same index",
            with_state=True,
        )
        new_leader = _leader(converged)
        pcap = cluster.pcap_path(new_leader)
    pcap = _keep_one_capture(pcap, folder.with_suffix(".pcap"))
    result = DemoResult(backend, steady, outage, timeline, killed, new_leader, pcap)
    result.checks += [
        _check_survivors(config, killed, survivors),
        _check_answers(stats, LoadStats(**reset["discarded"])),
        _check_interruption(outage, timeline),
        _check_writes(verdict),
        _check_order(converged, survivors),
    ]
    return result


def _spec(config: DemoConfig, backend: str) -> Spec:
    return Spec(
        port=PortSpec(backend, "0.0.0.0"),
        targets=(),
        workload="set",
        policy=REPLICATED,
        outstanding=config.outstanding,
        size=config.size,
        keys_count=config.keys_count,
        timeout_ms=config.timeout_ms,
        slice_seconds=PROGRESS_SECONDS,
        progress_cpu=True,
    )


def _keep_one_capture(pcap: Path, target: Path) -> Path:
    """Of the replicas' captures the one that has the election and both leaders in it; where it lies now."""
    pcap.replace(target)
    for other in pcap.parent.glob("*.pcap"):
        other.unlink()
    return target


def _leader(status: dict[str, dict[str, Any]]) -> str:
    leaders = [name for name, node in status.items() if node.get("role") == "leader"]
    if len(leaders) != 1:
        raise UserError(f"one node should lead, and {leaders or 'none'} says so")
    return leaders[0]


def _steady(config: DemoConfig, backend: str, reset: dict[str, Any], last: dict[str, Any]) -> BenchResult:
    """The figures of the time between the reset and the last progress before the kill."""
    return BenchResult(
        what="replicated",
        backend=backend,
        outstanding=config.outstanding,
        rate=0.0,
        size=config.size,
        duration_s=(last["now_ns"] - reset["stats"]["started_ns"]) / 1e9,
        answered=last["answered"],
        timeouts=last["timeouts"],
        dropped=last["dropped"],
        wrong=last["wrong"],
        cpu_s={name: last["cpu_s"][name] - before for name, before in reset["cpu_s"].items() if name in last["cpu_s"]},
        machine=machine(),
        **{name: last["percentiles"][name] for name in PERCENTILES},
    )


def _is_at_rest(nodes: Any, survivors: list[str]) -> bool:
    if not all(name in nodes for name in survivors):
        return False
    indices = {nodes[name]["applied_index"] for name in survivors} | {
        nodes[name]["log_last_index"] for name in survivors
    }
    return len(indices) == 1 and sum(nodes[name].get("role") == "leader" for name in survivors) == 1


def _check_survivors(config: DemoConfig, killed: str, survivors: list[str]) -> Check:
    held = len(survivors) == config.replicas - 1 and killed not in survivors
    return Check("only the killed replica ended", held, f"{killed} was killed, {', '.join(survivors)} still run")


def _check_answers(stats: LoadStats, warmup: LoadStats) -> Check:
    wrong = stats.wrong + warmup.wrong
    detail = (
        f"{stats.answered + warmup.answered:,} answered, {wrong} of them wrongly; "
        f"{stats.timeouts + warmup.timeouts:,} unanswered and {stats.dropped + warmup.dropped:,} refused"
    )
    return Check("every answer was right", stats.answered > 0 and wrong == 0, detail)


def _check_interruption(outage: Outage, timeline: Timeline) -> Check:
    end_s = len(timeline.answered) * timeline.step_ns / 1e9
    came_back = outage.first_answer_s < end_s
    detail = f"{outage.interrupted_ms:.0f} ms without an answer" if came_back else "no answer after the kill"
    held = came_back and outage.interrupted_ms <= INTERRUPTION_MAX_MS
    return Check(f"service was back within {INTERRUPTION_MAX_MS:.0f} ms", held, detail)


def _check_writes(verdict: Verdict) -> Check:
    detail = (
        f"{verdict.acknowledged_writes:,} acknowledged writes to {verdict.keys:,} keys: {verdict.lost} keys lost, "
        f"{verdict.invented} invented, {verdict.unread} unread; {verdict.uncertain:,} had an unanswered call"
    )
    return Check("every acknowledged write is there", verdict.holds, "\n".join([detail, *verdict.examples]))


def _check_order(nodes: dict[str, dict[str, Any]], survivors: list[str]) -> Check:
    facts = {
        (nodes[name]["applied_index"], nodes[name]["applied_digest"], nodes[name]["state_digest"]) for name in survivors
    }
    index, digest, state = next(iter(facts))
    detail = f"{index:,} entries, digest of their order {digest}, of the state {state[:16]}"
    if len(facts) > 1:
        detail = "the survivors differ: " + "; ".join(
            f"{i:,} {order} {state[:16]}" for i, order, state in sorted(facts)
        )
    return Check("the survivors applied one order", len(facts) == 1 and bool(state), detail)
