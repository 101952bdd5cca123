"""What a configuration says of its members: where they are, whose memory is gone, whether a majority is left."""

from __future__ import annotations

from collections.abc import Iterable

from raft import Configuration, slot_of

__all__ = ["addresses_of", "in_slot", "lost_members", "majority_is_lost"]


def addresses_of(configuration: Configuration) -> dict[int, tuple[int, int]]:
    """Member id -> (ip, port)."""
    return {member: (ip, port) for member, ip, port in configuration.addresses}


def in_slot(members: Iterable[int], slot: int) -> int | None:
    """The newest known member of a slot, or None."""
    return next((member for member in members if slot_of(member) == slot), None)


def lost_members(configuration: Configuration, outside: Iterable[tuple[int, tuple[int, int]]]) -> tuple[int, ...]:
    """Voters whose memory is gone: another process says Hello from their address, in their slot.

    Args:
        configuration: in force.
        outside: (member, address) of those that say Hello.
    """
    known = addresses_of(configuration)
    newer = {(slot_of(member), address): member for member, address in outside}
    voters = {*configuration.voters, *configuration.outgoing}
    return tuple(v for v in sorted(voters) if newer.get((slot_of(v), known.get(v, (0, 0))), v) != v)


def majority_is_lost(configuration: Configuration, lost: Iterable[int]) -> bool:
    """Whether, without ``lost``, no majority of the voters (of either half) is left."""
    gone = set(lost)
    halves = [half for half in (configuration.voters, configuration.outgoing) if half]
    return any(sum(voter not in gone for voter in half) < len(half) // 2 + 1 for half in halves)
