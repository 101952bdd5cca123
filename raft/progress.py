"""What a leader knows of one member's log and of the Appends on their way to it.

Left to others: when to send (core.py).
"""

from __future__ import annotations

from collections import deque

PROBE = 0  # the match point is not known or Appends were lost: one Append at a time, repeated by heartbeats
REPLICATE = 1  # Appends follow each other without waiting, within the bounds
SNAPSHOT = 2  # its next entries are gone: it gets the state machine in pieces, one at a time, repeated by heartbeats
_STATES = ("probe", "replicate", "snapshot")


class Progress:
    """Invariants while leading: match < next <= last_index + 1; in PROBE nothing is in flight.

    match_index      the log of the member equals the leader's through here; never falls within a term. The leader's
                     own: what is durable.
    next_index       the next entry to send; in PROBE the Append goes out but next_index stays until the answer.
    applied_index    executed there, as it last said; never falls.
    epoch_round      Appends of earlier rounds belong to an earlier attempt: a refusal of one of them is old news.
    acked_round      the highest round it has answered in this term, accepted or not: it took us for the leader then.
    inflight         (last index, bytes) of each unanswered Append with entries, ascending.
    progress_ns      when match_index last rose, or something was sent into an empty inflight.
    heard_ns         when it last answered.
    sent_round       the round of the last Append to it.
    sent_commit      the highest commit index sent to it since it was last known to listen.
    probe_sent       PROBE: the Append of this attempt went out; only heartbeats repeat it, without entries.
    behind_log       it needs entries that are not kept here any more.
    snapshot_index   SNAPSHOT: of the snapshot that it is being sent.
    snapshot_offset  SNAPSHOT: bytes of it that it is known to have.
    catch_index      a learner: the leader's last index when this round of catching up began (4.2.1).
    catch_ns         a learner: when it began.
    caught_up        a learner: its last round took less than an election timeout.
    """

    __slots__ = (
        "acked_round",
        "applied_index",
        "behind_log",
        "catch_index",
        "catch_ns",
        "caught_up",
        "epoch_round",
        "heard_ns",
        "inflight",
        "inflight_bytes",
        "match_index",
        "member",
        "next_index",
        "probe_sent",
        "progress_ns",
        "sent_commit",
        "sent_round",
        "snapshot_index",
        "snapshot_offset",
        "state",
    )

    def __init__(self, member: int) -> None:
        """Nothing is known of ``member`` yet."""
        self.member = member
        self.match_index = 0
        self.applied_index = 0
        self.acked_round = 0
        self.heard_ns = 0
        self.inflight: deque[tuple[int, int]] = deque()
        self.reset(next_index=1, now_ns=0)

    def reset(self, *, next_index: int, now_ns: int) -> None:
        """A term begins: forget what was known and probe from ``next_index``."""
        self.match_index = 0
        self.applied_index = 0
        self.acked_round = 0
        self.heard_ns = now_ns
        self.progress_ns = now_ns
        self.sent_commit = 0
        self.sent_round = 0
        self.behind_log = False
        self.snapshot_index = self.snapshot_offset = 0
        self.catch_index = next_index - 1
        self.catch_ns = now_ns
        self.caught_up = False
        self.probe(next_index, epoch_round=1)

    def probe(self, next_index: int, *, epoch_round: int) -> None:
        """Look for the match point from ``next_index`` on; refusals of rounds before ``epoch_round`` are old."""
        self.state = PROBE
        self.probe_sent = False
        self.go_back(next_index, epoch_round=epoch_round)

    def go_back(self, next_index: int, *, epoch_round: int) -> None:
        """Send again from ``next_index`` on, as if nothing were in flight; refusals from before are old."""
        self.next_index = next_index
        self.epoch_round = epoch_round
        self.inflight.clear()
        self.inflight_bytes = 0

    def send_snapshot(self, index: int, *, epoch_round: int) -> None:
        """Send the state machine of ``index``, from its first byte."""
        self.go_back(index + 1, epoch_round=epoch_round)
        self.state = SNAPSHOT
        self.probe_sent = False
        self.snapshot_index = index
        self.snapshot_offset = 0

    @property
    def takes_snapshot(self) -> bool:
        """Whether it is being sent a snapshot."""
        return self.state == SNAPSHOT

    def status(self) -> dict[str, object]:
        """For people."""
        return {
            "state": _STATES[self.state],
            "match_index": self.match_index,
            "next_index": self.next_index,
            "applied_index": self.applied_index,
            "inflight_count": len(self.inflight),
            "inflight_bytes": self.inflight_bytes,
            "heard_ns": self.heard_ns,
            "behind_log": self.behind_log,
            "snapshot_offset": self.snapshot_offset if self.state == SNAPSHOT else None,
        }
