"""What a turn of the Raft core costs, in microseconds of Python: flat in the batch's size and in the log's length.

A leader's turn: propose a batch, two Appends out; two AppendReplies in, the batch committed and applied. A follower's:
one Append in, its AppendReply out. Messages are made and taken in as objects; the codec's share is shown apart.

    python benchmarks/raft_turn.py [--turns N]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial

from raft import Append, AppendReply, Config, HardState, Identity, Raft, TermRuns, VoteReply, decode, encode

MS = 1_000_000
SLICE_TURNS = 50


class FlatLog:
    """Sizes of a log of 64-byte entries that keeps none of them."""

    def fit(self, first_index: int, last_index: int, bytes_max: int) -> int:
        """As raft.Log says."""
        return min(last_index, first_index + max(1, bytes_max // 64) - 1)

    def range_bytes(self, first_index: int, last_index: int) -> int:
        """As raft.Log says."""
        return 64 * (last_index - first_index + 1)


def member(log_length: int, node_id: int = 0) -> Raft:
    """Restarted from a log of that length, of one term."""
    runs = TermRuns([(1, 1)], log_length)
    config = Config(node_id, (0, 1, 2), pre_vote=False, append_bytes_max=1 << 20)
    return Raft(config, FlatLog(), rng=random.Random(1), now_ns=0, hard_state=HardState(1, None), term_runs=runs)


def leader(log_length: int) -> Raft:
    """Elected, with followers that have everything."""
    raft = member(log_length)
    raft.tick(raft.deadline_ns)
    raft.persisted(raft.ready().number)
    raft.step(VoteReply(1, 0, 2, True), 200 * MS)
    raft.persisted(raft.ready().number)
    for append in raft.ready().messages:
        if isinstance(append, Append):
            last = append.prev_index + append.count
            raft.step(AppendReply(append.target, 0, 2, append.round, last, 0, 0, 0, True), 200 * MS)
    raft.ready()
    raft.applied(raft.commit_index)
    return raft


def leader_turns(raft: Raft, batch: int, turns: int) -> float:
    """Seconds that many turns take, without making the replies."""
    now = 200 * MS
    spent = 0.0
    clock = time.perf_counter
    for _ in range(turns):
        start = clock()
        raft.propose(batch, now)
        ready = raft.ready()
        raft.persisted(ready.number)
        spent += clock() - start
        replies = [
            AppendReply(
                append.target, 0, 2, append.round, append.prev_index + append.count, 0, 0, raft.applied_index, True
            )
            for append in ready.messages
            if isinstance(append, Append)
        ]
        if len(replies) != 2:
            raise AssertionError(f"two Appends a turn, not {ready.messages}")
        start = clock()
        for reply in replies:
            raft.step(reply, now)
        raft.applied(raft.commit_index)
        spent += clock() - start
    if raft.commit_index != raft.last_index:
        raise AssertionError(f"committed {raft.commit_index} of {raft.last_index}")
    return spent


def follower_turns(raft: Raft, batch: int, turns: int) -> float:
    """Seconds that many turns take, without making the Appends."""
    last = raft.last_index
    spent = 0.0
    clock = time.perf_counter
    for i in range(1, turns + 1):
        append = Append(1, 0, 2, last, 2 if i > 1 else 1, 2, last, 0, i, batch, 64 * batch)
        start = clock()
        raft.step(append, 0)
        ready = raft.ready()
        raft.persisted(ready.number)
        raft.applied(ready.commit_index)
        spent += clock() - start
        last += batch
    if raft.last_index != last:
        raise AssertionError(f"{raft.last_index} entries of {last}")
    return spent


def follower_turns_of(log_length: int, batch: int, turns: int) -> float:
    """Of a fresh one."""
    return follower_turns(member(log_length), batch, turns)


def best_us(run: Callable[[int], float], turns: int) -> float:
    """A turn of the best of many short runs: what it costs where nobody else has the processor."""
    return min(run(SLICE_TURNS) for _ in range(max(1, 5 * turns // SLICE_TURNS))) / SLICE_TURNS * 1e6


def codec_us(turns: int) -> tuple[float, float]:
    """(encode an Append, decode an AppendReply)."""
    identity = Identity(1, 0, 7)
    append = Append(0, 1, 2, 1000, 2, 2, 990, 900, 55, 64, 4096)
    reply = encode(AppendReply(0, 0, 2, 55, 1064, 0, 0, 990, True), identity)

    def timed(work: Callable[[], object]) -> Callable[[int], float]:
        def run(times: int) -> float:
            start = time.perf_counter()
            for _ in range(times):
                work()
            return time.perf_counter() - start

        return run

    encoding = best_us(timed(lambda: encode(append, identity)), turns)
    return encoding, best_us(timed(lambda: decode(reply, 72, cluster_id=1)), turns)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--turns", type=int, default=5_000)
    turns = parser.parse_args().turns
    print(f"{'entries a batch':>16} {'log length':>11} {'leader us':>10} {'follower us':>12}")
    cases = [(batch, 10**5) for batch in (1, 16, 256, 4096)] + [(64, 10**length) for length in (3, 4, 5, 6, 7)]
    for batch, length in cases:
        lead = best_us(partial(leader_turns, leader(length), batch), turns)
        follow = best_us(partial(follower_turns_of, length, batch), turns)
        print(f"{batch:>16} {length:>11} {lead:>10.2f} {follow:>12.2f}")
    encoding, decoding = codec_us(turns)
    print(f"codec: encode an Append {encoding:.2f} us, decode an AppendReply {decoding:.2f} us")


if __name__ == "__main__":
    main()
