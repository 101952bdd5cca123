"""``--filter``: which messages to print.

An expression is ``key=value[,value...]`` or ``key!=value[,value...]``; any of its values may match, and of several
expressions all must. Keys: type, kind (of a Raft message), rid, term, member, policy, ip and port (of either end),
problem (``problem=yes``, or a word of the reason).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Final

from r2p2.dissect.datagrams import dotted
from r2p2.dissect.messages import Message
from r2p2.dissect.text import type_name
from r2p2.dissect.wire import KINDS, POLICY_NAMES, REQUEST, TYPE_NAMES

Filter = Callable[[Message], bool]


class FilterError(ValueError):
    """The expression is not one; the message says what would be."""


def _numbers(*values: int) -> set[str]:
    return {str(value) for value in values}


_KEYS: Final[dict[str, Callable[[Message], set[str]]]] = {
    "type": lambda message: {type_name(message.type)},
    "kind": lambda message: {message.raft.kind} if message.raft else set(),
    "rid": lambda message: _numbers(message.rid),
    "term": lambda message: _numbers(message.raft.term) if message.raft else set(),
    "member": lambda message: _numbers(message.raft.sender) if message.raft else set(),
    "policy": lambda message: (
        {POLICY_NAMES[message.policy]} if message.type == REQUEST and message.policy < 4 else set()
    ),
    "ip": lambda message: {dotted(message.source_ip), dotted(message.target_ip)},
    "port": lambda message: _numbers(message.source_port, message.target_port),
    "problem": lambda message: {"YES", *message.problem.upper().split()} if message.problem else {"NO"},
}
_NAMES: Final = {
    "type": set(TYPE_NAMES),
    "kind": {kind.name for kind in KINDS.values()},
    "policy": set(POLICY_NAMES),
}

_NUMBERS: Final = {"rid": 0xFFFF, "term": (1 << 64) - 1, "member": (1 << 16) - 1, "port": 0xFFFF}


def all_of(filters: Sequence[Filter]) -> Filter:
    """The filter that passes what all of them pass."""
    return lambda message: all(one(message) for one in filters)


def parse(expression: str) -> Filter:
    """One expression. FilterError names it and what is allowed."""
    match = re.fullmatch(r"\s*(\w+)\s*(!?=)\s*(.+?)\s*", expression)
    if match is None:
        raise FilterError(f"{expression!r}: expected KEY=VALUE[,VALUE...] or KEY!=VALUE[,VALUE...]")
    key, operator, text = match.groups()
    if key not in _KEYS:
        raise FilterError(f"{expression!r}: no key {key!r}; there are {', '.join(_KEYS)}")
    values = {value.strip().upper() for value in text.split(",")}
    unknown = sorted(values - _NAMES[key]) if key in _NAMES else []
    if unknown:
        raise FilterError(f"{expression!r}: no {key} {unknown[0]!r}; there are {', '.join(sorted(_NAMES[key]))}")
    if key in _NUMBERS:
        for value in values:
            if not (value.isascii() and value.isdecimal() and int(value) <= _NUMBERS[key]):
                raise FilterError(f"{expression!r}: {value!r} is no {key}; it is a number in 0..{_NUMBERS[key]}")
        values = _numbers(*map(int, values))
    if key == "ip":
        for value in values:
            try:
                ipaddress.IPv4Address(value)
            except ValueError:
                raise FilterError(f"{expression!r}: {value!r} is no IPv4 address, as 10.0.0.1 is") from None
    found, wanted = _KEYS[key], operator == "="
    return lambda message: (not values.isdisjoint(found(message))) is wanted
