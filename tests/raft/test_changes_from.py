"""From where on an Append would change a log: the answer is what stepping it does."""

from __future__ import annotations

import random

from raft import Append, AppendEntries, Config, HardState, Raft, TermRuns, Truncate
from raft.list_log import ListLog


def follower(terms: list[int], commit: int) -> Raft:
    runs = TermRuns()
    for index, term in enumerate(terms, 1):
        runs.extend(index, term)
    raft = Raft(
        Config(node_id=0, members=(0, 1, 2)),
        ListLog(),
        rng=random.Random(1),
        now_ns=0,
        hard_state=HardState(4, None),
        term_runs=runs,
    )
    raft.commit_index = commit
    return raft


def test_it_says_what_a_step_then_does() -> None:
    answers = set()
    for prev in range(8):
        for prev_term in range(5):
            for count in (1, 2, 4):
                for entries_term in (2, 3, 4):
                    for term in (3, 4, 5):
                        raft = follower([1, 1, 2, 2, 3], commit=2)
                        message = Append(1, 0, term, prev, prev_term, entries_term, 0, 0, 1, count, 64)
                        first = raft.changes_from(message)
                        answers.add(first)
                        raft.step(message, 0)
                        if raft.ignored["impossible"]:
                            continue  # no leader says so
                        ops = raft.ready().log_ops
                        done = [
                            op.from_index if isinstance(op, Truncate) else op.first_index
                            for op in ops
                            if isinstance(op, Truncate | AppendEntries)
                        ]
                        assert done == [] if first == 0 else set(done) == {first}, message
    assert answers >= {0, 3, 4, 5, 6}
