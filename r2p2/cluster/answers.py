"""What a member answers when it is asked for its status, checked once, so that those who read it may trust its form.

Whoever listens at an address may answer anything: another kind of server, another version. It costs that member its
row and no more. Leaves to others: asking (`status.py`), what the statuses say (`view.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from r2p2.address import parse_address
from r2p2.cluster.view import Status
from r2p2.errors import UserError

__all__ = ["status_of"]

_Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    # Within 64 bits: a float can be made of it, and it fits into a line.
    return isinstance(value, int | float) and 0 <= value < 1 << 64


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value)


def _is_small(value: Any) -> bool:
    # Of metrics, which passes over what is no whole number.
    return not isinstance(value, int) or abs(value) < 1 << 64


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_address(value: Any) -> bool:
    try:
        return isinstance(value, str) and (not value or bool(parse_address(value)))
    except UserError:
        return False


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _has(needed: Mapping[str, _Check], optional: Mapping[str, _Check] | None = None) -> _Check:
    """An object with all of ``needed``, and of ``optional`` what there is."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and all(name in value and is_right(value[name]) for name, is_right in needed.items())
            and all(name not in value or is_right(value[name]) for name, is_right in (optional or {}).items())
        )

    return check


def _all(of: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(of, value))


_is_row: Final = _has(
    {"slot": _is_count, "address": _is_address, "voter": _is_number, "outgoing": _is_number, "learner": _is_number},
    {"silent_ms": _is_number},
)
_is_waiting: Final = _has({"op": _is_text, "slot": _is_count, "note": _is_text})
_KEYS: Final[Mapping[str, _Check]] = {
    "node_id": _is_count,
    "role": _is_text,
    "term": _is_count,
    "leader": _or_none(_is_count),
    "commit_index": _is_count,
    "applied_index": _is_count,
    "log_bytes": _is_count,
    "state_digest": _is_text,
    "counters": lambda value: isinstance(value, dict) and all(map(_is_count, value.values())),
    "configuration": _or_none(
        _has({"configuration_index": _is_count, "members": _all(_is_row), "waiting": _all(_is_waiting)})
    ),
    "log_held_by": _or_none(_has({"bytes": _is_count, "address": _is_text})),
    "majority_lost": _is_list,
    "evicted": _is_list,
    "determinism": _or_none(_has({"differs": _or_none(_has({"other": _is_count, "index": _is_count}))})),
    **dict.fromkeys(
        ("global_commit", "log_first_index", "log_last_index", "log_time_ms", "log_time_behind_ms"), _is_small
    ),
}


def status_of(reply: bytes) -> Status:
    """What a member says of itself; ``{"error": ...}`` for an answer that is no status, or one of another form."""
    try:
        answer = json.loads(reply)
    except (ValueError, RecursionError):
        return {"error": "it does not answer with a status; is it a server of another kind?"}
    if not isinstance(answer, dict):
        return {"error": "it does not answer with a status"}
    wrong = [name for name, is_right in _KEYS.items() if name in answer and not is_right(answer[name])]
    if not wrong and answer.get("role") == "leader" and not answer.get("configuration"):
        wrong = ["configuration"]
    if wrong:
        return {"error": f"its status cannot be read ({wrong[0]}); is it of another version?"}
    return answer
