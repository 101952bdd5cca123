"""One member alone: fed message by message, and asked for everything that it answers."""

from __future__ import annotations

import random

from raft import (
    Append,
    Config,
    HardState,
    Raft,
    TermRuns,
)
from raft.list_log import ListLog


def node_of(runs: TermRuns | None = None, term: int = 0, *, members: int = 3, **settings: object) -> Raft:
    """Member 0 alone, with this log; sizes come from a log of 64-byte entries."""
    runs = runs or TermRuns()
    entries = [(runs.term_at(i), i, 64) for i in range(runs.base_index + 1, runs.last_index + 1)]
    config = Config(0, tuple(range(members)), **settings)  # type: ignore[arg-type]
    log = ListLog(entries, first_index=runs.base_index + 1)
    hard = HardState(term, None) if term else None
    return Raft(config, log, rng=random.Random(1), now_ns=0, hard_state=hard, term_runs=runs)


def append(
    term: int,
    prev: int,
    prev_term: int,
    count: int = 0,
    entries_term: int = 0,
    *,
    commit: int = 0,
    global_commit: int = 0,
    round: int = 1,
    request_id: int = 0,
) -> Append:
    """From member 1."""
    places = (prev, prev_term, entries_term, commit, global_commit, round)
    return Append(1, 0, term, *places, count, 64 * count, request_id=request_id, payload="p")


def answers(raft: Raft) -> list[object]:
    """Everything ready, with the durable part made durable."""
    ready = raft.ready()
    return [*ready.messages, *raft.persisted(ready.number)]
