"""Which figures there are: for each its command lines, in the order of the page.

A case is one ``r2p2 bench`` command, run as it stands; what needs more than that (a member held down, memory over
time) is in ``special.py``. Text here explains; numbers are only ever filled in from results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BEST_PIN", "FIGURES", "Case", "Figure"]

BEST_PIN = "leader+generator"
MEMIF = "--backend dpdk"
ROWS = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One row: its label, the arguments of ``r2p2 bench``, and how long a run is measured."""

    label: str
    arguments: str
    seconds: float = 2.0
    warmup: float = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """One table. `x`: the label is a number, and the rows are drawn against it. `derive`: cases from earlier results
    (figure name -> its JSON); `special`: the name of a function of special.py in place of cases.
    """

    name: str
    title: str
    text: str
    cases: Sequence[Case] = ()
    x: str = ""
    derive: Callable[[ROWS], Sequence[Case]] | None = None
    special: str = ""
    columns: Sequence[str] = field(default=("throughput_rps", "p50_us", "p99_us", "cpu_us"))


def half_rate(results: ROWS) -> Sequence[Case]:
    """Half of the highest median of the replicated figure, in open loop."""
    best = max(row["throughput_rps"] for row in results["replicated"]["rows"])
    pin = f"--pin {BEST_PIN} --pauses 2"
    return [
        Case("half of the highest rate", f"replicated {MEMIF} --rate {best / 2:.0f} --outstanding 512 {pin}", 4.0, 1.0),
        Case("a quarter of it", f"replicated {MEMIF} --rate {best / 4:.0f} --outstanding 512 {pin}", 4.0, 1.0),
    ]


def _each(template: str, values: Sequence[int], seconds: float = 2.0, warmup: float = 0.5) -> list[Case]:
    return [Case(f"{value:,}", template.format(value), seconds, warmup) for value in values]


FIGURES: tuple[Figure, ...] = (
    Figure(
        "replicated",
        "Replicated SETs over memif",
        "Three replicas, exactly-once sessions, in memory; a RESP SET 64 bytes long. Three replicas and the generator "
        "share two processors, and every replica executes every request. The key-value store executes a run of plain "
        "SETs in one call of a function in C (docs/adr/0016). `Python, batch` and `Python, one by one` are the same "
        "store with that left out (`benchmarks/handlers.py`): a batch cut up at once, and a loop over the requests; "
        "`Python, a function` is a store of ten lines, called for each request, which it splits. "
        "The label is the number of calls outstanding; the last rows show placement.",
        (
            *_each(f"replicated {MEMIF} --pin {BEST_PIN} --outstanding {{}}", (64, 256, 512, 1024, 2048, 4096), 3.0),
            *(
                Case(
                    f"512, {label}, {pin}",
                    f"replicated {MEMIF} --outstanding 512 --app benchmarks.handlers:{app} --pin {pin}",
                    3.0,
                )
                for label, app in (
                    ("Python, a function", "FunctionStore"),
                    ("Python, batch", "SlabKeyValue"),
                    ("Python, one by one", "PythonKeyValue"),
                )
                for pin in (BEST_PIN, "none")
            ),
            Case("512, unpinned", f"replicated {MEMIF} --outstanding 512", 3.0),
            Case("512, leader+follower", f"replicated {MEMIF} --pin leader+follower --outstanding 512", 3.0),
        ),
    ),
    Figure(
        "uv",
        "The same over kernel UDP",
        "Loopback. Bound by system calls: about 3 us of processor time a datagram at both ends together, less where "
        "datagrams of a burst go to one address and the kernel cuts and joins them.",
        _each("replicated --backend uv --outstanding {}", (64, 256, 512)),
    ),
    Figure(
        "durable",
        "Durable members",
        "Term, vote and log are fsynced before anything that depends on them is sent. Bound by the disk's latency, "
        "which group commit shares among entries: the number of entries an fsync is beside it.",
        (
            Case(
                "/dev/shm, 512 outstanding", f"replicated {MEMIF} --pin {BEST_PIN} --outstanding 512 --storage /dev/shm"
            ),
            Case("disk, 512 outstanding", f"replicated {MEMIF} --pin {BEST_PIN} --outstanding 512 --storage out"),
            Case("disk, 4096 outstanding", f"replicated {MEMIF} --pin {BEST_PIN} --outstanding 4096 --storage out"),
        ),
        columns=("throughput_rps", "p50_us", "p99_us", "entries_per_fsync"),
    ),
    Figure(
        "latency",
        "Latency of one outstanding call",
        "Three replicas and the client over memif: a request crosses four hops between pollers that share two "
        "processors, so it waits for the scheduler as often as for work.",
        (
            Case("yield, unpinned", f"replicated {MEMIF} --outstanding 1 --idle yield"),
            Case(f"yield, {BEST_PIN}", f"replicated {MEMIF} --outstanding 1 --idle yield --pin {BEST_PIN}"),
            Case("yield, leader+follower", f"replicated {MEMIF} --outstanding 1 --idle yield --pin leader+follower"),
            Case("spin, unpinned", f"replicated {MEMIF} --outstanding 1 --idle spin"),
        ),
        columns=("p50_us", "p90_us", "p99_us", "throughput_rps"),
    ),
    Figure(
        "half",
        "Latency at half of the highest rate",
        "Open loop: Poisson arrivals, latency from when a call was due, at most 512 waiting. Most of the tail is a "
        "processor taken away: whoever else runs there, a thread of the kernel or of the machine's own upkeep, keeps "
        "a replica or the generator waiting, what has come due meanwhile waits, too, and is worked off at the "
        "difference between the highest rate and this one (below: Where the tail comes from).",
        derive=half_rate,
        columns=("throughput_rps", "p50_us", "p99_us", "p999_us"),
    ),
    Figure(
        "echo",
        "Unreplicated echo, the server on one processor",
        "Over memif, the generator on the other processor. A batch handler answers with the batch's own slab; a "
        "function of one request is called for each and makes an object. Bound by copies into and out of shared "
        "memory, and by the function.",
        (
            Case("batch handler", f"echo {MEMIF} --pin leader --outstanding 512"),
            Case(
                "a function called for each request",
                f"echo {MEMIF} --pin leader --outstanding 512 --app benchmarks.handlers:echo_one",
            ),
            Case("batch handler, kernel UDP", "echo --backend uv --pin leader --outstanding 32"),
        ),
    ),
    Figure(
        "reads",
        "Linearizable reads",
        "GETs through ReadIndex; they do not enter the log. `one member`: all at one; else each member answers its "
        "share. On two processors more members mean more processes for the same work: what grows is the processor "
        "time at hand, where there is any.",
        (
            Case("3 members, one member asked", f"reads {MEMIF} --outstanding 512 --one-member"),
            *(
                Case(f"{n} member{'s' * (n > 1)}, all asked", f"reads {MEMIF} --outstanding 512 --replicas {n}")
                for n in (1, 3, 5, 7)
            ),
        ),
    ),
    Figure(
        "scale",
        "Replicas",
        "Every replica applies every entry on the same two processors, so throughput falls as their number grows "
        "and processor time a request rises by a replica's share each.",
        _each(f"replicated {MEMIF} --outstanding 512 --pin {BEST_PIN} --replicas {{}}", (1, 3, 5, 7)),
        x="replicas",
    ),
    Figure(
        "sizes",
        "Sizes of values",
        "SETs with values of so many bytes, 64 outstanding. Up to 1.4 KiB a request is one packet; above it is "
        "announced, acknowledged and sent in many when there is room for them "
        "([decision 23](adr/0023-an-ack-is-a-grant.md)), and the bytes go three times through shared memory. "
        "What a byte costs there is the machine's: on the EPYC of other tables values of 4 KiB were twice as fast.",
        _each(
            f"replicated {MEMIF} --outstanding 64 --pin {BEST_PIN} --value-size {{}}",
            (16, 64, 256, 1024, 4096, 16384, 65536),
        ),
        x="bytes of a value",
        columns=("throughput_rps", "mib_per_s", "p50_us", "p99_us", "cpu_us"),
    ),
    Figure(
        "sessions",
        "Client sessions",
        "512 calls outstanding, of so many sessions in turn. The table of sessions grows beyond the caches; each "
        "session keeps its unacknowledged replies.",
        _each(
            f"replicated {MEMIF} --outstanding 512 --pin {BEST_PIN} --sessions {{}}",
            (1, 10, 100, 1000, 10_000),
            warmup=1.0,
        ),
        x="sessions",
    ),
    Figure(
        "retention",
        "Length of the retained log",
        "A member is killed, so that the others must keep every entry; the rate is looked at again and again while "
        "the log grows. It is flat: an entry lies in a page and nothing walks over the log. Overhead is what memory "
        "grows by for each entry beyond the request's own bytes.",
        special="retention",
        x="entries in the log",
        columns=("throughput_rps", "overhead_bytes"),
    ),
    Figure(
        "memory",
        "Memory under load",
        "Resident memory of the leader (the followers are alike) at rest, and while it is under load.",
        special="memory",
        columns=("throughput_rps", "rss_mib"),
    ),
    Figure(
        "generator",
        "The generator alone",
        "Against a responder in C that does nothing. This is the generator's limit; it is not what the other "
        "figures measure where they are well below it.",
        (
            Case("memif, 512 outstanding", f"generator {MEMIF} --outstanding 512 --pin leader"),
            Case(
                "memif, 512 outstanding, 10,000 sessions",
                f"generator {MEMIF} --outstanding 512 --pin leader --sessions 10000",
            ),
            Case("kernel UDP, 256 outstanding", "generator --backend uv --outstanding 256 --pin leader"),
        ),
        columns=("throughput_rps", "p50_us", "p99_us", "generator_cpu_us", "generator_share"),
    ),
    Figure(
        "profile",
        "Where the time goes",
        "Samples of all processes, by the file the instruction lies in; nanoseconds of processor time a request.",
        special="profile",
    ),
)
