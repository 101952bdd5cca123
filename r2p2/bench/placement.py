"""Which process of a benchmark runs on which processor.

Pollers never sleep, so the kernel's scheduler leaves them where they happened to start, and the same benchmark gives
different figures from launch to launch. A scheme makes that a choice. It is carried out once the servers have elected
a leader, from outside (``sched_setaffinity``); who leads later is not looked at again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from r2p2.errors import UserError

__all__ = ["SCHEMES", "check", "place", "processors"]

# Which roles share the first processor; the others take the further ones in turn.
SCHEMES: dict[str, tuple[str, ...]] = {
    "leader+generator": ("leader", "generator"),
    "leader+follower": ("leader", "follower"),
    "leader": ("leader",),
}
ROLES = ("leader", "follower", "generator")
_HELP = (
    f"Schemes: none, {', '.join(SCHEMES)}; or a processor for each role, as leader=0,generator=0,follower=1 "
    "(a single server is the leader)."
)


def processors() -> list[int]:
    """Those this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _explicit(scheme: str) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for part in scheme.split(","):
        role, equals, number = part.partition("=")
        if role not in ROLES or not equals or not number.isdigit():
            raise UserError(f"--pin {scheme!r}: {part!r} is no role and processor", _HELP)
        chosen[role] = int(number)
    missing = [role for role in ROLES if role not in chosen and role != "follower"]
    if missing:
        raise UserError(f"--pin {scheme!r} says nothing of the {missing[0]}", _HELP)
    return chosen


def check(scheme: str) -> None:
    """UserError when it is no scheme."""
    if scheme not in SCHEMES and scheme not in ("", "none"):
        _explicit(scheme)


def place(scheme: str, servers: Sequence[str], leader: str, cpus: Sequence[int] | None = None) -> Mapping[str, int]:
    """Process name -> processor; empty for no scheme. `leader`: of the servers; none named: the first of them.

    UserError when it is no scheme.
    """
    if scheme in ("", "none"):
        return {}
    available = list(processors() if cpus is None else cpus)
    if not available:
        raise UserError("processes cannot be pinned on this system", "Leave --pin out.")
    leader = leader or servers[0]
    followers = [name for name in servers if name != leader]
    if scheme not in SCHEMES:
        chosen = _explicit(scheme)
        if followers and "follower" not in chosen:
            raise UserError(f"--pin {scheme!r} says nothing of the followers", _HELP)
        return {
            leader: chosen["leader"],
            **{name: chosen["follower"] for name in followers},
            "generator": chosen["generator"],
        }
    first, *others = available
    others = others or [first]
    together = SCHEMES[scheme]
    placed = {leader: first}
    if "generator" in together:
        placed["generator"] = first
    if "follower" in together and followers:
        placed[followers[0]] = first
    rest = [name for name in ("generator", *followers) if name not in placed]
    return placed | {name: others[i % len(others)] for i, name in enumerate(rest)}
