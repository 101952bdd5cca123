"""Several commands in one request: atomic batches with conditions, pipelines, and the watches of transactions.

    R2P2.BATCH [IF key value | IFABSENT key | IFPRESENT key | IFUNWRITTEN key watch] ... DO {count word ...} ...
    R2P2.PIPELINE {count word ...} ...
    R2P2.WATCH key ...

``count`` is the number of words of the command that follows. A request is executed as one, so a batch is atomic. Its
reply is the array of the commands' replies, an error among them as any other, or nil when a condition does not hold;
commands that do not exist or have a wrong number of words have the whole batch refused before anything is done.

A pipeline is a batch that may stop: when a response could not carry the next command's reply, or it is one too many of
those that go through many keys. It and those after it are not executed then, and the array is shorter; whoever
sent it goes on from there. Its wrong commands are answered in their place.

R2P2.WATCH answers a number for each key, which IFUNWRITTEN compares: it holds as long as nobody has written to the key.
"""

from __future__ import annotations

from typing import Final

from r2p2 import limits
from r2p2.apps.kv.registry import Command, check, command
from r2p2.apps.kv.resp import NIL_ARRAY, SYNTAX, TOO_LARGE, array_of, error, integer, parse_int64
from r2p2.apps.kv.store import Store

_DO: Final = b"DO"
_CONDITION_WORDS: Final = {b"IF": 3, b"IFABSENT": 2, b"IFPRESENT": 2, b"IFUNWRITTEN": 3}
# An array's header, and the smallest refusal for each command that may still come.
_HEADER_BYTES: Final = 16
_REFUSAL_BYTES: Final = 64
assert len(TOO_LARGE) <= _REFUSAL_BYTES
# The reply of a write, unless it is marked as one that replies a value.
_SMALL_REPLY_BYTES: Final = 256
_TOO_MANY_SWEEPING: Final = error(
    b"more than %d of SCAN, KEYS, DBSIZE, FLUSHALL and FLUSHDB in one batch" % limits.KV_SWEEPING_MAX
)
_TOO_MANY: Final = error(b"more than %d commands in one batch" % limits.KV_BATCH_COMMANDS_MAX)


def split_commands(words: list[bytes], at: int) -> list[list[bytes]] | bytes:
    """The commands in a batch or pipeline from ``at`` on, or the error reply."""
    commands = []
    while at < len(words):
        count = parse_int64(words[at])
        if count is None or count < 1 or at + count >= len(words):
            return SYNTAX
        commands.append(words[at + 1 : at + 1 + count])
        at += 1 + count
    return commands if len(commands) <= limits.KV_BATCH_COMMANDS_MAX else _TOO_MANY


def _holds(store: Store, condition: list[bytes]) -> bool:
    name, key = condition[0].upper(), condition[1]
    if name == b"IF":
        return store.get(key) == condition[2]
    if name == b"IFUNWRITTEN":
        number = parse_int64(condition[2])
        return number is not None and store.unwritten(key, number)
    return (store.get(key) is None) == (name == b"IFABSENT")


def split_conditions(words: list[bytes]) -> tuple[list[list[bytes]], int] | None:
    """The conditions, and where the commands begin; None: a syntax error."""
    conditions: list[list[bytes]] = []
    at = 1
    while at < len(words):
        name = words[at].upper()
        at += 1
        if name == _DO:
            return conditions, at
        length = _CONDITION_WORDS.get(name, 0)
        if length == 0 or at + length - 1 > len(words):
            return None
        conditions.append(words[at - 1 : at + length - 1])
        at += length - 1
    return None


def is_read(words: list[bytes]) -> bool:
    """Whether a pipeline or batch has neither a command that writes nor a condition that may."""
    at = 1
    if words[0].upper() == b"R2P2.BATCH":
        parsed = split_conditions(words)
        if parsed is None or any(condition[0].upper() == b"IFUNWRITTEN" for condition in parsed[0]):
            return False
        at = parsed[1]
    commands = split_commands(words, at)
    if isinstance(commands, bytes):
        return True
    return not any(isinstance(found := check(inner), Command) and found.writes for inner in commands)


def _may_not(found: Command) -> bytes:
    return error(b"%b is not allowed inside a batch" % found.name)


@command("R2P2.BATCH", 2, writes=True, batched=False)
def batch(store: Store, words: list[bytes]) -> bytes:
    """R2P2.BATCH [condition ...] DO {count word ...} ..."""
    parsed = split_conditions(words)
    if parsed is None:
        return SYNTAX
    conditions, at = parsed
    commands = split_commands(words, at)
    if isinstance(commands, bytes):
        return commands
    checked = []
    for inner in commands:
        found = check(inner)
        if isinstance(found, bytes):
            return found
        if not found.batched:
            return _may_not(found)
        checked.append(found)
    if sum(found.sweeping for found in checked) > limits.KV_SWEEPING_MAX:
        return _TOO_MANY_SWEEPING
    if not all(_holds(store, condition) for condition in conditions):
        return NIL_ARRAY
    room = limits.REPLICATED_REPLY_BYTES_MAX - _HEADER_BYTES - _REFUSAL_BYTES * len(commands)
    replies = []
    for found, inner in zip(checked, commands, strict=True):
        reply = found.run(store, inner)
        if len(reply) > room + _REFUSAL_BYTES:
            reply = TOO_LARGE
        room -= len(reply) - _REFUSAL_BYTES
        replies.append(reply)
    return array_of(replies, len(replies))


@command("R2P2.PIPELINE", 3, writes=True, batched=False)
def pipeline(store: Store, words: list[bytes]) -> bytes:
    """R2P2.PIPELINE {count word ...} ..."""
    commands = split_commands(words, 1)
    if isinstance(commands, bytes):
        return commands
    room = limits.REPLICATED_REPLY_BYTES_MAX - _HEADER_BYTES
    replies: list[bytes] = []
    sweeping_left = limits.KV_SWEEPING_MAX
    for inner in commands:
        found = check(inner)
        if isinstance(found, bytes):
            reply = found
        elif not found.batched:
            reply = _may_not(found)
        else:
            if replies and found.writes and room < _SMALL_REPLY_BYTES + _value_bytes(store, found, inner):
                break
            if found.sweeping and sweeping_left == 0:
                break
            sweeping_left -= found.sweeping
            reply = found.run(store, inner)
        if len(reply) > room:
            if replies:
                break
            reply = TOO_LARGE
        room -= len(reply)
        replies.append(reply)
    return array_of(replies, len(replies))


def _value_bytes(store: Store, found: Command, words: list[bytes]) -> int:
    return len(store.get(words[1]) or b"") if found.replies_value else 0


@command("R2P2.WATCH", 2, writes=True, batched=False)
def watch(store: Store, words: list[bytes]) -> bytes:
    """R2P2.WATCH key ..."""
    return array_of([integer(store.watch(key)) for key in words[1:]], len(words) - 1)
