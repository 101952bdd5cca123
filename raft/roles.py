"""The roles of a member and every way from one to another: the table the code is held to and the picture is made of.

Left to others: what a member does in a role.
"""

from __future__ import annotations

from typing import Final

from raft.config import Role

F, P, C, L = Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER

TRANSITIONS: Final[dict[tuple[Role, Role], str]] = {
    (F, P): "no leader heard for an election timeout (3.4), asks before it stands (9.6)",
    (F, C): "told by its leader to take over (3.10), or pre-votes are off",
    (P, P): "no majority within an election timeout: asks again",
    (P, C): "a majority would vote for it: a new term (3.4)",
    (P, F): "a leader, a newer term, or a vote given to another",
    (C, P): "no majority within an election timeout: asks before it stands again",
    (C, C): "no majority within an election timeout, pre-votes are off",
    (C, L): "a majority of votes, its own durable: opens its term with a no-op (3.6.2)",
    (C, F): "a leader of its term, or a newer term",
    (L, F): "a newer term, a majority not heard (CheckQuorum, 6.2), or removed by a committed configuration (4.2.2)",
}
"""(from, to): why. Whatever is not here cannot happen; sections are the dissertation's."""


def diagram() -> str:
    """A mermaid state diagram of the table."""
    lines = ["stateDiagram-v2", "    [*] --> follower"]
    for (before, after), why in TRANSITIONS.items():
        lines.append(f"    {before.value} --> {after.value}: {why.replace(':', ' -')}")
    return "\n".join(lines) + "\n"
