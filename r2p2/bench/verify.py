"""What became of the writes: reads every key back and compares it with what was acknowledged.

The load generator writes versions 1, 2, 3... to a key, one call at a time. A write that was acknowledged must still be
there, and nothing may be there that was never sent: acked <= stored <= issued, and equality where every call of the key
was answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from r2p2.bench.calls import Caller
from r2p2.client import REPLICATED_READ
from r2p2.loadgen import KeyVersions, LoadStats

__all__ = ["Executions", "Verdict", "count_executions", "get_command", "read_keys", "stored_version", "verify"]

EXAMPLES_MAX = 5
VERSION_DIGITS = 19


class Executions(NamedTuple):
    """Calls of sessions, all of one load, and how many requests of sessions a replica gave to its application.

    With nothing unanswered, executed exactly once means that the two numbers are equal. Counts of the replicas differ
    only where one has not applied everything yet.
    """

    acknowledged: int
    unanswered: int  # without an answer in time, or in a session that ended: executed once or not at all
    executed: int

    @property
    def holds(self) -> bool:
        """Every acknowledged request was executed, and none twice."""
        return self.acknowledged <= self.executed <= self.acknowledged + self.unanswered

    def text(self) -> str:
        """The figures."""
        unanswered = f" and {self.unanswered:,} without an answer" if self.unanswered else ""
        return f"{self.acknowledged:,} acknowledged{unanswered}, {self.executed:,} executed"


def count_executions(loads: Sequence[LoadStats], nodes: Mapping[str, Mapping[str, Any]]) -> Executions:
    """From the statistics of all parts of a load, after it, and the status of each replica that runs.

    A replica that was sent a snapshot has not executed what is in it; another one is asked, where there is one.
    """
    whole = [node for node in nodes.values() if not node["counters"].get("snapshots_restored")]
    furthest = max(whole or nodes.values(), key=lambda node: int(node["applied_index"]))
    return Executions(
        acknowledged=sum(stats.answered - stats.reads_answered for stats in loads),
        unanswered=sum(stats.timeouts + stats.expired for stats in loads),
        executed=furthest["counters"].get("sessions_executed", 0),
    )


class Verdict(NamedTuple):
    """Counts of keys. Only `lost` and `invented` and `unread` are failures; `examples` words a few of them."""

    keys: int
    exact: int  # every call was answered, and the last acknowledged version is stored
    uncertain: int  # a call was not answered; what is stored lies between acknowledged and issued
    lost: int  # an acknowledged version is gone
    invented: int  # stored is something that was never sent, or garbage
    unread: int  # no answer to the read
    acknowledged_writes: int
    examples: list[str]

    @property
    def holds(self) -> bool:
        """Nothing acknowledged was lost and nothing unsent is there."""
        return self.keys > 0 and self.lost == self.invented == self.unread == 0

    def text(self) -> str:
        """What is wrong."""
        counts = (
            f"of {self.keys:,} keys {self.lost:,} lost, {self.invented:,} invented, {self.unread:,} not read in time"
        )
        return "; ".join([counts, *self.examples])


def get_command(key: bytes) -> bytes:
    """RESP: GET key."""
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key)


def stored_version(reply: bytes, width: int | None) -> int | None:
    """The version in the reply to a GET: 0 for "no such key", None for anything the generator did not write.

    A value is `width` decimal digits; None: of any width, where sizes are drawn by chance.
    """
    if reply == b"$-1\r\n":
        return 0
    head, _, rest = reply.partition(b"\r\n")
    value = rest[:-2]
    if head != b"$%d" % len(value) or rest[-2:] != b"\r\n" or len(value) != (width or len(value)):
        return None
    # The version's digits are the last ones; long values are not read as one number.
    fill, digits = value[:-VERSION_DIGITS], value[-VERSION_DIGITS:]
    return int(digits) if digits.isdigit() and not fill.strip(b"0") else None


def verify(versions: KeyVersions, replies: Mapping[int, bytes], width: int | None) -> Verdict:
    """Compare the reply to each key's GET with its versions; a key that was issued and has no reply is unread."""
    exact = uncertain = lost = invented = unread = written = 0
    examples: list[str] = []
    for key, (acked, issued, certain) in enumerate(zip(*versions, strict=True)):
        if not issued:
            continue
        written += 1
        stored = stored_version(replies[key], width) if key in replies else -1
        if stored == -1:
            unread += 1
        elif stored is None or stored > issued or (certain and stored > acked):
            invented += 1
        elif stored < acked:
            lost += 1
        elif certain:
            exact += 1
            continue
        else:
            uncertain += 1
            continue
        if len(examples) < EXAMPLES_MAX:
            examples.append(
                f"key {key}: acknowledged {acked}, issued {issued}, stored {replies.get(key, b'nothing')!r}"
            )
    return Verdict(written, exact, uncertain, lost, invented, unread, sum(versions.acked), examples)


def read_keys(
    caller: Caller, targets: Sequence[tuple[int, int]], names: Mapping[int, bytes], timeout_seconds: float
) -> dict[int, bytes]:
    """The reply to a linearizable GET of each name, by its key; what could not be read in time is left out.

    Linearizable reads see every acknowledged write, and do not wait for a disk.
    """
    requests = {key: get_command(name) for key, name in names.items()}
    return caller.call_all(targets, requests, REPLICATED_READ, timeout_seconds)
